"""Gradient flow of any loss in the coefficients of the kernel, by diffrax, tightened until two solutions agree."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.dynamics._coefficients import CALL, Whole
from lazynet.losses import Loss
from lazynet.precision import host_float64

STEPS = 100_000  # that one solution takes at most
COARSEST, FINER, FINEST = 1e-3, 1 / 10, 1e-14  # share of the movement that a step may be wrong by: at first, next, last
STAGES = 6  # products with K in a step
CALL_STEPS = 4096  # that a call of the compiled program takes at most


class Solution(NamedTuple):
    """Movement u - f0 and coefficients c at the times, (s, n, ...), and the number of steps."""

    moved: np.ndarray
    coefficients: np.ndarray
    steps: int


def flow(
    k: Whole,
    y: np.ndarray,
    f0: np.ndarray,
    loss: Loss,
    times: np.ndarray,
    tolerance: float,
    progress: Callable[[int, float], None] | None,
) -> tuple[Float[np.ndarray, "s ..."], float]:
    """Coefficients of c' = -grad L(f0 + K c) at the times, shaped as y, and the error of u over its largest movement.

    The error is the largest norm of the difference from a solution whose steps may be wrong by ten times as much, so
    rather that one's, and not less than what a step may be wrong by. Steps are explicit and of order five (Tsitouras
    2011); their number grows with the last time times lambda_max times the curvature of the loss, which soon vanishes
    where examples are fitted.

    Raises:
        ValueError: if even the coarsest solution takes too many steps.
    """
    wanted, where = np.unique(times, return_inverse=True)
    last, done, error = float(wanted[-1]), 0, np.inf

    def report(steps: int) -> None:
        if progress is not None:
            progress(STAGES * (done + steps), error)

    with host_float64(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        arrays = jnp.asarray(k.matrix), jnp.asarray(y), jnp.asarray(f0)
        pull = np.asarray(_pull(loss, *arrays))
        if not pull.any() or not last:
            return np.zeros((len(times), *y.shape)), 0.0
        scale, accuracy, found = _root_mean_square(last * pull[None]), COARSEST, None
        if (y != f0).any():
            scale = min(scale, _root_mean_square((y - f0)[None]))
        while True:
            solution = _solve(k, loss, arrays, wanted, accuracy * scale, report)
            if solution is None:
                break
            scale, done = _root_mean_square(solution.moved), done + solution.steps
            if found is not None:
                # Two solutions may agree because nothing made them take other steps.
                error = max(accuracy, _root_mean_square(solution.moved - found.moved) / scale)
            found = solution
            # The other half of the tolerance is for rounding.
            if error <= tolerance / 2 or accuracy <= FINEST:
                break
            accuracy *= FINER
    if found is None:
        raise ValueError(
            f"times go up to {last:.4g}, where the flow does not get within {STEPS} steps (lambda_max times that is "
            f"{k.lambda_max * last:.2g}); ask for earlier times, or for kernel_descent."
        )
    return found.coefficients[where], error


def _root_mean_square(x: np.ndarray) -> float:
    """The largest over the first axis."""
    return float(np.sqrt(np.mean(x.reshape(len(x), -1) ** 2, axis=1)).max())


def _solve(
    k: Whole,
    loss: Loss,
    arrays: tuple[Array, Array, Array],
    times: np.ndarray,
    allowed: float,
    report: Callable[[int], None],
) -> Solution | None:
    """The solution whose steps are wrong by so much, in pieces of about half a second; None if there are too many."""
    shape = arrays[1].shape
    moved, coefficients = (np.zeros((len(times), *shape)) for _ in range(2))
    limit = int(min(CALL_STEPS, max(16, CALL / (STAGES * len(k.matrix) * arrays[1].size))))
    state, now, length, steps = (jnp.zeros(shape), jnp.zeros(shape)), 0.0, 1 / k.lambda_max, 0
    while now < times[-1]:
        if steps >= STEPS:
            return None
        length = min(length, times[-1] - now)
        values, state, reached, taken = _advance(loss, limit, state, *arrays, now, length, times, allowed)
        reached, taken = float(reached), int(taken)
        steps += taken
        report(steps)
        new = (times > now) & (times <= reached)
        moved[new], coefficients[new] = (np.asarray(value)[new] for value in values)
        if reached == now or not np.isfinite(state[0]).all():
            return None
        length, now = (reached - now) / taken, reached
    return Solution(moved, coefficients, steps)


@partial(jax.jit, static_argnames="loss")
def _pull(loss: Loss, k: Array, y: Array, f0: Array) -> Array:
    """How fast predictions move at the start."""
    return k @ jax.grad(loss)(f0, y)


@partial(jax.jit, static_argnames=("loss", "limit"))
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
) -> tuple[tuple[Array, Array], tuple[Array, Array], Array, Array]:
    """At most so many steps on: values at the times passed, the last state, its time, and the number of steps."""
    import diffrax

    def field(t: Any, state: Any, arrays: Any) -> tuple[Array, Array]:
        k, y, f0 = arrays
        pull = jax.grad(loss)(f0 + state[0], y)
        return -(k @ pull), -pull

    end = times[-1]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        now,
        end,
        length,
        state,
        (k, y, f0),
        saveat=diffrax.SaveAt(
            subs=[diffrax.SubSaveAt(ts=jnp.clip(times, now, end)), diffrax.SubSaveAt(t1=True)],
        ),
        # The coefficients come along; what is asked for are the predictions.
        stepsize_controller=diffrax.PIDController(
            rtol=0.0, atol=allowed, norm=lambda error: jnp.sqrt(jnp.mean(error[0] ** 2))
        ),
        adjoint=diffrax.ForwardMode(),
        max_steps=limit,
        throw=False,
    )
    values, final = solution.ys
    return values, jax.tree.map(lambda leaf: leaf[0], final), solution.ts[1][0], solution.stats["num_steps"]
