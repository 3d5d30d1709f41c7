"""Gradient descent for any loss, in terms of the coefficients c in the predictions f0 + K c and f0_test + K_test c.

The parameters of a linear model f0 + Z (theta - theta_0) with K = Z Z' move along Z' g, where g is the gradient of the
loss with respect to the predictions. Therefore, theta - theta_0 = Z' c for any loss, even with momentum and
mini-batches (Lee et al. 2019, section 2.2).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from jaxtyping import Float

from lazynet.arrays import real_array
from lazynet.dynamics._modes import EPS, NEGATIVE, check_not_negative
from lazynet.kernels import FACTORED, Error, KernelOperator, Spectrum, dense_operator, largest_eigenvalue
from lazynet.losses import Loss
from lazynet.precision import host_float64
from lazynet.programs import compiled
from lazynet.typing import AnyArray, SquareKernel

# Maximum number of multiplications per call to a compiled program. A running call cannot be interrupted, so this limit
# keeps each call to about half a second.
CALL = 5e8
# Maximum number of steps per call. This limit matters for small kernels, for which most of the cost of a step is
# overhead rather than multiplications.
CALL_STEPS = 50_000
CALL_STOPS = 256  # maximum number of steps recorded per call


class Decay(NamedTuple):
    """The effect of weight decay on the part of the parameters along theta_0.

    Attributes:
        weight_decay: Factor w in the term w theta that is added to the gradient.
        shares: The factors b in theta - theta_0 = Z' c + b theta_0 at every step, shape (steps + 1,).
        outputs: Z theta_0 on the training set, with the shape of the targets.
    """

    weight_decay: float
    shares: np.ndarray
    outputs: np.ndarray


def decay_shares(
    weight_decay: float, ridge: float, learning_rate: float, momentum: float, nesterov: bool, steps: int
) -> np.ndarray:
    """Return the factors b in theta - theta_0 = Z' c + b theta_0 after 0, ..., `steps` steps, shape (steps + 1,)."""
    shares, b, v = np.zeros(steps + 1), 0.0, 0.0
    for step in range(steps):
        g = weight_decay * (1 + b) + ridge * b
        v = momentum * v + g
        b -= learning_rate * (g + momentum * v if nesterov else v)
        shares[step + 1] = b
    return shares


class DenseKernel(NamedTuple):
    """A kernel stored as a matrix.

    Attributes:
        matrix: Kernel, shape (n, n).
        lambda_max: Largest eigenvalue.
        rounding: Bound on the norm of the matrix of rounding errors in the entries.
    """

    matrix: Float[np.ndarray, "n n"]
    lambda_max: float
    rounding: float

    def error(self, coefficients: np.ndarray, moved: np.ndarray, truncation: float) -> Error:
        """Return the error in u = f0 + K c, relative to the largest norm of u - f0 at any time.

        The error has two parts: `storage`, which is due to rounding, and `truncation`, which the caller supplies. Both
        are zero if u = f0 at all times.

        Args:
            coefficients: Coefficients c at each time, shape (s, n, ...).
            moved: Change in the predictions, u - f0, at each time, shape (s, n, ...).
            truncation: Truncation error, relative to the largest norm of u - f0.
        """
        norms = [np.sqrt(np.sum(x.reshape(len(x), -1) ** 2, axis=1)).max() for x in (coefficients, moved)]
        if norms[1] == 0:
            return Error(0.0, 0.0)
        storage = (self.rounding + EPS * self.lambda_max) * norms[0] / norms[1] + EPS
        return Error(truncation, float(storage) if np.isfinite(storage) else np.inf)


def dense_kernel(k: SquareKernel | Spectrum | KernelOperator) -> DenseKernel:
    """Convert the kernel to a matrix.

    Raises:
        ValueError: If the kernel is not finite, symmetric and positive semidefinite up to rounding, or if it has too
            many rows or does not fit in memory.
    """
    if isinstance(k, Spectrum):
        check_not_negative(k.values)
        return DenseKernel((k.vectors * k.values) @ k.vectors.T, float(k.values.max()), 0.0)
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    matrix = operator.dense()
    if len(matrix) > FACTORED:
        raise ValueError(
            f"k must have at most {FACTORED} rows where kernel descent or flow has no closed form, got {len(matrix)}."
        )
    lambda_max = largest_eigenvalue(matrix)
    shifted = matrix.copy()
    shifted[np.diag_indices(len(matrix))] += NEGATIVE * lambda_max
    try:
        # A Cholesky factorization is much cheaper than computing the smallest eigenvalue.
        scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        values = scipy.linalg.eigvalsh(matrix, subset_by_index=[0, 0])
        check_not_negative(np.append(values, lambda_max))
    return DenseKernel(matrix, lambda_max, operator.rounding * float(np.sqrt(lambda_max * operator.diagonal().max())))


def check_batches(batches: AnyArray, n: int, steps: int) -> np.ndarray:
    """Return the indices of the examples in each step's batch, as an int32 array of shape (steps, B).

    Raises:
        ValueError: If the batches are not an integer array of this shape, or if an index is out of range.
    """
    rows = real_array("batches", batches)
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or len(rows) != steps or not rows.shape[1]:
        raise ValueError(
            f"batches must be an integer array of shape ({steps}, B) with one nonempty row of indices per step, got "
            f"shape {rows.shape} and dtype {rows.dtype}."
        )
    outside = rows[(rows < 0) | (rows >= n)]
    if outside.size:
        raise ValueError(f"batches must contain only indices from 0 to {n - 1}, got {outside[0]}.")
    return rows.astype(np.int32)


def descent_coefficients(
    k: DenseKernel,
    y: np.ndarray,
    f0: np.ndarray,
    loss: Loss,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    ridge: float,
    batches: np.ndarray | None,
    decay: Decay | None,
    steps: np.ndarray,
    progress: Callable[[int, float], None] | None,
) -> Float[np.ndarray, "s ..."]:
    """Return the coefficients at the given steps of gradient descent with a fixed kernel.

    An iteration is v <- mu v + h, c <- c - eta v with h = g + beta c, where g is the gradient of the loss at the
    predictions f0 + K c and beta is the ridge. With Nesterov momentum, c <- c - eta (h + mu v). In terms of the
    parameters, the iteration is equivalent to `optax.sgd`. Each step costs one product with K, or with the rows of K
    that belong to the batch.

    With weight decay, theta - theta_0 = Z' c + b theta_0, where b does not depend on the data. The predictions are then
    f0 + b Z theta_0 + K c, and the weight decay adds to the ridge.

    Returns:
        Coefficients c, shape (s, n) or (s, n, outputs).
    """
    width = len(y) if batches is None else batches.shape[1]
    limit = int(min(CALL_STEPS, max(1, CALL / (width * y.size * len(k.matrix) / len(y)))))
    stops, inverse = np.unique(steps, return_inverse=True)
    coefficients, done, recorded = np.zeros((len(stops), *y.shape)), 0, int(stops[0] == 0)
    with host_float64():
        # Group the rows of the kernel by example, so that a batch selects whole examples.
        arrays = jnp.asarray(k.matrix).reshape(len(y), -1, len(k.matrix)), jnp.asarray(y), jnp.asarray(f0)
        rows = None if batches is None else jnp.asarray(batches)
        shrinking = None if decay is None else (jnp.asarray(decay.shares), jnp.asarray(decay.outputs))
        ridge += 0.0 if decay is None else decay.weight_decay
        state = jnp.zeros(y.shape), jnp.zeros(y.shape)
        while recorded < len(stops):
            inside = stops[recorded : recorded + CALL_STOPS]
            inside = inside[inside <= done + limit]
            # All calls have the same number of stops, so that they share one compiled program.
            padded = np.full(CALL_STOPS, min(done + limit, stops[-1]) if len(inside) < CALL_STOPS else inside[-1])
            padded[: len(inside)] = inside
            state, values = _steps(
                loss, nesterov, state, *arrays, rows, shrinking, learning_rate, momentum, ridge, done, padded
            )
            coefficients[recorded : recorded + len(inside)] = values[: len(inside)]
            recorded, done = recorded + len(inside), int(padded[-1])
            if progress is not None:
                progress(done, 0.0)
    return coefficients[inverse]


@compiled(static_argnames=("loss", "nesterov"))
def _steps(
    loss: Loss,
    nesterov: bool,
    state: tuple[Array, Array],
    k: Array,
    y: Array,
    f0: Array,
    batches: Array | None,
    shrinking: tuple[Array, Array] | None,
    learning_rate: Array | float,
    momentum: Array | float,
    ridge: Array | float,
    done: Array | int,
    stops: Array | np.ndarray,
) -> tuple[tuple[Array, Array], Array]:
    """Return the state (coefficients and velocity) at the last stop, and the coefficients at every stop."""
    gradient = jax.grad(loss)

    def product(k: Array, c: Array) -> Array:
        """Return K c for rows of the kernel that are grouped by example, shape (examples, ...)."""
        if k.shape[1] == 1:
            return k[:, 0] @ c
        return (k.reshape(-1, k.shape[2]) @ c.reshape(-1)).reshape(len(k), *c.shape[1:])

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        c, v = state
        start = f0 if shrinking is None else f0 + shrinking[0][i] * shrinking[1]
        if batches is None:
            g = gradient(start + product(k, c), y) + ridge * c
        else:
            rows = batches[i]
            scale = len(y) / len(rows) if loss.reduction == "sum" else 1.0
            g = (ridge * c).at[rows].add(scale * gradient(start[rows] + product(k[rows], c), y[rows]))
        v = momentum * v + g
        return c - learning_rate * (g + momentum * v if nesterov else v), v

    def advance(
        carry: tuple[tuple[Array, Array], Array], stop: Array
    ) -> tuple[tuple[tuple[Array, Array], Array], Array]:
        state = jax.lax.fori_loop(carry[1], stop, step, carry[0])
        return (state, stop), state[0]

    (state, _), coefficients = jax.lax.scan(advance, (state, jnp.asarray(done, stops.dtype)), jnp.asarray(stops))
    return state, coefficients
