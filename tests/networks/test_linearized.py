"""The linearised network against its Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import ACTIVATIONS, TRAINED
from tolerance import assert_close

from lazynet.networks import Linearized, TwoLayer
from lazynet.precision import float64


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("train", TRAINED)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_apply_is_the_first_order_taylor_sum(activation, train, outputs, key):
    network = TwoLayer(width=10, outputs=outputs, activation=activation, train=train, symmetric=False)
    rng = np.random.default_rng(0)
    with float64():
        x = jnp.asarray(rng.normal(size=(6, 4)))
        variables = dict(network.init(key, x))
        move = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), variables["params"])
        f0 = network.apply(variables, x)
        jacobian = jax.jacrev(lambda params: network.apply({**variables, "params": params}, x))(variables["params"])
        expected = np.asarray(f0) + sum(
            np.tensordot(np.asarray(jacobian[name]), np.asarray(move[name]), 2) for name in move
        )
        linear = Linearized(network)
        at = linear.at(variables)
        assert_close(linear.apply(at, x), f0, ulps=0)
        moved = {**at, "params": jax.tree.map(jnp.add, at["params"], move)}
        found = np.asarray(linear.apply(moved, x))
        assert found.shape == f0.shape
        assert_close(found, expected)
        # The movement is so large that the network itself is elsewhere, unless it is linear in what is trained.
        far = np.abs(np.asarray(network.apply({**variables, "params": moved["params"]}, x)) - expected).max()
    assert (far > 1e-3) == (train != "readout")


def test_the_collection_that_is_fixed_is_kept(key):
    network = TwoLayer(width=4, train="hidden")
    variables = dict(network.init(key, jnp.ones((2, 3))))
    at = Linearized(network).at(variables)
    assert set(at) == {"params", "fixed", "origin"}
    assert set(at["origin"]) == {"hidden"}
