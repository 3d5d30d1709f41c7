"""Sweeps: time of lazynet against loops written as the documents of optax and neural-tangents write them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import lazynet as lz
from lazynet.kernels import neural_tangents
from lazynet.training.keys import member_key, start_key


class Problem(NamedTuple):
    """What all contenders do: full-batch descent of 1/2 sum (f - y)^2 from the same starts, at one learning rate."""

    data: lz.Dataset
    seeds: int
    steps: int
    learning_rate: float

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """Training inputs (n, d), targets (n,) and test inputs, float32."""
        return tuple(jnp.asarray(a, "float32") for a in (self.data.x_train, self.data.y_train, self.data.x_test))


def problem(n: int, d: int, n_test: int, seeds: int, steps: int) -> Problem:
    """Random unit rows with random labels; a step of 1 / lambda_max."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n + n_test, d))
    x, y = rows / np.linalg.norm(rows, axis=1, keepdims=True), rng.choice([-1.0, 1.0], n + n_test)
    data = lz.Dataset(x[:n], y[:n], x[n:], y[n:], name="random")
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    return Problem(data, seeds, steps, 1 / float(np.linalg.eigvalsh(kernel(data.x_train))[-1]))


def starts(given: Problem, network: lz.TwoLayer) -> list[dict[str, Any]]:
    """The members' variables at the start."""
    x = given.arrays[0]
    return [dict(network.init(start_key(member_key(network.width, seed)), x)) for seed in range(given.seeds)]


class Loop(NamedTuple):
    """The training loop of optax's "Getting started": a jitted step, called from Python."""

    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[Any, Any, Array]]


def optax_loop(network: lz.TwoLayer, learning_rate: float) -> Loop:
    """A loop for the trained parameters of any member."""
    optimizer = optax.sgd(learning_rate)

    def compute_loss(params: Any, fixed: Any, x: Array, y: Array) -> Array:
        return jnp.sum(optax.l2_loss(outputs(network, params, fixed, x), y))

    @jax.jit
    def step(params: Any, opt_state: Any, fixed: Any, x: Array, y: Array) -> tuple[Any, Any, Array]:
        loss, grads = jax.value_and_grad(compute_loss)(params, fixed, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return Loop(optimizer, step)


def outputs(network: lz.TwoLayer, params: Any, fixed: Any, x: Array) -> Any:
    """The network's outputs (n,) from what is trained and what is not."""
    return network.apply({"params": params, "fixed": fixed}, x)


def training_peer(given: Problem, network: lz.TwoLayer) -> Callable[[], list[Any]]:
    """(a): every member trained by a plain Python loop over jitted steps; the trained parameters."""
    x, y, _ = given.arrays
    members, loop = starts(given, network), optax_loop(network, given.learning_rate)

    def call() -> list[Any]:
        trained = []
        for member in members:
            params = member["params"]
            opt_state = loop.optimizer.init(params)
            for _ in range(given.steps):
                params, opt_state, _ = loop.step(params, opt_state, member["fixed"], x, y)
            trained.append(params)
        return trained

    return call


def experiment_peer(given: Problem, network: lz.TwoLayer, snapshots: np.ndarray) -> Callable[[], list[Any]]:
    """(b): every member trained beside its kernels, as the documents of neural-tangents and optax write it.

    At each snapshot: predictions, and the drift of the empirical kernel. Beside it: `gradient_descent_mse` with the
    member's own kernel at the start, and with that of infinite width, which is given.
    """
    nt = neural_tangents()
    x, y, x_test = given.arrays
    members, loop = starts(given, network), optax_loop(network, given.learning_rate)
    kernel: Any = lz.analytic_kernel(network)
    rows, test_rows = given.data.x_train, given.data.x_test
    limit = [jnp.asarray(k, "float32") for k in (kernel(rows), kernel(test_rows, rows))]
    # Its loss is the mean over examples, ours the sum.
    times = jnp.asarray(snapshots * y.size, "float32")

    @jax.jit
    def apply(params: Any, fixed: Any, x: Array) -> Array:
        return outputs(network, params, fixed, x)[:, None]

    @jax.jit
    def ntk(params: Any, fixed: Any, x1: Array, x2: Array | None) -> Any:
        return nt.empirical_ntk_fn(lambda params, x: apply(params, fixed, x))(x1, x2, params)

    def predictions(k_train: Array, k_test: Array, f_train: Array, f_test: Array) -> Any:
        predict = nt.predict.gradient_descent_mse(k_train, y[:, None], learning_rate=given.learning_rate)
        return predict(times, f_train, f_test, k_test)

    def one(member: dict[str, Any]) -> dict[str, Any]:
        params, fixed = member["params"], member["fixed"]
        opt_state = loop.optimizer.init(params)
        f_train, f_test = apply(params, fixed, x), apply(params, fixed, x_test)
        k_0 = ntk(params, fixed, x, None)
        found: dict[str, Any] = {
            "linearised": predictions(k_0, ntk(params, fixed, x_test, x), f_train, f_test),
            "limit": predictions(*limit, f_train, f_test),
        }
        drift, path = [], []
        for t in range(snapshots[-1] + 1):
            if t in snapshots:
                drift.append(jnp.linalg.norm(ntk(params, fixed, x, None) - k_0) / jnp.linalg.norm(k_0))
                path.append((apply(params, fixed, x), apply(params, fixed, x_test)))
            params, opt_state, _ = loop.step(params, opt_state, fixed, x, y)
        return {**found, "drift": drift, "path": path}

    return lambda: [one(member) for member in members]
