"""Trajectories of predictions on the training and test sets, computed from modes or from coefficients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.arrays import float64_array, real_array
from lazynet.dynamics._coefficients import DenseKernel
from lazynet.dynamics._laws import Law, allow_overflow, divide_by_eigenvalue
from lazynet.dynamics._modes import excited_modes
from lazynet.kernels import CrossOperator, Error, KernelOperator, Spectrum, check_square, check_targets
from lazynet.typing import AnyArray, SquareKernel, Targets


class Trajectory(NamedTuple):
    """Kernel predictions at s times, as NumPy float64 arrays.

    Attributes:
        time: Times, shape (s,); for gradient descent, the learning rate times the step.
        train: Predictions on the training set, shape (s, n) or (s, n, k).
        test: Predictions on the test set, shape (s, n_test) or (s, n_test, k), or None if there is no test kernel.
        step: Integer gradient-descent steps, shape (s,), or None for gradient flow.
        error: Estimate of the largest error in `train` over time. The error is relative to norm(y - f0) for predictions
            in closed form, and to the largest norm(train - f0) for predictions that are computed step by step.

    >>> import numpy as np, lazynet as lz
    >>> trajectory = lz.kernel_descent(np.eye(3), np.ones(3), learning_rate=0.5, steps=[0, 10], k_test=np.ones((2, 3)))
    >>> trajectory.train.shape, trajectory.test.shape, trajectory.time
    ((2, 3), (2, 2), array([0., 5.]))
    """

    time: Float[np.ndarray, " s"]
    train: np.ndarray
    test: np.ndarray | None
    step: np.ndarray | None
    error: Error


class Problem(NamedTuple):
    """Targets, initial predictions and test kernel, with consistent shapes."""

    y: np.ndarray
    f0: np.ndarray
    k_test: np.ndarray | CrossOperator | None
    f0_test: np.ndarray


def real_kernel(k: SquareKernel | Spectrum | KernelOperator) -> SquareKernel | Spectrum | KernelOperator:
    """Return a kernel after checking that it is a square matrix of real numbers, a `Spectrum` or an operator."""
    return k if isinstance(k, Spectrum | KernelOperator) else check_square("k", real_array("k", k))


def validated_problem(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    f0: float | AnyArray,
    k_test: AnyArray | CrossOperator | None,
    f0_test: float | AnyArray,
) -> Problem:
    """Return the validated arguments for a prediction.

    Raises:
        ValueError: If a shape does not match the kernel, or if an array is not finite.
    """
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    f0 = _broadcast("f0", f0, y.shape)
    if k_test is not None:
        k_test = check_test_kernel(k_test, n)
    n_test = 0 if k_test is None else k_test.shape[0]
    return Problem(y, f0, k_test, _broadcast("f0_test", f0_test, (n_test, *y.shape[1:])))


def check_test_kernel(k_test: AnyArray | CrossOperator, n: int) -> np.ndarray | CrossOperator:
    """Check the test kernel and return it; a matrix is converted to a NumPy float64 array.

    Raises:
        ValueError: If the test kernel is not a finite matrix with n columns.
    """
    if not isinstance(k_test, CrossOperator):
        k_test = float64_array("k_test", k_test)
    if len(k_test.shape) != 2 or k_test.shape[1] != n:
        raise ValueError(f"k_test must be a matrix of shape (n_test, {n}), got shape {k_test.shape}.")
    if not isinstance(k_test, CrossOperator) and not np.isfinite(k_test).all():
        raise ValueError("k_test must be finite, got NaN or infinite entries.")
    return k_test


def _broadcast(name: str, f0: float | AnyArray, shape: tuple[int, ...]) -> np.ndarray:
    f0 = float64_array(name, f0)
    if f0.shape not in ((), shape):
        raise ValueError(f"{name} must be a number or an array of shape {shape}, got shape {f0.shape}.")
    if not np.isfinite(f0).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return np.broadcast_to(f0, shape)


@allow_overflow
def trajectory_from_modes(
    k: SquareKernel | Spectrum | KernelOperator,
    problem: Problem,
    law: Law,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> Trajectory:
    """Compute the trajectory from the modes that the residual excites."""
    residual = (problem.y - problem.f0).reshape(len(problem.y), -1)
    modes, error = excited_modes(k, residual, law, method, tolerance, progress)
    shape, grown = (len(law.time), -1, *problem.y.shape[1:]), law.growth(modes.values)
    train = problem.f0 + modes.combined(grown, modes.basis).reshape(shape)
    if problem.k_test is None:
        return Trajectory(law.time, train, None, law.step, error)
    learned = divide_by_eigenvalue(grown, modes.values)
    test = problem.f0_test + modes.combined(learned, _multiply(problem.k_test, modes.basis)).reshape(shape)
    return Trajectory(law.time, train, test, law.step, error)


@allow_overflow
def trajectory_from_coefficients(
    k: DenseKernel, problem: Problem, law: Law, coefficients: np.ndarray, truncation: float
) -> Trajectory:
    """Compute the trajectory from coefficients of shape (s, n, ...), using one product with each kernel."""

    def predict(kernel: np.ndarray | CrossOperator) -> np.ndarray:
        columns = np.moveaxis(coefficients, 0, -1)
        product = _multiply(kernel, columns.reshape(len(columns), -1))
        return np.moveaxis(product.reshape(len(product), *columns.shape[1:]), -1, 0)

    moved = predict(k.matrix)
    test = None if problem.k_test is None else problem.f0_test + predict(problem.k_test)
    return Trajectory(law.time, problem.f0 + moved, test, law.step, k.error(coefficients, moved, truncation))


def _multiply(kernel: np.ndarray | CrossOperator, v: np.ndarray) -> np.ndarray:
    return kernel.product(v) if isinstance(kernel, CrossOperator) else kernel @ v
