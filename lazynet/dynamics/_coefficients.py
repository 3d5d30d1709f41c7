"""Training with any loss as coefficients of the kernel: u = f0 + K c, and f0_test + K_test c on other inputs.

A linear model f0 + Z (theta - theta_0) with K = Z Z' moves along Z' g, g the gradient of the loss in its predictions,
so that theta - theta_0 = Z' c whatever the loss, the momentum and the batches (Lee et al. 2019, section 2.2).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from jaxtyping import Float

from lazynet.dynamics._modes import EPS, NEGATIVE, check_not_negative
from lazynet.kernels import Error, KernelOperator, Spectrum, dense_operator, largest_eigenvalue
from lazynet.kernels._solve import FACTORED
from lazynet.losses import Loss
from lazynet.precision import host_float64
from lazynet.typing import AnyArray, SquareKernel

# Multiplications that a call of a compiled program takes, about half a second, because it cannot be interrupted.
CALL = 5e8
# Steps that a call takes at most, for kernels so small that a step costs more than its multiplications.
CALL_STEPS = 50_000
CALL_STOPS = 256  # wanted steps to a call


class Whole(NamedTuple):
    """A kernel as a matrix (n, n), its largest eigenvalue, and the norm that rounding of its entries may have."""

    matrix: Float[np.ndarray, "n n"]
    lambda_max: float
    rounding: float

    def error(self, coefficients: np.ndarray, moved: np.ndarray, truncation: float) -> Error:
        """The error of u = f0 + K c relative to the largest norm of u - f0: (truncation, what the error of K does)."""
        lengths = [np.sqrt(np.sum(x.reshape(len(x), -1) ** 2, axis=1)).max() for x in (coefficients, moved)]
        if lengths[1] == 0:
            return Error(0.0, 0.0)
        storage = (self.rounding + EPS * self.lambda_max) * lengths[0] / lengths[1] + EPS
        return Error(truncation, float(storage) if np.isfinite(storage) else np.inf)


def whole(k: SquareKernel | Spectrum | KernelOperator) -> Whole:
    """The kernel as a matrix.

    Raises:
        ValueError: if it is not finite and symmetric, has a negative eigenvalue beyond rounding, or does not fit in
            memory.
    """
    if isinstance(k, Spectrum):
        check_not_negative(k.values)
        return Whole((k.vectors * k.values) @ k.vectors.T, float(k.values.max()), 0.0)
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    matrix = operator.dense()
    if len(matrix) > FACTORED:
        raise ValueError(
            f"k has {len(matrix)} rows, but losses other than the squared one, and batches, take at most {FACTORED}."
        )
    lambda_max = largest_eigenvalue(matrix)
    shifted = matrix.copy()
    shifted[np.diag_indices(len(matrix))] += NEGATIVE * lambda_max
    try:
        # Far cheaper than the smallest eigenvalue.
        scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        values = scipy.linalg.eigvalsh(matrix, subset_by_index=[0, 0])
        check_not_negative(np.append(values, lambda_max))
    return Whole(matrix, lambda_max, operator.rounding * float(np.sqrt(lambda_max * operator.diagonal().max())))


def check_targets_of(loss: Loss, y: np.ndarray) -> None:
    """Refuse targets of a shape for which the loss has no value for each example."""
    probe = jax.ShapeDtypeStruct(y.shape, np.float32)
    try:
        shape = jax.eval_shape(loss.per_example, probe, probe).shape
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"y has shape {y.shape}, which the {loss.name} loss does not take: {error}") from error
    if shape != y.shape[:1]:
        raise ValueError(
            f"y has shape {y.shape}, for which the {loss.name} loss gives values of shape {shape}, not one an example."
        )


def check_batches(batches: AnyArray, n: int, steps: int) -> np.ndarray:
    """Rows of examples, one for each step, as int32.

    Raises:
        ValueError: if they are no whole numbers, there is not a row for each step, or an example does not exist.
    """
    rows = np.asarray(batches)
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or len(rows) != steps or not rows.shape[1]:
        raise ValueError(
            f"batches has shape {rows.shape} and dtype {rows.dtype}, but must be whole numbers of shape ({steps}, B), "
            "the examples of each step."
        )
    outside = rows[(rows < 0) | (rows >= n)]
    if outside.size:
        raise ValueError(f"batches has the example {outside[0]}, but the examples are 0 to {n - 1}.")
    return rows.astype(np.int32)


def descend(
    k: Whole,
    y: np.ndarray,
    f0: np.ndarray,
    loss: Loss,
    learning_rate: float,
    momentum: float,
    batches: np.ndarray | None,
    steps: np.ndarray,
    progress: Callable[[int, float], None] | None,
) -> Float[np.ndarray, "s ..."]:
    """Coefficients after the wanted steps of v <- mu v + g, c <- c - eta v, shaped as y; optax's `sgd` in parameters.

    A step costs a product with K, or with its rows of the batch.
    """
    width = len(y) if batches is None else batches.shape[1]
    limit = int(min(CALL_STEPS, max(1, CALL / (width * y.size))))
    wanted, where = np.unique(steps, return_inverse=True)
    found, done, seen = np.zeros((len(wanted), *y.shape)), 0, int(wanted[0] == 0)
    with host_float64():
        arrays = jnp.asarray(k.matrix), jnp.asarray(y), jnp.asarray(f0)
        rows = None if batches is None else jnp.asarray(batches)
        state = jnp.zeros(y.shape), jnp.zeros(y.shape)
        while seen < len(wanted):
            inside = wanted[seen : seen + CALL_STOPS]
            inside = inside[inside <= done + limit]
            # Padded, so that one program serves every call.
            stops = np.full(CALL_STOPS, min(done + limit, wanted[-1]) if len(inside) < CALL_STOPS else inside[-1])
            stops[: len(inside)] = inside
            state, passed = _steps(loss, state, *arrays, rows, learning_rate, momentum, done, stops)
            found[seen : seen + len(inside)] = passed[: len(inside)]
            seen, done = seen + len(inside), int(stops[-1])
            if progress is not None:
                progress(done, 0.0)
    return found[where]


@partial(jax.jit, static_argnames="loss")
def _steps(
    loss: Loss,
    state: tuple[Array, Array],
    k: Array,
    y: Array,
    f0: Array,
    batches: Array | None,
    learning_rate: Array | float,
    momentum: Array | float,
    done: Array | int,
    stops: Array | np.ndarray,
) -> tuple[tuple[Array, Array], Array]:
    """Coefficients and their velocity at the last of the stops, and the coefficients at each."""
    gradient = jax.grad(loss)

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        c, v = state
        if batches is None:
            v = momentum * v + gradient(f0 + k @ c, y)
        else:
            rows = batches[i]
            scale = len(y) / len(rows) if loss.reduction == "sum" else 1.0
            v = (momentum * v).at[rows].add(scale * gradient(f0[rows] + k[rows] @ c, y[rows]))
        return c - learning_rate * v, v

    def go_on(at: tuple[Any, Array], stop: Array) -> tuple[tuple[Any, Array], Array]:
        state = jax.lax.fori_loop(at[1], stop, step, at[0])
        return (state, stop), state[0]

    (state, _), passed = jax.lax.scan(go_on, (state, jnp.asarray(done, stops.dtype)), jnp.asarray(stops))
    return state, passed
