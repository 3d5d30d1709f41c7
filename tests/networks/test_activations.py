"""Test activations, their slopes and their Lipschitz constants."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import ACTIVATIONS, SLOPE, VALUE
from tolerance import assert_close

from lazynet import networks
from lazynet.networks import value_and_slope
from lazynet.precision import float64


def on(activation, z, dtype="float64"):
    with float64():
        value, slope = value_and_slope(activation, jnp.asarray(z, dtype))
        assert value.dtype == slope.dtype == dtype
        return np.asarray(value), np.asarray(slope)


def test_the_list_is_the_one_tested():
    assert set(networks.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_slope(activation, dtype):
    z = np.linspace(-6, 6, 2001).astype(dtype)
    value, slope = on(activation, z, dtype)
    assert_close(value, VALUE[activation](z.astype(np.float64)), ulps=4)
    assert_close(slope, SLOPE[activation](z.astype(np.float64)), ulps=8)


def test_gelu_is_the_exact_form():
    """The tanh approximation of gelu has errors of up to 5e-4."""
    value, _ = on("gelu", np.array([1.0, -2.0]))
    np.testing.assert_allclose(value, [0.8413447460685429, -0.04550026389635842], rtol=1e-14)


def test_relu_has_slope_zero_at_zero():
    assert on("relu", np.zeros(1))[1] == 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lipschitz_constants_hold_and_are_tight(activation):
    z = np.concatenate([np.linspace(-40, 40, 400_001), [np.sqrt(2.0), 2.3993572805154675, 0.0]])
    steepest = np.abs(SLOPE[activation](z)).max()
    constant = networks.ACTIVATIONS[activation].lipschitz
    assert steepest <= constant * (1 + 1e-15)
    assert steepest >= constant * (1 - 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_which_are_homogeneous(activation):
    z = np.linspace(-3, 3, 13)
    homogeneous = np.allclose(VALUE[activation](2.5 * z), 2.5 * VALUE[activation](z), rtol=1e-14)
    assert homogeneous == networks.ACTIVATIONS[activation].homogeneous
