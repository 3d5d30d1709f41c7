"""Gradient flow for any loss, solved with diffrax for the coefficients c in the predictions f0 + K c."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.dynamics._coefficients import CALL, DenseKernel
from lazynet.losses import Loss
from lazynet.precision import host_float64
from lazynet.programs import compiled

STEPS = 100_000  # maximum number of integration steps per solution
# Error tolerance per step, relative to the change in the predictions: its value for the first solution, the factor by
# which it changes from one solution to the next, and its smallest value.
COARSEST, FINER, FINEST = 1e-3, 1 / 10, 1e-14
STAGES = 6  # number of products with K per step
CALL_STEPS = 4096  # maximum number of steps per call to the compiled program


class Solution(NamedTuple):
    """Numerical solution of the gradient-flow equation.

    Attributes:
        moved: Change in the predictions, u - f0, at each time, shape (s, n, ...).
        coefficients: Coefficients c at each time, shape (s, n, ...).
        steps: Number of integration steps.
    """

    moved: np.ndarray
    coefficients: np.ndarray
    steps: int


def flow_coefficients(
    k: DenseKernel,
    y: np.ndarray,
    f0: np.ndarray,
    loss: Loss,
    times: np.ndarray,
    tolerance: float,
    ridge: float,
    progress: Callable[[int, float], None] | None,
) -> tuple[Float[np.ndarray, "s ..."], float]:
    """Return the coefficients of dc/dt = -grad L(f0 + K c) - ridge c at the given times, and the prediction error.

    The equation is solved repeatedly with an explicit fifth-order method (Tsitouras 2011), each time with a smaller
    error tolerance per step. The number of steps grows with the final time, with lambda_max and with the curvature of
    the loss. For the logistic and softmax losses, the curvature on an example becomes small once the example is fitted.

    Returns:
        Coefficients, shape (s, n) or (s, n, outputs), and an estimate of the error in u relative to the largest norm of
        the change u - f0. The estimate is the larger of the error tolerance per step and the largest difference from a
        solution with ten times the error tolerance per step. This difference overestimates the error.

    Raises:
        ValueError: If even the least accurate solution takes too many steps or cannot be computed.
    """
    stops, inverse = np.unique(times, return_inverse=True)
    last, done, error = float(stops[-1]), 0, np.inf

    def report(steps: int) -> None:
        if progress is not None:
            progress(STAGES * (done + steps), error)

    with host_float64(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        arrays = jnp.asarray(k.matrix), jnp.asarray(y), jnp.asarray(f0)
        velocity = np.asarray(_initial_velocity(loss, *arrays))
        if not velocity.any() or not last:
            return np.zeros((len(times), *y.shape)), 0.0
        scale, accuracy, previous = _root_mean_square(last * velocity[None]), COARSEST, None
        if (y != f0).any():
            scale = min(scale, _root_mean_square((y - f0)[None]))
        while True:
            solution = _solve(k, loss, arrays, stops, accuracy * scale, ridge, report)
            if solution is None:
                break
            scale, done = _root_mean_square(solution.moved), done + solution.steps
            if previous is not None:
                # Two solutions that use the same steps agree no matter how large their errors are, so the estimate is
                # not allowed to fall below the tolerance per step.
                error = max(accuracy, _root_mean_square(solution.moved - previous.moved) / scale)
            previous = solution
            # Half of the tolerance is reserved for rounding error.
            if error <= tolerance / 2 or accuracy <= FINEST:
                break
            accuracy *= FINER
    if previous is None:
        raise ValueError(
            f"times must be reachable within {STEPS} integration steps, got {last:.4g}. The product of this time and "
            f"lambda_max is {k.lambda_max * last:.2g}. Use earlier times, or use kernel_descent instead."
        )
    return previous.coefficients[inverse], error


def _root_mean_square(x: np.ndarray) -> float:
    """Return the maximum over the first axis of the root mean square over all other axes."""
    return float(np.sqrt(np.mean(x.reshape(len(x), -1) ** 2, axis=1)).max())


def _solve(
    k: DenseKernel,
    loss: Loss,
    arrays: tuple[Array, Array, Array],
    times: np.ndarray,
    allowed: float,
    ridge: float,
    report: Callable[[int], None],
) -> Solution | None:
    """Return the solution for the given error tolerance per step, or None if solving fails or takes too many steps."""
    shape = arrays[1].shape
    moved, coefficients = (np.zeros((len(times), *shape)) for _ in range(2))
    limit = int(min(CALL_STEPS, max(16, CALL / (STAGES * len(k.matrix) * arrays[1].size))))
    state, now, length, steps = (jnp.zeros(shape), jnp.zeros(shape)), 0.0, 1 / (k.lambda_max + ridge), 0
    while now < times[-1]:
        if steps >= STEPS:
            return None
        length = min(length, times[-1] - now)
        values, state, reached, taken = _advance(loss, limit, state, *arrays, now, length, times, allowed, ridge)
        reached, taken = float(reached), int(taken)
        steps += taken
        report(steps)
        new = (times > now) & (times <= reached)
        moved[new], coefficients[new] = (np.asarray(value)[new] for value in values)
        if reached == now or not np.isfinite(state[0]).all():
            return None
        length, now = (reached - now) / taken, reached
    return Solution(moved, coefficients, steps)


@compiled(static_argnames="loss")
def _initial_velocity(loss: Loss, k: Array, y: Array, f0: Array) -> Array:
    """Return K grad L(f0), the negative velocity of the predictions at time 0."""
    return _product(k, jax.grad(loss)(f0, y))


def _product(k: Array, v: Array) -> Array:
    """Return K v, with the shape of v. If K couples the outputs, it has a row for each pair of example and output."""
    return k @ v if len(k) == len(v) else (k @ v.reshape(-1)).reshape(v.shape)


@compiled(static_argnames=("loss", "limit"))
def _advance(
    loss: Loss,
    limit: int,
    state: tuple[Array, Array],
    k: Array,
    y: Array,
    f0: Array,
    now: Array | float,
    length: Array | float,
    times: Array | np.ndarray,
    allowed: Array | float,
    ridge: Array | float,
) -> tuple[tuple[Array, Array], tuple[Array, Array], Array, Array]:
    """Advance the solution by at most `limit` steps.

    Returns:
        The solution at the given times, the last state and time reached, and the number of steps taken. The solution is
        valid only at times between `now` and the last time reached.
    """
    import diffrax

    def field(t: Any, state: tuple[Array, Array], arrays: tuple[Array, ...]) -> tuple[Array, Array]:
        k, y, f0, ridge = arrays
        gradient = jax.grad(loss)(f0 + state[0], y)
        return -(_product(k, gradient) + ridge * state[0]), -(gradient + ridge * state[1])

    end = times[-1]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        now,
        end,
        length,
        state,
        (k, y, f0, jnp.asarray(ridge)),
        saveat=diffrax.SaveAt(
            subs=[diffrax.SubSaveAt(ts=jnp.clip(times, now, end)), diffrax.SubSaveAt(t1=True)],
        ),
        # The step size controls the error in the predictions rather than the error in the coefficients.
        stepsize_controller=diffrax.PIDController(
            rtol=0.0, atol=allowed, norm=lambda error: jnp.sqrt(jnp.mean(error[0] ** 2))
        ),
        adjoint=diffrax.ForwardMode(),
        max_steps=limit,
        throw=False,
    )
    values, final = solution.ys
    return values, jax.tree.map(lambda leaf: leaf[0], final), solution.ts[1][0], solution.stats["num_steps"]
