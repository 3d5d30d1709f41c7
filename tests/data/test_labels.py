import re

import jax
import numpy as np
import pytest
from unchecked import unchecked

from lazynet.data import is_labels, label_noise, parse_classes
from lazynet.data._labels import class_indices, class_targets

EVEN, ODD = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)


@pytest.mark.parametrize(
    ("classes", "groups"),
    [
        ((0, 1), ((0,), (1,))),
        ([3, 1, 2], ((3,), (1,), (2,))),
        (range(10), tuple((label,) for label in range(10))),
        (np.array([4, 2]), ((4,), (2,))),
        (("0", "1"), ((0,), (1,))),
        (("even", "odd"), (EVEN, ODD)),
        ("even odd", (EVEN, ODD)),
        ((EVEN, ODD), (EVEN, ODD)),
        (((0, 2), 1, "3,5"), ((0, 2), (1,), (3, 5))),
        (("even", np.int64(1)), (EVEN, (1,))),
    ],
)
def test_parse_classes(classes, groups):
    parsed = parse_classes(classes)
    assert parsed == groups
    assert all(type(label) is int for group in parsed for label in group)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 10), "classes must be labels from 0 to 9, groups of labels, 'even' or 'odd', got 10."),
        ((-1, 1), "got -1"),
        ((0, 1.0), "got 1.0"),
        ((0, True), "got True"),
        ((0, "cat"), "got 'cat'"),
        ((0, "1,"), "got ''"),
        ((0, ()), "got ()"),
        (7, "got 7"),
        ((0,), "classes must name at least two classes, got (0,)."),
        ("even", "classes must name at least two classes"),
        ((), "classes must name at least two classes"),
        ((0, 1, 0), "classes must not repeat a label, got label 0 more than once in (0, 1, 0)."),
        (((0, 2), (2, 3)), "got label 2 more than once"),
        (((5, 5), 3), "got label 5 more than once"),
        (("even", 4), "got label 4 more than once"),
    ],
)
def test_bad_classes(classes, message):
    with unchecked(), pytest.raises(ValueError, match=re.escape(message)):
        parse_classes(classes)


def test_targets_of_two_classes_and_of_more():
    indices = class_indices(np.array([7, 1, 4, 7, 9]), ((7, 9), (1,)))
    np.testing.assert_array_equal(indices, [0, 1, -1, 0, 0])
    np.testing.assert_array_equal(class_targets(np.array([0, 1]), 2), [1.0, -1.0])
    expected = np.array([[2, -1, -1], [-1, -1, 2]]) / 3
    np.testing.assert_allclose(class_targets(np.array([0, 2]), 3), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([1, -1, -1], True),
        (np.array([1, 1], np.float32), True),
        ([1, 0], False),
        ([1, -1.01], False),
        ([1, np.nan], False),
        ([], False),
        (1.0, False),
        ([[1], [-1]], False),
        (np.eye(3) - 1 / 3, True),
        ((np.eye(3) - 1 / 3).astype(np.float32), True),
        (np.eye(3) - 1 / 3 + 1e-5, False),
        (np.eye(3), False),
        (np.eye(2) - 0.5, True),
        (np.full((2, 2), np.nan), False),
        (np.zeros((2, 3, 3)), False),
    ],
)
def test_is_labels(y, expected):
    with unchecked():
        assert is_labels(y) is expected


def signs(n):
    return np.where(np.arange(n) % 3 == 0, 1.0, -1.0)


def test_redrawn_labels_are_uniform_and_independent_of_the_old_ones(key):
    n = 20_000
    y = signs(n)
    noisy = label_noise(y, 1.0, key)
    assert set(noisy) == {-1.0, 1.0}
    # The tolerance is six standard deviations of the mean of n independent signs.
    assert abs(noisy.mean()) < 6 / np.sqrt(n)
    assert abs((noisy * (y - y.mean())).mean()) < 6 / np.sqrt(n)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_portion_of_one_hot_labels(key, classes):
    n, portion = 20_000, 0.4
    y = np.eye(classes)[np.arange(n) % classes] - 1 / classes
    noisy = label_noise(y, portion, key)
    assert is_labels(noisy)
    assert noisy.shape == y.shape
    moved = (noisy != y).any(axis=1).mean()
    expected = portion * (1 - 1 / classes)
    assert abs(moved - expected) < 6 * np.sqrt(expected * (1 - expected) / n)
    drawn = noisy.argmax(axis=1)[(noisy != y).any(axis=1)]
    assert np.bincount(drawn, minlength=classes).min() > 0.8 * len(drawn) / classes


def test_exact_number_of_redrawn_labels(key):
    y = signs(1000)
    # Labels redrawn as -1 change if all labels were +1, and those redrawn as +1 change if all labels were -1.
    for portion, chosen in ((0.1, 100), (0.3336, 334), (1, 1000)):
        ones = np.ones(1000)
        assert (label_noise(ones, portion, key) == -1).sum() + (label_noise(-ones, portion, key) == 1).sum() == chosen
    np.testing.assert_array_equal(label_noise(y, 0.0004, key), y)
    np.testing.assert_array_equal(label_noise(y, 0, key), y)


def test_a_smaller_portion_changes_a_subset_in_the_same_way(key):
    y = signs(3000)
    small, large = label_noise(y, 0.2, key), label_noise(y, 0.6, key)
    changed = small != y
    assert 0 < changed.sum() < (large != y).sum()
    np.testing.assert_array_equal(large[changed], small[changed])


def test_noise_depends_on_the_key_alone(key):
    y = signs(500)
    before = y.copy()
    noisy = label_noise(y, 0.5, key)
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(noisy, label_noise(y.tolist(), 0.5, key))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(noisy, label_noise(y, 0.5, key))
    assert (noisy != label_noise(y, 0.5, jax.random.fold_in(key, 1))).any()


@pytest.mark.parametrize("portion", [-0.1, 1.1, np.nan, "half", None])
def test_bad_portion(key, portion):
    with unchecked(), pytest.raises(ValueError, match="portion must be a number between 0 and 1"):
        label_noise(signs(4), portion, key)


def test_noise_needs_labels_and_a_key(key):
    with pytest.raises(ValueError, match="y must contain class labels"):
        label_noise([0.3, 1.0], 0.5, key)
    for bad in (0, jax.random.split(key), np.zeros(2, np.uint32)):
        with unchecked(), pytest.raises(ValueError, match="key must be a single JAX random key"):
            label_noise(signs(4), 0.5, bad)
    assert is_labels(label_noise(signs(4), 0.5, jax.random.PRNGKey(0)))
