"""Arrays that were first converted to float32 stay exact in float64, although JAX caches the float32 copy."""

import jax
import jax.numpy as jnp
import numpy as np

import lazynet as lz
from lazynet.arrays import with_floats_as
from lazynet.precision import float64

C = np.random.default_rng(0).normal(size=(8, 3))
KEY = jax.random.key(0)


def test_a_tree_is_converted_exactly_in_either_context():
    c = C.copy()
    jax.jit(lambda k: jnp.asarray(c) + k)(jnp.float32(1))
    with float64():
        tree = with_floats_as("float64", {"c": c, "n": 3, "mask": c > 0})
    np.testing.assert_array_equal(tree["c"], c)
    assert np.issubdtype(tree["n"].dtype, np.integer)
    assert tree["mask"].dtype == bool
    assert with_floats_as("float32", {"c": c})["c"].dtype == np.float32


def test_networks_whose_variables_are_arrays_start_there_exactly():
    x = np.random.default_rng(1).normal(size=(4, 3))
    apply = lambda params, x: x @ params["w"].T @ jnp.ones((8,), x.dtype)  # noqa: E731
    own = lz.from_functions(lambda key, x, width: {"w": C}, apply)
    for network in (own, lz.with_start(own, lambda key, width: {"params": {"w": C}})):
        jax.jit(network.init)(KEY, jnp.asarray(x, jnp.float32))
        with float64():
            made = jax.jit(lambda key, x, network=network: network.init(key, x))(KEY, jnp.asarray(x))
            np.testing.assert_array_equal(made["params"]["w"], C)
