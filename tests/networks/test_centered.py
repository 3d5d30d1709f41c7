"""Test networks minus their initial outputs: they start at zero and have the kernel of the original network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.networks import Centered, traits

X = jax.random.normal(jax.random.key(1), (6, 4))
OWN = lz.from_functions(
    lambda key, x, width: {"w": jax.random.normal(key, (width, x.shape[1]))},
    lambda params, x: jnp.sum(jnp.tanh(x @ params["w"].T), axis=1) / len(params["w"]) ** 0.5,
    width=8,
)


@pytest.mark.parametrize(
    "network", [lz.TwoLayer(8, symmetric=False, outputs=2), lz.MLP(8, 2), lz.ConvNet(8, filter_size=2), OWN]
)
def test_it_starts_at_zero_and_moves_as_the_network_does(network):
    centered = Centered(network)
    variables = jax.jit(centered.init)(jax.random.key(0), X)
    start = jax.jit(network.init)(jax.random.key(0), X)
    assert traits(centered).starts_at_zero
    outputs, difference = jax.jit(network.apply), jax.jit(centered.apply)
    np.testing.assert_array_equal(difference(variables, X), 0 * np.asarray(outputs(start, X)))
    moved = {**variables, "params": jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), variables["params"])}
    own = {name: value for name, value in moved.items() if name != "origin"}
    expected = np.asarray(outputs(own, X)) - np.asarray(outputs(start, X))
    np.testing.assert_allclose(difference(moved, X), expected, atol=1e-6)
    np.testing.assert_allclose(
        lz.empirical_ntk(centered, variables, X), lz.empirical_ntk(network, start, X), rtol=1e-5, atol=1e-6
    )
    wider = centered.clone(width=16, output_scale=2.0)
    assert (wider.width, wider.outputs, wider.network) == (16, network.outputs, network.clone(width=16, output_scale=2))
    assert traits(centered).name == traits(network).name
    now, before = traits(centered).preactivations, traits(network).preactivations
    assert (now is None) == (before is None)
    if now is not None:
        np.testing.assert_array_equal(now(moved, X)[0], before(own, X)[0])


def test_its_kernel_of_infinite_width_is_that_of_the_network():
    network = lz.MLP(8, 2)
    np.testing.assert_array_equal(lz.analytic_kernel(Centered(network))(X), lz.analytic_kernel(network)(X))
    assert lz.analytic_kernel(Centered(OWN)) is None
