"""Trajectories of predictions on the training and test sets, computed from modes or from coefficients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.arrays import float64_array, real_array
from lazynet.display import displayed
from lazynet.dynamics._coefficients import DenseKernel
from lazynet.dynamics._laws import Law, allow_overflow
from lazynet.dynamics._modes import excited_modes
from lazynet.kernels import CrossOperator, Error, KernelOperator, Spectrum, check_square, check_targets
from lazynet.typing import AnyArray, SquareKernel, Targets

# A kernel on the training set, in any form that the predictions accept.
AnyKernel = SquareKernel | Float[AnyArray, "n k n k"] | Spectrum | KernelOperator


@displayed
class Trajectory(NamedTuple):
    """Kernel predictions at s times, as NumPy float64 arrays.

    Attributes:
        time: Times, shape (s,); for gradient descent, the learning rate times the step.
        train: Predictions on the training set, shape (s, n) or (s, n, k).
        test: Predictions on the test set, shape (s, n_test) or (s, n_test, k), or None if there is no test kernel.
        step: Integer gradient-descent steps, shape (s,), or None for gradient flow.
        error: Estimate of the largest error in `train` over time. The error is relative to norm(y - f0) for predictions
            in closed form, and to the largest norm(train - f0) for predictions that are computed step by step.
        displacement: Displacement norm(theta - theta_0) of the parameters of the linear model with this kernel, shape
            (s,).

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
    displacement: Float[np.ndarray, " s"]


@displayed
class Origin(NamedTuple):
    """Initial parameters theta_0 of a linear model f_0 + Z (theta - theta_0), as seen through Z, for weight decay.

    For a network, Z is its Jacobian J at initialization, and J theta_0 is the derivative of its outputs along theta_0:
    `jax.jvp(lambda params: network.apply({**variables, "params": params}, x), (params_0,), (params_0,))[1]`.

    Attributes:
        train: Z theta_0 on the training set, with the shape of the targets.
        test: Z theta_0 on the test set, shape (n_test,) or (n_test, outputs), or None if there is no test kernel.
        norm: Norm of theta_0.

    >>> import numpy as np, lazynet as lz
    >>> origin = lz.Origin(train=np.array([2.0]), test=None, norm=2.0)  # f = theta, theta_0 = 2
    >>> path = lz.kernel_descent(
    ...     np.eye(1), np.zeros(1), learning_rate=0.5, steps=1, f0=2.0, weight_decay=1.0, origin=origin
    ... )
    >>> path.train[1]
    array([0.])
    """

    train: np.ndarray
    test: np.ndarray | None
    norm: float


class Problem(NamedTuple):
    """Targets, initial predictions and test kernel, with consistent shapes.

    Attributes:
        y: Targets, shape (n,) or (n, outputs).
        f0: Initial prediction on the training set, with the same shape as y.
        k_test: Kernel between test and training inputs, or None.
        f0_test: Initial prediction on the test set, shape (n_test,) or (n_test, outputs).
        coupled: Whether the kernel couples the outputs. If so, the training kernel has shape
            (n * outputs, n * outputs), and `k_test` has shape (n_test * outputs, n * outputs).
    """

    y: np.ndarray
    f0: np.ndarray
    k_test: np.ndarray | CrossOperator | None
    f0_test: np.ndarray
    coupled: bool = False


def real_kernel(k: SquareKernel | Spectrum | KernelOperator) -> SquareKernel | Spectrum | KernelOperator:
    """Return a kernel after checking that it is a square matrix of real numbers, a `Spectrum` or an operator."""
    return k if isinstance(k, Spectrum | KernelOperator) else check_square("k", real_array("k", k))


def validated(
    k: AnyKernel, y: Targets, f0: float | AnyArray, k_test: AnyArray | CrossOperator | None, f0_test: float | AnyArray
) -> tuple[Float[AnyArray, "rows rows"] | Spectrum | KernelOperator, Problem]:
    """Check the kernel and the problem, and return both.

    A kernel that couples the outputs is returned as a matrix with one row for each pair of example and output.

    Raises:
        ValueError: If the kernel is not square, if a shape does not match the kernel, or if an array is not finite.
    """
    k = k if isinstance(k, Spectrum | KernelOperator) else real_array("k", k)
    if isinstance(k, Spectrum | KernelOperator) or k.ndim != 4:
        k = real_kernel(k)
        return k, validated_problem(k, y, f0, k_test, f0_test)
    y = real_array("y", y)
    n, outputs = k.shape[:2]
    if k.shape != (n, outputs, n, outputs):
        raise ValueError(f"k must have shape (n, outputs, n, outputs) if it has four axes, got shape {k.shape}.")
    if y.shape != (n, outputs):
        raise ValueError(f"y must have shape ({n}, {outputs}) to match k of shape {k.shape}, got shape {y.shape}.")
    if k_test is not None:
        k_test = float64_array("k_test", k_test)
        if k_test.ndim != 4 or k_test.shape[1:] != (outputs, n, outputs):
            raise ValueError(
                f"k_test must have shape (n_test, {outputs}, {n}, {outputs}) to match k, got shape {k_test.shape}."
            )
        k_test = k_test.reshape(-1, n * outputs)
    n_test = 0 if k_test is None else len(k_test) // outputs
    flat = k.reshape(n * outputs, n * outputs)
    starts = _broadcast("f0", f0, (n, outputs)), _broadcast("f0_test", f0_test, (n_test, outputs))
    problem = validated_problem(check_square("k", flat), y.reshape(-1), 0.0, k_test, 0.0)
    return flat, Problem(problem.y.reshape(n, outputs), starts[0], problem.k_test, starts[1], coupled=True)


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
    residual = (problem.y - problem.f0).reshape(-1 if problem.coupled else len(problem.y), 1 if problem.coupled else -1)
    modes, error = excited_modes(k, residual, law, method, tolerance, progress)
    shape, shape_test = ((len(law.time), *f.shape) for f in (problem.f0, problem.f0_test))
    grown, coefficients = law.growth(modes.values), law.coefficients(modes.values)
    train = problem.f0 + modes.combined(grown, modes.basis).reshape(shape)
    test = None
    if problem.k_test is not None:
        moved = modes.combined(coefficients, _multiply(problem.k_test, modes.basis))
        test = problem.f0_test + moved.reshape(shape_test)
    # The squared displacement is c' K c, for the coefficients c in f = f_0 + K c.
    displacement = np.sqrt(np.sum(grown * coefficients * np.sum(modes.weights**2, axis=1), axis=1))
    return Trajectory(law.time, train, test, law.step, error, displacement)


@allow_overflow
def trajectory_from_coefficients(
    k: DenseKernel,
    problem: Problem,
    law: Law,
    coefficients: np.ndarray,
    truncation: float,
    origin: Origin | None = None,
    shares: np.ndarray | None = None,
) -> Trajectory:
    """Compute the trajectory from coefficients of shape (s, n, ...), using one product with each kernel.

    With weight decay, the shares b of theta_0 at each time are given too, shape (s,).
    """

    def predict(kernel: np.ndarray | CrossOperator) -> np.ndarray:
        if problem.coupled:
            product = _multiply(kernel, coefficients.reshape(len(coefficients), -1).T)
            return product.T.reshape(len(coefficients), -1, *coefficients.shape[2:])
        columns = np.moveaxis(coefficients, 0, -1)
        product = _multiply(kernel, columns.reshape(len(columns), -1))
        return np.moveaxis(product.reshape(len(product), *columns.shape[1:]), -1, 0)

    moved = predict(k.matrix)
    moved_test = None if problem.k_test is None else predict(problem.k_test)
    # The squared displacement is c' K c, plus the terms that involve theta_0.
    squares = np.sum((coefficients * moved).reshape(len(moved), -1), axis=1)
    if origin is not None and shares is not None:
        along = np.sum((coefficients * origin.train).reshape(len(moved), -1), axis=1)
        squares = squares + 2 * shares * along + (shares * origin.norm) ** 2
        moved = moved + np.multiply.outer(shares, origin.train)
        if moved_test is not None:
            moved_test = moved_test + np.multiply.outer(shares, np.asarray(origin.test))
    error = k.error(coefficients, moved, truncation)
    test = None if moved_test is None else problem.f0_test + moved_test
    displacement = np.sqrt(np.maximum(squares, 0))
    return Trajectory(law.time, problem.f0 + moved, test, law.step, error, displacement)


def _multiply(kernel: np.ndarray | CrossOperator, v: np.ndarray) -> np.ndarray:
    return kernel.product(v) if isinstance(kernel, CrossOperator) else kernel @ v
