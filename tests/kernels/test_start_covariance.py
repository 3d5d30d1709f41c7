"""Test the covariance of initial outputs against samples of initialized networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.kernels import start_covariance
from lazynet.networks import Centered

X = np.random.default_rng(0).normal(size=(3, 6))
WIDTH, STARTS, OUTPUTS = 128, 250, 16


def stax(width):
    from peer import neural_tangents

    layers = neural_tangents().stax
    return layers.serial(layers.Dense(width, b_std=0.2), layers.Relu(), layers.Dense(OUTPUTS))


NETWORKS = {
    "two layers": lz.TwoLayer(WIDTH, symmetric=False, output_scale=1.5, init_scale=0.7),
    "a Gaussian readout": lz.TwoLayer(WIDTH, symmetric=False, readout="gaussian", activation="tanh"),
    "three layers": lz.MLP(WIDTH, 2, init_scale=1.2, bias_scale=0.4, train_bias=True),
    "standard": lz.MLP(WIDTH, 2, parametrization="standard"),
    "allen-zhu": lz.ThreeLayer(WIDTH),
    "mean field": lz.MLP(WIDTH, 1, parametrization="mean-field"),
    "stax": lz.from_stax(stax, width=WIDTH, output_scale=1.5),
    "a convolution": lz.ConvNet(WIDTH, filter_size=3, symmetric=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_covariance_of_samples(name):
    network, x = NETWORKS[name], jnp.asarray(X, "float32")
    keys = jax.random.split(jax.random.key(0), STARTS)
    # The outputs of one network of width m are initially uncorrelated samples, up to terms of order 1 / m.
    several = network.clone(outputs=OUTPUTS)
    f = jax.jit(lambda keys: jax.lax.map(lambda key: several.apply(several.init(key, x), x).T, keys))(keys)
    f = np.asarray(f, np.float64).reshape(-1, len(X))
    expected = start_covariance(network)(X)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(f))
    # At a finite width m, the covariance has additional terms of order 1 / m.
    assert (np.abs(f.T @ f / len(f) - expected) < 4 * error + 5 / WIDTH * np.abs(expected).max()).all()
    assert np.linalg.eigvalsh(expected)[0] > -1e-12


def test_covariance_is_zero_for_a_zero_start_and_none_without_an_analytic_kernel():
    for network in (lz.TwoLayer(8), Centered(lz.MLP(8))):
        np.testing.assert_array_equal(start_covariance(network)(X), np.zeros((3, 3)))
    own = lz.from_functions(lambda key, x, width: jnp.ones((x.shape[1],)), lambda params, x: x @ params)
    assert start_covariance(own) is None
