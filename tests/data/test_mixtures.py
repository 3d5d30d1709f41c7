import re
from itertools import combinations

import jax
import numpy as np
import pytest
from unchecked import unchecked

from lazynet.data import Dataset, Separation, is_labels, mixture, separation, xor
from lazynet.data._mixtures import _class_distance


def distances(a, b):
    return np.sqrt(np.sum((a[:, None] - b[None, :]) ** 2, axis=2))


def from_all_pairs(data, clusters):
    """Return delta and the diameter from all pairs of training rows, given the component of each row in `clusters`."""
    label = data.y_train.argmax(axis=1)
    every = distances(data.x_train, data.x_train)
    delta = every[label[:, None] != label[None, :]].min()
    return delta, every[clusters[:, None] == clusters[None, :]].max()


def nearest(data, centers):
    return distances(data.x_train, centers).argmin(axis=1)


@pytest.mark.slow
def test_the_papers_mixture(key):
    """Centers and noise have the norms that the paper gives, and rows can be scaled to unit norm."""
    raw = mixture(2000, 50, 400, key, 5, 2, unit=False)
    centers = mixture(10, 0, 400, key, 5, 2, sigma=0.0, unit=False).x_train
    # The norm of 400 normal entries of variance sigma_0^2 / 400 is sigma_0 up to a relative error of 1 / sqrt(800).
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 5, rtol=6 / np.sqrt(800))
    noise = raw.x_train - centers[nearest(raw, centers)]
    assert np.mean(np.sum(noise**2, axis=1)) == pytest.approx(1, rel=6 * np.sqrt(2 / (2000 * 400)))
    assert abs(np.mean(noise**4) / np.mean(noise**2) ** 2 - 3) < 0.05
    np.testing.assert_array_equal(np.bincount(nearest(raw, centers)), 200)
    unit = mixture(2000, 50, 400, key, 5, 2)
    np.testing.assert_allclose(unit.x_train, raw.x_train / np.linalg.norm(raw.x_train, axis=1)[:, None], rtol=1e-12)
    assert unit.name == "mixture"
    assert (unit.outputs, unit.n_test) == (5, 50)
    assert is_labels(unit.y_train)


def test_components_of_a_class_are_its_own(key):
    data = mixture(60, 0, 50, key, 3, 2, sigma=0.0)
    at = [np.unique(data.x_train[data.y_train.argmax(axis=1) == label].round(9), axis=0) for label in range(3)]
    assert [len(centers) for centers in at] == [2, 2, 2]
    assert len(np.unique(np.concatenate(at), axis=0)) == 6


@pytest.mark.parametrize(
    ("classes", "components", "delta", "lambda_"),
    [
        (3, 2, 1.0, 0.1),
        (2, 1, 1.3, 0.05),
        (4, 3, 0.5, 0.4),
    ],
)
def test_separation_is_exact(classes, components, delta, lambda_, key):
    centers = mixture(classes * components, 0, 30, key, classes, components, delta=delta, lambda_=lambda_ * 0).x_train
    data = mixture(600, 7, 30, key, classes, components, delta=delta, lambda_=lambda_)
    np.testing.assert_allclose(np.linalg.norm(data.x_train, axis=1), 1, rtol=1e-12)
    # With clusters of diameter 0, all rows are centers, which are delta apart.
    between = [np.linalg.norm(a - b) for a, b in combinations(centers, 2)]
    np.testing.assert_allclose(between, delta, rtol=1e-6)
    measured, (least, widest) = separation(data, components), from_all_pairs(data, by_distance(data))
    assert measured.delta == pytest.approx(least, rel=1e-12)
    assert measured.diameter == pytest.approx(widest, rel=1e-12)
    assert measured.delta >= delta
    assert measured.diameter <= lambda_ * delta * (1 + 1e-12)
    # With a hundred or more points, two are near opposite ends of a cap.
    assert measured.diameter > 0.7 * lambda_ * delta
    assert measured.holds == (measured.lambda_ <= 1 / (8 * components))


def by_distance(data):
    """Return the component of each row: rows closer than 0.8 times the distance between classes share a component."""
    every = distances(data.x_train, data.x_train)
    label = data.y_train.argmax(axis=1)
    limit = every[label[:, None] != label[None, :]].min() * 0.8
    return np.argmax(every < limit, axis=1)


@pytest.mark.slow
def test_two_caps_of_two_points_reach_the_ends(key):
    """With many points, the measured distance and diameter are close to the distance and diameter of the caps."""
    data = mixture(4000, 0, 3, key, 2, 1, delta=0.8, lambda_=0.5)
    measured = separation(data, 1)
    assert 0.8 <= measured.delta < 0.81
    assert 0.39 < measured.diameter <= 0.4 * (1 + 1e-12)


def test_small_distances_keep_their_digits(key):
    rows = mixture(3, 0, 10, key, 3, 1, delta=1e-7).x_train
    np.testing.assert_allclose([np.linalg.norm(a - b) for a, b in combinations(rows, 2)], 1e-7, rtol=1e-6)


def test_xor_is_not_linearly_separable(key):
    data = xor(400, 100, key, diameter=0.1)
    np.testing.assert_allclose(np.linalg.norm(data.x_train, axis=1), 1, rtol=1e-12)
    label = data.y_train.argmax(axis=1)
    np.testing.assert_array_equal(label, (abs(data.x_train[:, 1]) > abs(data.x_train[:, 0])).astype(int))
    for rows in (data.x_train[label == 0], data.x_train[label == 1]):
        assert rows.min() < -0.99
        assert rows.max() > 0.99
    measured = separation(data, 2)
    assert 0.09 < measured.diameter <= 0.1
    assert measured.delta >= 2 * np.sin(np.pi / 4 - np.arcsin(0.05))
    # A diameter of 1/10 exceeds 1 / (8 l), as a footnote of the paper notes.
    assert not measured.holds
    assert separation(xor(400, 100, key, diameter=0.08), 2).holds
    centers = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    assert distances(data.x_train, centers).min(axis=1).max() <= 0.05 * (1 + 1e-3)


def test_without_components_every_example_is_a_component():
    data = Dataset([[1, 0], [0.9, 0.1], [0, 1], [0, 0.9]], [1, 1, -1, -1])
    measured = separation(data)
    assert measured == Separation(delta=measured.delta, diameter=0.0, components=2)
    assert (measured.lambda_, measured.holds) == (0, True)
    assert measured.delta == pytest.approx(np.hypot(0.9, 0.8))
    same = separation(Dataset([[1, 0], [1, 0]], [1, -1]), components=1)
    assert (same.delta, same.lambda_, same.holds) == (0, np.inf, False)


def test_delta_does_not_depend_on_blocks():
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(200, 5)), np.sign(rng.normal(size=200)))
    every = distances(data.x_train, data.x_train)[data.y_train[:, None] != data.y_train[None, :]]
    assert separation(data).delta == pytest.approx(every.min(), rel=1e-12)
    for pairs in (900, 1):
        assert _class_distance(data.x_train, (data.y_train > 0).astype(int), pairs) == pytest.approx(
            every.min(), rel=1e-12
        )
    # The rows are close to each other and far from zero, where |a|^2 - 2 a.b + |b|^2 would lose all digits.
    near = Dataset([[1e4, 1e-4], [1e4, 0], [1e4, 1]], [1, -1, 1])
    assert separation(near).delta == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda n, key: mixture(20, n, 30, key), lambda n, key: xor(20, n, key)])
def test_points_depend_on_the_key_alone(make, key):
    data, again = make(5, key), make(9, key)
    np.testing.assert_array_equal(data.x_train, again.x_train)
    np.testing.assert_array_equal(data.y_train, again.y_train)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(data.x_test, make(5, key).x_test)
    assert (data.x_train != make(5, jax.random.fold_in(key, 1)).x_train).any()
    assert not np.isin(data.x_test, data.x_train).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes must be an integer >= 2"),
        ({"components": 0}, "components must be a positive integer"),
        ({"sigma": -1}, "sigma must be finite and nonnegative, got -1."),
        ({"sigma_0": 0}, "sigma_0 must be positive and finite, got 0."),
        ({"lambda_": 0.1}, "lambda_ must be None if delta is None, got 0.1."),
        (
            {"delta": 1.0, "sigma": 1.0},
            "delta must be None if sigma or sigma_0 is given, or if unit is False, got 1.0.",
        ),
        ({"delta": 1.0, "unit": False}, "delta must be None"),
        (
            {"delta": 1.5},
            "delta and lambda_ must be small enough that the centers are at most 90 degrees apart, got delta=1.5",
        ),
        ({"delta": 1.0, "lambda_": 2.5}, "delta and lambda_ must be small enough"),
        ({"n_train": 19}, "n_train must be an integer >= 20"),
        ({"delta": 1.0, "dim": 20}, "dim must be at least 21 for 20 components"),
    ],
)
def test_bad_mixtures(arguments, message, key):
    with pytest.raises(ValueError, match=re.escape(message)):
        mixture(**{"n_train": 20, "n_test": 5, "dim": 30, "key": key} | arguments)


def test_bad_xor_and_separation(key):
    with pytest.raises(ValueError, match=re.escape("diameter must be below sqrt(2)")):
        xor(10, 5, key, diameter=1.5)
    with unchecked(), pytest.raises(ValueError, match=r"data must be a lazynet\.Dataset"):
        separation(np.eye(3), 1)
    with pytest.raises(ValueError, match="data must have class labels as targets"):
        separation(Dataset(np.eye(3), [1, 2, 3]))
    with pytest.raises(ValueError, match="data must have examples from at least two classes"):
        separation(Dataset(np.eye(3), [1, 1, 1]))


def test_classes_that_are_too_large_are_not_clustered(monkeypatch):
    monkeypatch.setattr("lazynet.data._mixtures.CLUSTERED", 2)
    data = Dataset(np.eye(4), [1, 1, 1, -1])
    assert separation(data).components == 3
    with pytest.raises(ValueError, match="data must have at most 2 examples per class if components is given, got 3"):
        separation(data, components=1)
