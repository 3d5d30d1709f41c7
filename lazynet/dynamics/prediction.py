"""What a fixed kernel predicts of training with the squared loss: every time at once.

With K = sum_i lambda_i v_i v_i' and residual r_0 = y - f_0, the residual along v_i shrinks by a factor d_i: descent
has d_i(k) = (1 - eta lambda_i)^k, flow has d_i(t) = exp(-t lambda_i) (Arora et al. 2019, Theorem 4.1; Lee et al. 2019,
section 2.2, here for the sum over examples of half the squared error). Small kernels are diagonalised; of a large one
the Lanczos process finds the few modes that r_0 excites (see `lazynet.dynamics.modes`).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.dynamics.modes import Law, modes_of
from lazynet.kernels import CrossOperator, Error, KernelOperator, Spectrum
from lazynet.kernels.spectrum import check_targets
from lazynet.typing import AnyArray, SquareKernel, Targets

# A learning rate beyond 2 / lambda_max diverges, which is the true answer and not an error.
_may_diverge = np.errstate(over="ignore", invalid="ignore")


class Trajectory(NamedTuple):
    """Predictions at s times, NumPy float64.

    Attributes:
        time: (s,), learning rate times step for descent.
        train: (s, n) or (s, n, k).
        test: (s, n_test) or (s, n_test, k); None where no test kernel was given.
        step: (s,) integers for descent; None for flow.
        error: of `train`, the largest over time, relative to norm(y - f0).

    >>> import numpy as np, lazynet as lz
    >>> path = lz.kernel_descent(np.eye(3), np.ones(3), learning_rate=0.5, steps=[0, 10], k_test=np.ones((2, 3)))
    >>> path.train.shape, path.test.shape, path.time
    ((2, 3), (2, 2), array([0., 5.]))
    """

    time: Float[np.ndarray, " s"]
    train: np.ndarray
    test: np.ndarray | None
    step: np.ndarray | None
    error: Error


def kernel_descent(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    *,
    learning_rate: float,
    steps: int | Sequence[int] | np.ndarray,
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predictions of full-batch descent u <- u - eta K (u - y) from u(0) = f0.

    Arora et al. 2019, section 4: u~(k+1) = u~(k) - eta H (u~(k) - y).

    Args:
        k: kernel on the training set (n, n), its `lazynet.kernels.spectrum`, or a `lazynet.kernel_operator`.
        y: targets (n,) or (n, k).
        learning_rate: eta, for the loss 1/2 sum ||f - y||^2.
        steps: the number of steps, which gives every step from 0 on, or the steps wanted.
        f0: prediction on the training set at the start, a number or shaped as y.
        k_test: kernel between test and training inputs, (n_test, n), or a `lazynet.kernels.CrossOperator`.
        f0_test: prediction on the test set at the start.
        method: "exact" by all eigenvalues and eigenvectors, "krylov" by products with K alone. Left out, "exact" up to
            1000 examples, where it is about as fast.
        tolerance: of "krylov": the error to reach, relative to norm(y - f0). Left out, 1e-5, and 1e-4 for a kernel
            stored in float32. Where it cannot be reached, a warning says why, and `Trajectory.error` by how much.
        progress: is called with the number of products and the truncation error as they go on.

    Returns:
        Trajectory of NumPy float64 arrays.

    Raises:
        ValueError: if shapes do not fit, the kernel is not a finite symmetric matrix or has a negative eigenvalue, the
            learning rate is not positive and finite (for "krylov" also if descent diverges), a step is negative, or the
            tolerance is not positive.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_descent(np.eye(2), np.ones(2), learning_rate=0.5, steps=2).train[:, 0]
    array([0.  , 0.5 , 0.75])
    """
    check_learning_rate(learning_rate)
    steps = np.arange(steps + 1) if isinstance(steps, int | np.integer) else np.asarray(steps)
    if steps.ndim != 1 or not steps.size or (steps < 0).any() or (steps != np.round(steps)).any():
        raise ValueError("steps must be a number of steps, or a list of steps that are whole and not negative.")
    if steps.max() > np.iinfo(np.int64).max / 2:
        raise ValueError(f"steps has {steps.max():g}, which is more than can be counted.")
    steps = steps.astype(np.int64)
    law = Law(learning_rate * steps, learning_rate, lambda values: descent_growth(values, learning_rate, steps))
    return _predict(k, y, law, steps, f0, k_test, f0_test, method, tolerance, progress)


def kernel_flow(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    *,
    times: Sequence[float] | np.ndarray,
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predictions of gradient flow du/dt = -K (u - y) from u(0) = f0.

    Lee et al. 2019, section 2.2. Arguments, result and errors are those of `kernel_descent`; `times` (s,) are
    not negative, and t = eta k is the time of step k.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_flow(np.eye(1), np.ones(1), times=[0.0, np.log(2)]).train[:, 0]
    array([0. , 0.5])
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("times must be a list of finite times that are not negative.")
    law = Law(times, None, lambda values: -np.expm1(-np.outer(times, values)))
    return _predict(k, y, law, None, f0, k_test, f0_test, method, tolerance, progress)


def check_learning_rate(learning_rate: float) -> None:
    """Refuse a learning rate that is not positive and finite."""
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}, but must be positive and finite.")


@_may_diverge
def descent_growth(values: np.ndarray, learning_rate: float, steps: np.ndarray) -> np.ndarray:
    """The share 1 - (1 - eta lambda_i)^k of each mode that is learned after k steps, (s, n), without cancellation."""
    contraction = learning_rate * values
    safe = np.where(contraction < 1, contraction, 0.5)
    slow = -np.expm1(np.multiply.outer(steps, np.log1p(-safe)))
    fast = 1 - np.power.outer(1 - contraction, steps).T
    return np.where(contraction < 1, slow, fast)


@_may_diverge
def linearised_displacement(k: Spectrum, residual: np.ndarray, learning_rate: float, steps: np.ndarray) -> np.ndarray:
    """Distance that the parameters of the linearised network move in k steps, (s,).

    sqrt(sum_i (1 - (1 - eta lambda_i)^k)^2 (v_i' r_0)^2 / lambda_i): the norm of eta Z r summed over steps (Arora et
    al. 2019, section 5.2, where k goes to infinity and the value to sqrt(y' K^-1 y)).
    """
    grown = descent_growth(k.values, learning_rate, steps)
    modes = np.sum((k.vectors.T @ residual.reshape(len(residual), -1)) ** 2, axis=1)
    squares = grown * over_eigenvalue(grown, k.values, learning_rate * steps) * modes
    # An eigenvalue that rounding made negative must not make a norm imaginary.
    return np.sqrt(np.maximum(np.sum(squares, axis=1), 0))


def over_eigenvalue(grown: np.ndarray, values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """grown / lambda, and its limit, the time, where an eigenvalue is exactly zero."""
    zero = values == 0
    return np.where(zero, time[:, None], grown / np.where(zero, 1.0, values))


@_may_diverge
def _predict(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    law: Law,
    step: np.ndarray | None,
    f0: float | AnyArray,
    k_test: AnyArray | CrossOperator | None,
    f0_test: float | AnyArray,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> Trajectory:
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    f0 = _start("f0", f0, y.shape)
    if k_test is not None and not isinstance(k_test, CrossOperator):
        k_test = np.asarray(k_test, np.float64)
        if k_test.ndim != 2 or not np.isfinite(k_test).all():
            raise ValueError(f"k_test has shape {k_test.shape}, but must be a finite matrix (n_test, {n}).")
    if k_test is not None and k_test.shape[1] != n:
        raise ValueError(f"k_test has shape {k_test.shape}, but must be a finite matrix (n_test, {n}).")
    outputs = y.shape[1:]
    f0_test = _start("f0_test", f0_test, (0 if k_test is None else k_test.shape[0], *outputs))
    modes, error = modes_of(k, (y - f0).reshape(n, -1), law, method, tolerance, progress)

    grown, shape = law.growth(modes.values), (len(law.time), -1, *outputs)
    train = f0 + modes.combined(grown, modes.basis).reshape(shape)
    if k_test is None:
        return Trajectory(law.time, train, None, step, error)
    images = k_test.product(modes.basis) if isinstance(k_test, CrossOperator) else k_test @ modes.basis
    test = f0_test + modes.combined(over_eigenvalue(grown, modes.values, law.time), images).reshape(shape)
    return Trajectory(law.time, train, test, step, error)


def _start(name: str, f0: float | AnyArray, shape: tuple[int, ...]) -> np.ndarray:
    f0 = np.asarray(f0, np.float64)
    if f0.shape not in ((), shape) or not np.isfinite(f0).all():
        raise ValueError(f"{name} has shape {f0.shape}, but must be a number or a finite array of shape {shape}.")
    return np.broadcast_to(f0, shape)
