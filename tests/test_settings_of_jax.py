"""Public functions give the same numbers under strict settings of JAX and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz

X = np.random.default_rng(0).normal(size=(6, 4))
DATA = lz.Dataset(X, np.sign(X[:, 0]))
NETWORK = lz.TwoLayer(8, train="both")
KEY = jax.random.key(0)
VARIABLES = NETWORK.init(KEY, jnp.asarray(X, jnp.float32))
SETTINGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "errstate": lambda: np.errstate(all="raise"),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
}


def numbers():
    kernel = lz.analytic_kernel(NETWORK)(X)
    return {
        "analytic": kernel,
        "empirical": lz.empirical_ntk(NETWORK, VARIABLES, X),
        "descent": lz.kernel_descent(kernel, DATA.y_train, learning_rate=0.1, steps=3).train,
        "complexity": lz.complexity(kernel, DATA.y_train),
        "monte carlo": lz.monte_carlo_kernel(NETWORK, X, starts=2).kernel,
        "distance": lz.measures.kernel_distance(kernel, np.eye(6)),
        "training": lz.train(NETWORK, DATA, KEY, 3).snapshots.train_loss.values,
    }


@pytest.mark.slow
def test_numbers_are_the_same():
    right = numbers()
    for name, setting in SETTINGS.items():
        with setting():
            found = numbers()
        for quantity, value in right.items():
            np.testing.assert_array_equal(found[quantity], value, err_msg=f"{quantity} under {name}")


@pytest.mark.whole
def test_numbers_are_close_without_compilation():
    """Without jit, operations are not fused, so results may differ by rounding errors of their dtypes."""
    right = numbers()
    with jax.disable_jit():
        found = numbers()
    for quantity, value in right.items():
        rtol = 1e-5 if quantity in ("empirical", "monte carlo", "training") else 1e-12
        np.testing.assert_allclose(found[quantity], value, rtol=rtol, atol=rtol, err_msg=quantity)
