"""Examples and targets that `load_dataset` returns, and its errors."""

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from unchecked import unchecked

from lazynet.data import load_dataset

EVEN, ODD = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)
IMAGES, LABELS = load_digits(return_X_y=True)


def real(name):
    """Return the folder of a real data set, or skip the test."""
    if "LAZYNET_DATA" not in os.environ:
        pytest.skip("needs real data: LAZYNET_DATA is not set")
    folder = Path(os.environ["LAZYNET_DATA"]) / name
    if not folder.is_dir():
        pytest.skip(f"needs real data: the folder of LAZYNET_DATA has no {name}")
    return folder


def unpacked(path):
    with gzip.open(path) as file:
        return file.read()


def unit(x):
    x = x.astype(float)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_digits_are_the_first_in_file_order_and_test_rows_come_after():
    data = load_dataset("digits", classes=(3, 1), n_train=50, n_test=20)
    rows = [row for row, label in enumerate(LABELS) if label in (1, 3)][:70]
    np.testing.assert_allclose(data.x_train, unit(IMAGES[rows[:50]]), rtol=1e-14)
    np.testing.assert_allclose(data.x_test, unit(IMAGES[rows[50:]]), rtol=1e-14)
    signs = [1 if LABELS[row] == 3 else -1 for row in rows]
    np.testing.assert_array_equal(data.y_train, signs[:50])
    np.testing.assert_array_equal(data.y_test, signs[50:])
    assert data.name == "digits"
    assert data.x_train.dtype == data.y_train.dtype == np.float64


def test_a_data_set_that_is_changed_leaves_the_next_as_it_is():
    first = load_dataset("digits", classes=(0, 1), n_train=20)
    before = first.x_train.copy(), first.y_train.copy()
    for array in (first.x_train, first.y_train):
        array.setflags(write=True)
        array[:] = 7
    again = load_dataset("digits", classes=(0, 1), n_train=20)
    assert (again.x_train == before[0]).all()
    assert (again.y_train == before[1]).all()


def test_digits_by_default_are_split_after_80_percent():
    count = int(np.isin(LABELS, (0, 1)).sum())
    data = load_dataset("digits")
    assert (data.n_train, data.n_test) == (count * 8 // 10, count - count * 8 // 10)
    assert load_dataset("digits", n_train=count).n_test == 0
    assert load_dataset("digits", n_train=10).n_test == count - 10
    assert load_dataset("digits", n_train=10, n_test=0).x_test.shape == (0, 64)


def test_more_classes_are_one_hot_minus_one_over_k():
    data = load_dataset("digits", classes=(7, 2, 5), n_train=30, n_test=5)
    labels = [label for label in LABELS if label in (7, 2, 5)][:30]
    expected = np.full((30, 3), -1 / 3)
    for row, label in enumerate(labels):
        expected[row, (7, 2, 5).index(label)] = 2 / 3
    np.testing.assert_allclose(data.y_train, expected, rtol=1e-15)
    assert data.outputs == 3
    assert load_dataset("digits", classes=range(10), n_train=30).y_train.shape == (30, 10)


@pytest.mark.parametrize("classes", [("even", "odd"), (EVEN, ODD), "even odd", ("0,2,4,6,8", "odd")])
def test_groups_are_classes(classes):
    data = load_dataset("digits", classes=classes, n_train=300)
    np.testing.assert_array_equal(data.y_train, np.where(LABELS[:300] % 2 == 0, 1, -1))
    np.testing.assert_allclose(data.x_train, unit(IMAGES[:300]), rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="imagenet"), "name must be 'digits', 'mnist', 'fashion-mnist' or 'cifar10', got 'imagenet'"),
        (dict(classes=(0, 10)), "classes must be labels"),
        (dict(classes=(0, 0)), "classes must not repeat a label"),
        (dict(classes=(0,)), "classes must name at least two classes"),
        (dict(n_train=0), "n_train must be a positive integer, got 0."),
        (dict(n_train=10.0), "n_train must be a positive integer"),
        (dict(n_train=True), "n_train must be a positive integer"),
        (dict(n_test=-1), "n_test must be an integer >= 0"),
        (dict(n_test="5"), "n_test must be an integer"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(arguments, message, bare_machine):
    with unchecked(), pytest.raises(ValueError, match=re.escape(message)):
        load_dataset(**{"name": "mnist", "root": bare_machine / "nothing", **arguments})


def test_more_examples_than_available(tiny, tmp_path):
    tiny.save(tmp_path)
    for images in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / images).write_bytes(b"arguments are checked before images are read")
    message = "{} must be at most {} for these classes in the {} files of mnist, got {}"
    with pytest.raises(ValueError, match=message.format("n_train", 8, "training", 9)):
        load_dataset("mnist", n_train=9, root=tmp_path)
    with pytest.raises(ValueError, match=message.format("n_test", 4, "test", 5)):
        load_dataset("mnist", n_train=8, n_test=5, root=tmp_path)


def test_more_digits_than_available():
    count = int(np.isin(LABELS, (0, 1)).sum())
    with pytest.raises(ValueError, match=f"n_train must be at most {count} .* in digits, got {count + 1}"):
        load_dataset("digits", n_train=count + 1)
    with pytest.raises(
        ValueError, match=f"n_test must be at most {count - 100} .* that follows the training examples, got 400"
    ):
        load_dataset("digits", n_train=100, n_test=400)


def test_a_class_without_examples(tiny, tmp_path):
    tiny.y_train[tiny.y_train == 6] = 5
    tiny.save(tmp_path)
    message = r"classes must be labels that occur in mnist \(0, 1, 2, 3, 4, 5, 7, 8, 9\), got 6"
    for classes in ((6, 1), ("even", "odd")):
        with pytest.raises(ValueError, match=message):
            load_dataset("mnist", classes, root=tmp_path)
    assert load_dataset("mnist", (0, 1), root=tmp_path).n_train == 8


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_idx_files_against_an_independent_read(name):
    folder = real(name)
    data = load_dataset(name, classes=(0, 1), n_train=1000, n_test=300)
    for part, x, y in (("train", data.x_train, data.y_train), ("t10k", data.x_test, data.y_test)):
        labels = np.frombuffer(unpacked(folder / f"{part}-labels-idx1-ubyte.gz"), np.uint8, offset=8)
        pixels = np.frombuffer(unpacked(folder / f"{part}-images-idx3-ubyte.gz"), np.uint8, offset=16)
        rows = [row for row in range(len(labels)) if labels[row] < 2][: len(x)]
        np.testing.assert_allclose(x, unit(pixels.reshape(-1, 784)[rows]), rtol=1e-14)
        np.testing.assert_array_equal(y, 1 - 2.0 * labels[rows])


def test_real_mnist_in_full():
    real("mnist")
    data = load_dataset("mnist", classes=("even", "odd"), n_train=100)
    assert (data.n_train, data.n_test) == (100, 10_000)
    np.testing.assert_array_equal(data.y_train[:5], [-1, 1, 1, -1, -1])  # digits 5 0 4 1 9
    np.testing.assert_array_equal(data.y_test[:5], [-1, 1, -1, 1, 1])  # digits 7 2 1 0 4
    with pytest.raises(ValueError, match=r"n_train must be at most 12665 .* got 12666"):
        load_dataset("mnist", n_train=12_666)


@pytest.mark.slow
def test_real_cifar10_against_an_independent_read():
    folder = real("cifar10")
    data = load_dataset("cifar10", classes=(3, 5), n_train=200, n_test=50)
    content = np.frombuffer(unpacked(folder / "test.bin.gz"), np.uint8).reshape(-1, 3073)
    rows = content[np.isin(content[:, 0], (3, 5))][:50]
    np.testing.assert_allclose(data.x_test, unit(rows[:, 1:]), rtol=1e-14)
    np.testing.assert_array_equal(data.y_test, np.where(rows[:, 0] == 3, 1, -1))
    assert data.x_train.shape == (200, 3072)
