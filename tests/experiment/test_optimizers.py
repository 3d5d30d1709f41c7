"""Settings of `lz.Optimizer` in training, compared step by step with direct calls of optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lazynet as lz
from lazynet.precision import float64

DATA = lz.load_dataset("digits", n_train=12, n_test=4)
NETWORK = lz.TwoLayer(width=8, train="both", activation="tanh", symmetric=False)
RATE, STEPS = 0.02, 12


def halving(step):
    """Return a factor of the learning rate that halves every four steps."""
    return 0.5 ** (step // 4).astype("float64")


def scheduled(step):
    return RATE * halving(step)


OPTIMIZERS = {
    "decayed": (lz.Optimizer(weight_decay=0.3), optax.chain(optax.add_decayed_weights(0.3), optax.sgd(RATE))),
    "scheduled": (lz.Optimizer(schedule=halving), optax.sgd(scheduled)),
    "decayed momentum on a schedule": (
        lz.Optimizer(momentum=0.8, nesterov=True, weight_decay=0.3, schedule=halving),
        optax.chain(optax.add_decayed_weights(0.3), optax.sgd(scheduled, momentum=0.8, nesterov=True)),
    ),
    "adam": (
        lz.Optimizer("adam", weight_decay=0.3, schedule=halving),
        optax.chain(optax.add_decayed_weights(0.3), optax.adam(scheduled)),
    ),
    "adamw": (lz.Optimizer("adamw", weight_decay=0.3), optax.adamw(RATE, weight_decay=0.3)),
    "adamw by default": (lz.Optimizer("adamw"), optax.adamw(RATE)),
    "lion": (lz.Optimizer("lion", weight_decay=0.0, schedule=halving), optax.lion(scheduled, weight_decay=0.0)),
}


def weights(network, variables, variables_0, data):
    return jnp.concatenate([variables["params"][name].reshape(-1) for name in ("hidden", "readout")])


FAST = ("decayed momentum on a schedule", "adamw")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_settings_are_those_of_optax_step_for_step(name, key):
    optimizer, chain = OPTIMIZERS[name]
    # Optax relies on the implicit promotion of dtypes.
    with jax.numpy_dtype_promotion("standard"):
        run = lz.train(
            *(NETWORK, DATA, key, STEPS),
            learning_rate=RATE,
            optimizer=optimizer,
            snapshots=range(STEPS + 1),
            measure=lz.Measure(kernel_drift=False, own={"weights": weights}),
            dtype="float64",
        )
    with float64(), jax.numpy_dtype_promotion("standard"):
        x, y = jnp.asarray(DATA.x_train), jnp.asarray(DATA.y_train)
        variables = jax.tree.map(jnp.asarray, run.variables_0)
        gradient = jax.grad(lambda p: 0.5 * jnp.sum((NETWORK.apply({**variables, "params": p}, x) - y) ** 2))
        params = variables["params"]
        state, expected = chain.init(params), []

        @jax.jit
        def step(params, state):
            update, state = chain.update(gradient(params), state, params)
            return optax.apply_updates(params, update), state, weights(NETWORK, {"params": params}, None, None)

        for _ in range(STEPS + 1):
            params, state, before = step(params, state)
            expected.append(before)
    assert "kernel_drift" not in run.snapshots
    np.testing.assert_allclose(run.snapshots.weights, np.stack(expected), rtol=1e-10, atol=1e-12)
