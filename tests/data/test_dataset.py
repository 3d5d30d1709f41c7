import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from unchecked import unchecked

from lazynet.data import Dataset, unit_rows

X, Y = np.arange(1.0, 13.0).reshape(4, 3), np.array([1.0, -1.0, 1.0, -1.0])


def test_arrays_are_converted_but_not_rescaled():
    data = Dataset(X.tolist(), jnp.asarray([1, -1, 1, -1]), X[:2].astype(np.float32), [1, -1])
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        assert type(array) is np.ndarray
        assert array.dtype == np.float64
    np.testing.assert_array_equal(data.x_train, X)
    np.testing.assert_array_equal(data.y_test, [1, -1])
    assert (data.n_train, data.n_test, data.dim, data.outputs, data.name) == (4, 2, 3, 1, "custom")


def test_outputs_is_the_number_of_columns():
    assert Dataset(X, np.ones((4, 5))).outputs == 5


@pytest.mark.parametrize(("y", "empty"), [(Y, (0,)), (np.ones((4, 2)), (0, 2))])
def test_no_test_rows(y, empty):
    data = Dataset(X, y)
    assert data.n_test == 0
    assert data.x_test.shape == (0, 3)
    assert data.y_test.shape == empty
    assert Dataset(X, y, np.zeros((0, 3)), np.zeros(empty)).n_test == 0


def test_is_frozen_and_equal_only_to_itself():
    data = Dataset(X, Y)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert data == data
    assert data != Dataset(X, Y)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x_train=X[0]), "x_train must be an array of shape (n, d), got shape (3,)."),
        (dict(x_train=[[1, 2], [3]]), "x_train must be an array of real numbers, got list (setting an array"),
        (dict(x_train=X + 1j), "got an array of complex128."),
        (dict(x_train=[["a", "b"]]), "got an array of <U"),
        (dict(x_train=changed(X, (2, 1), np.nan)), "x_train must be finite, got NaN or infinity at index (2, 1)."),
        (dict(y_train=changed(Y, 3, np.inf)), "y_train must be finite"),
        (dict(x_train=X[:0], y_train=Y[:0]), "x_train must have at least one row"),
        (dict(y_train=Y[:3]), "y_train must have one target for each of the 4 inputs, got 3 targets."),
        (dict(y_train=Y[:, None]), "y_train must be an array of shape (n,) or (n, k) with k >= 2, got shape (4, 1)."),
        (dict(y_train=np.ones((4, 2, 2))), "got shape (4, 2, 2)"),
        (dict(y_train=1.0), "got shape ()"),
        (dict(x_test=X), "y_test must be given together with x_test, got None."),
        (dict(y_test=Y), "x_test must be given together"),
        (dict(x_test=X[:, :2], y_test=Y), "x_test must have 3 columns to match x_train, got 2."),
        (
            dict(x_test=X, y_test=np.ones((4, 2))),
            "y_test must have as many outputs as y_train (shape (4,)), got shape (4, 2).",
        ),
        (dict(x_test=X, y_test=Y[:1]), "y_test must have one target for each"),
        (dict(x_test=changed(X, 1, np.nan), y_test=Y), "x_test must be finite"),
    ],
)
def test_bad_arrays(arguments, message):
    with unchecked(), pytest.raises(ValueError, match=re.escape(message)):
        Dataset(**{"x_train": X, "y_train": Y, **arguments})


def test_integers_stay_integers_if_all_inputs_are_integers_that_fit():
    ids = np.arange(6, dtype=np.uint8).reshape(3, 2)
    data = Dataset(ids, [1, -1, 1], ids[:1].tolist(), [1])
    assert data.x_train.dtype == data.x_test.dtype == np.int32
    np.testing.assert_array_equal(data.x_train, ids)
    assert Dataset(ids, [1, -1, 1]).x_test.dtype == np.int32
    mixed = Dataset(ids, [1, -1, 1], ids[:1] + 0.5, [1])
    assert mixed.x_train.dtype == mixed.x_test.dtype == np.float64
    large = Dataset(ids.astype(np.int64) + 2**31, [1, -1, 1])
    assert large.x_train.dtype == np.float64
    assert large.x_train[2, 1] == 2**31 + 5


def test_unit_rows_has_unit_norm_and_keeps_the_direction():
    x = np.random.default_rng(0).normal(size=(50, 7)) * 100
    rows = unit_rows(x)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(rows, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-14)


def test_unit_rows_of_bytes_does_not_overflow():
    np.testing.assert_allclose(unit_rows(np.full((1, 4), 255, np.uint8)), 0.5, rtol=1e-15)


def test_unit_rows_of_extreme_rows():
    x = [[3e-320, 4e-320], [3e300, -4e300], [-3e-200, 4e-200]]
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0.6, -0.8], [-0.6, 0.8]], rtol=1e-3)


def test_unit_rows_leaves_its_argument_alone():
    x = X.copy()
    unit_rows(x)
    np.testing.assert_array_equal(x, X)
    assert unit_rows(np.zeros((0, 3))).shape == (0, 3)


def test_unit_rows_names_a_zero_row():
    with pytest.raises(ValueError, match="points must have no zero rows"):
        unit_rows([[1, 2], [0, 0]], "points")


def test_a_span_keeps_inner_products():
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(4, 50)), [1, -1, 1, -1], rng.normal(size=(3, 50)), [1, 1, -1], name="mine")
    spanned = data.in_span()
    assert (spanned.dim, spanned.name, spanned.n_train, spanned.n_test) == (7, "mine", 4, 3)
    for part, other in ((data.x_train, spanned.x_train), (data.x_test, spanned.x_test)):
        np.testing.assert_allclose(other @ spanned.x_train.T, part @ data.x_train.T, atol=1e-12)
    np.testing.assert_array_equal(spanned.y_test, data.y_test)
    # Two parallel rows span one dimension.
    assert Dataset([[1.0, 2.0], [2.0, 4.0]], [1, -1]).in_span().dim == 1
