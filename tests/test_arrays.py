"""Every public function that takes an array refuses arrays that do not consist of real numbers."""

import datetime
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import xarray as xr
from unchecked import unchecked

import lazynet as lz
from lazynet.arrays import float64_array, real_array

X, Y = np.eye(4), np.array([1.0, -1.0, 1.0, -1.0])
WRONG = {
    "masked": (np.ma.array(np.eye(4), mask=np.eye(4) > 0), "got a masked array"),
    "complex": (np.eye(4) + 1j, "got an array of complex128"),
    "dates": (np.full((4, 4), np.datetime64("2020-01-01")), "got an array of datetime64[D]"),
    "times": (np.full((4, 4), np.timedelta64(1, "D")), "got an array of timedelta64[D]"),
    "text": ([["1.0"] * 4] * 4, "got an array of <U3"),
    "booleans": (np.eye(4) > 0, "got an array of bool"),
    "objects": (np.array([[None] * 4] * 4), "got an array of object"),
    "ragged": ([[1.0], [1.0, 2.0]], "got list (setting an array element"),
    "Python dates": ([[datetime.date(2020, 1, 1)] * 4] * 4, "got an array of object"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_arrays_that_are_not_real_numbers_are_refused(kind):
    value, message = WRONG[kind]
    with pytest.raises(ValueError, match=r"^rows must be an array of real numbers, " + re.escape(message)):
        real_array("rows", value)


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        np.arange(4, dtype=np.uint8),
        np.arange(4, dtype=ml_dtypes.bfloat16),
        jnp.arange(4.0),
        xr.DataArray(np.arange(3.0)),
        np.float16(2.5),
        3,
    ],
    ids=str,
)
def test_real_numbers_are_kept(value):
    kept = real_array("rows", value)
    np.testing.assert_array_equal(kept, np.asarray(value))
    assert kept.dtype == np.asarray(value).dtype
    assert float64_array("rows", value).dtype == np.float64


NETWORK = lz.TwoLayer(width=8)
CALLS = {
    "data": lambda wrong: lz.Dataset(wrong, Y),
    "targets": lambda wrong: lz.Dataset(X, wrong),
    "kernel of a descent": lambda wrong: lz.kernel_descent(wrong, Y, learning_rate=0.1, steps=1),
    "targets of a descent": lambda wrong: lz.kernel_descent(X, wrong, learning_rate=0.1, steps=1),
    "test kernel": lambda wrong: lz.kernel_descent(X, Y, learning_rate=0.1, steps=1, k_test=wrong),
    "kernel of a flow": lambda wrong: lz.kernel_flow(wrong, Y, times=[1.0]),
    "kernel of an ensemble": lambda wrong: lz.kernel_ensemble(wrong, Y, times=[1.0], start_covariance=X),
    "start covariance": lambda wrong: lz.kernel_ensemble(X, Y, times=[1.0], start_covariance=wrong),
    "analytic kernel": lambda wrong: lz.analytic_kernel(NETWORK)(wrong),
    "Monte Carlo kernel": lambda wrong: lz.monte_carlo_kernel(NETWORK, wrong, starts=2),
    "empirical kernel": lambda wrong: lz.empirical_ntk(NETWORK, NETWORK.init(jax.random.key(0), jnp.eye(4)), wrong),
    "spectrum": lz.kernels.spectrum,
}


@pytest.mark.parametrize("kind", ["masked", "complex", "dates", "text", "booleans"])
@pytest.mark.parametrize("call", CALLS)
def test_every_function_refuses_them(call, kind):
    with unchecked(), pytest.raises(ValueError, match=r"must be an array of real numbers, got a"):
        CALLS[call](WRONG[kind][0])
