"""Training dynamics predicted with a fixed kernel: in closed form for the squared loss, step by step for other losses.

The squared loss is half the squared error, summed over examples. Let K = sum_i lambda_i v_i v_i', and let r_0 = y - f_0
be the initial residual. For the squared loss, the residual along v_i is multiplied by (1 - eta lambda_i)^k in k steps
of gradient descent without momentum, and by exp(-t lambda_i) in gradient flow up to time t (Arora et al. 2019, Theorem
4.1; Lee et al. 2019, section 2.2). Small kernels are diagonalized. For large kernels, the Lanczos process computes the
few modes that r_0 excites (`lazynet.dynamics._modes`). Other losses and mini-batches couple the modes, so training is
followed step by step (`lazynet.dynamics._coefficients` and `lazynet.dynamics._flow`).
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from lazynet.arguments import check_callback, check_flag, check_number, described
from lazynet.arrays import float64_array, real_array
from lazynet.dynamics._coefficients import Decay, check_batches, decay_shares, dense_kernel, descent_coefficients
from lazynet.dynamics._flow import flow_coefficients
from lazynet.dynamics._laws import Law
from lazynet.dynamics._modes import TOLERANCE
from lazynet.dynamics._trajectory import (
    AnyKernel,
    Origin,
    Problem,
    Trajectory,
    trajectory_from_coefficients,
    trajectory_from_modes,
    validated,
)
from lazynet.kernels import CrossOperator, check_tolerance
from lazynet.losses import Loss, get_loss, squared
from lazynet.plan import check_memory
from lazynet.programs import entry
from lazynet.typing import AnyArray, Targets


@entry
def kernel_descent(
    k: AnyKernel,
    y: Targets,
    *,
    learning_rate: float,
    steps: int | Sequence[int] | np.ndarray,
    loss: str | Loss = "squared",
    momentum: float = 0.0,
    nesterov: bool = False,
    ridge: float = 0.0,
    weight_decay: float = 0.0,
    origin: Origin | None = None,
    batches: AnyArray | None = None,
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | Float[AnyArray, "n_test k n k"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predict gradient descent with a fixed kernel; in the simplest case, u <- u - eta K grad L(u) from u(0) = f0.

    The predictions are the outputs of a linear model with kernel K whose parameters are trained by gradient descent.

    For the squared loss, the iteration is u(j+1) = u(j) - eta K (u(j) - y) (Arora et al. 2019, section 4). All steps
    are computed at once in closed form, and eigenvalues that are zero up to rounding are set to zero. For other losses,
    Nesterov momentum, weight decay or mini-batches, each step costs one product with K, or with the rows of K that
    belong to the batch. Momentum follows `optax.sgd`: v <- mu v + g and theta <- theta - eta v, where g is the gradient
    with respect to the parameters. With Nesterov momentum, theta <- theta - eta (g + mu v).

    A ridge beta adds the penalty 1/2 beta ||theta - theta_0||^2 to the loss, so g includes beta (theta - theta_0). With
    u = f_0 + K c and the squared loss, a step without momentum is c <- c - eta (f_0 + K c - y + beta c). It converges
    to kernel ridge regression, f_0 + K (K + beta I)^-1 (y - f_0). Weight decay w pulls the parameters toward zero: it
    adds w theta to g. It requires Z theta_0 and norm(theta_0), given by `origin`, where Z is the Jacobian of the linear
    model.

    Args:
        k: Kernel on the training set: a matrix of shape (n, n), its `Spectrum`, or a `lazynet.kernel_operator`; or a
            kernel that couples the outputs, shape (n, outputs, n, outputs).
        y: Targets, shape (n,) or (n, outputs), in the form that the loss expects.
        learning_rate: Learning rate eta. The squared loss is 1/2 sum_i ||f_i - y_i||^2; any other loss is summed or
            averaged over examples, as its `reduction` specifies.
        steps: Either the number of steps, in which case all steps from 0 up to that number are predicted, or an
            integer array of shape (s,) that lists the steps to predict.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        momentum: Momentum mu, at least 0 and below 1.
        nesterov: Whether to use Nesterov momentum. Requires a positive `momentum`.
        ridge: Coefficient beta of the penalty, nonnegative. The penalty is added to the sum of the losses over
            examples, or to their mean for a loss that is a mean. It is not rescaled in mini-batches.
        weight_decay: Factor w of the weight decay, nonnegative.
        origin: `lazynet.Origin` of the linear model, which weight decay requires.
        batches: Indices of the examples in each step's batch, an integer array of shape (number of steps, B). The
            gradient of a summed loss is scaled by n / B. Defaults to the full batch.
        f0: Initial prediction on the training set, a number or an array with the same shape as y.
        k_test: Kernel between test and training inputs, shape (n_test, n), or a `lazynet.kernels.CrossOperator`. If
            `k` couples the outputs, the shape is (n_test, outputs, n, outputs).
        f0_test: Initial prediction on the test set, a number or an array of shape (n_test,) or (n_test, outputs).
        method: "exact" to diagonalize the kernel, or "krylov" to use only products with the kernel. Defaults to "exact"
            for a `Spectrum` and for up to 1000 examples, and to "krylov" otherwise. Allowed only for the squared loss
            on the full batch, without Nesterov momentum and weight decay.
        tolerance: Target error, relative to norm(y - f0). Defaults to 1e-5, or to 1e-4 for a kernel stored in float32.
            A warning is issued if the tolerance cannot be met; `Trajectory.error` reports the error. Allowed only
            where `method` can be given.
        progress: Function that is called repeatedly with the number of kernel products so far and the current
            truncation error.

    Returns:
        A `Trajectory` of NumPy float64 arrays. Its `time` is eta times the step, regardless of the momentum.

    Raises:
        ValueError: If shapes do not match, if the kernel is not a finite, symmetric, positive semidefinite matrix, if
            any other argument is invalid, if method "krylov" is used with a learning rate at which gradient descent
            diverges, or if a kernel that must be stored as a matrix does not fit in memory.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_descent(np.eye(2), np.ones(2), learning_rate=0.5, steps=2).train[:, 0]
    array([0.  , 0.5 , 0.75])
    >>> lz.kernel_descent(np.eye(2), np.ones(2), learning_rate=0.5, steps=2, batches=np.array([[0], [0]])).train[2]
    array([1., 0.])
    """
    learning_rate = check_number("learning_rate", learning_rate, positive=True)
    check_callback("progress", progress)
    check_number("momentum", momentum, below=1.0)
    check_flag("nesterov", nesterov)
    if nesterov and not momentum:
        raise ValueError("nesterov must be False if momentum is 0, got True.")
    ridge = check_number("ridge", ridge)
    loss = get_loss(loss)
    steps = _checked_steps(steps)
    law = Law(learning_rate * steps, steps, learning_rate, momentum, ridge)
    k, problem = validated(k, y, f0, k_test, f0_test)
    origin = _checked_origin(check_number("weight_decay", weight_decay), origin, problem)
    if loss == squared() and batches is None and not nesterov and not weight_decay:
        return trajectory_from_modes(k, problem, law, method, tolerance, progress)
    for name, value in (("method", method), ("tolerance", tolerance)):
        if value is not None:
            raise ValueError(
                f"{name} must be None unless the squared loss is used on the full batch without Nesterov momentum and "
                f"weight decay, got {value!r}."
            )
    loss.check_targets(problem.y)
    if batches is not None:
        batches = check_batches(batches, len(problem.y), int(steps.max()))
    kernel, decay = dense_kernel(k), None
    if origin is not None:
        shares = decay_shares(weight_decay, ridge, learning_rate, momentum, nesterov, int(steps.max()))
        decay = Decay(weight_decay, shares, origin.train)
    coefficients = descent_coefficients(
        kernel, problem.y, problem.f0, loss, learning_rate, momentum, nesterov, ridge, batches, decay, steps, progress
    )
    shares_at = None if decay is None else decay.shares[steps]
    return trajectory_from_coefficients(kernel, problem, law, coefficients, 0.0, origin, shares_at)


def _checked_origin(weight_decay: float, origin: Origin | None, problem: Problem) -> Origin | None:
    """Return the origin with checked arrays, or None without weight decay.

    Raises:
        ValueError: If the origin is missing or given without need, or if its arrays do not match the problem.
    """
    if not weight_decay:
        if origin is not None:
            raise ValueError(f"origin must be None if weight_decay is 0, got {described(origin)}.")
        return None
    if not isinstance(origin, Origin):
        raise ValueError(f"origin must be a lazynet.Origin if weight_decay is positive, got {described(origin)}.")
    train = float64_array("origin.train", origin.train)
    if train.shape != problem.y.shape:
        raise ValueError(f"origin.train must have the shape {problem.y.shape} of y, got shape {train.shape}.")
    if not np.isfinite(train).all():
        raise ValueError("origin.train must be finite, got NaN or infinity.")
    test = None
    if problem.k_test is not None:
        test = float64_array("origin.test", np.zeros(0) if origin.test is None else origin.test)
        if test.shape != problem.f0_test.shape:
            raise ValueError(f"origin.test must have shape {problem.f0_test.shape} to match k_test, got {test.shape}.")
        if not np.isfinite(test).all():
            raise ValueError("origin.test must be finite, got NaN or infinity.")
    return Origin(train, test, check_number("origin.norm", origin.norm))


@entry
def kernel_flow(
    k: AnyKernel,
    y: Targets,
    *,
    times: Sequence[float] | np.ndarray,
    loss: str | Loss = "squared",
    ridge: float = 0.0,
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | Float[AnyArray, "n_test k n k"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predict gradient flow with a fixed kernel, du/dt = -K grad L(u) from u(0) = f0.

    With a ridge beta, du/dt = -K grad L(u) - beta (u - f0).

    For the squared loss, du/dt = -K (u - y) is solved in closed form (Lee et al. 2019, section 2.2). Eigenvalues
    that are zero up to rounding are set to zero, so the predictions on the test set at infinite time involve the
    pseudo-inverse of K instead of its inverse. For other losses, the equation is integrated with diffrax until two
    solutions agree to within the tolerance. The hinge loss is not differentiable at y f = 1, where the gradient that
    JAX returns is used. Predictions that stay close to this point oscillate around it, and a tolerance below about 1e-3
    may be unattainable.

    Args:
        k: Kernel on the training set: a matrix of shape (n, n), its `Spectrum`, or a `lazynet.kernel_operator`; or a
            kernel that couples the outputs, shape (n, outputs, n, outputs).
        y: Targets, shape (n,) or (n, outputs), in the form that the loss expects.
        times: Nonnegative times, shape (s,), which may be infinite for the squared loss. Step j of gradient descent
            with learning rate eta corresponds to time eta j.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        ridge: Coefficient beta of the penalty 1/2 beta ||theta - theta_0||^2, nonnegative; see `kernel_descent`.
        f0: Initial prediction on the training set, a number or an array with the same shape as y.
        k_test: Kernel between test and training inputs, shape (n_test, n), or a `lazynet.kernels.CrossOperator`. If
            `k` couples the outputs, the shape is (n_test, outputs, n, outputs).
        f0_test: Initial prediction on the test set, a number or an array of shape (n_test,) or (n_test, outputs).
        method: "exact" to diagonalize the kernel, or "krylov" to use only products with the kernel. Defaults to "exact"
            for a `Spectrum` and for up to 1000 examples, and to "krylov" otherwise. Allowed only for the squared loss.
        tolerance: Target error, relative to norm(y - f0) for the squared loss and to the largest norm(u - f0) over time
            for other losses. Defaults to 1e-5, or to 1e-4 for a kernel stored in float32. A warning is issued if the
            tolerance cannot be met; `Trajectory.error` reports the error.
        progress: Function that is called repeatedly with the number of kernel products so far and the current
            truncation error.

    Returns:
        A `Trajectory` of NumPy float64 arrays. Its `step` is None.

    Raises:
        ValueError: If shapes do not match, if the kernel is not a finite, symmetric, positive semidefinite matrix, if
            any other argument is invalid, if the flow takes too many integration steps, or if a kernel that must be
            stored as a matrix does not fit in memory.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_flow(np.eye(1), np.ones(1), times=[0.0, np.log(2)]).train[:, 0]
    array([0. , 0.5])
    """
    loss = get_loss(loss)
    times = checked_times(times, limit=loss == squared())
    law = Law(times, ridge=check_number("ridge", ridge))
    k, problem = validated(k, y, f0, k_test, f0_test)
    if loss == squared():
        return trajectory_from_modes(k, problem, law, method, tolerance, progress)
    if method is not None:
        raise ValueError(f"method must be None for any loss other than the squared loss, got {method!r}.")
    check_tolerance(tolerance)
    loss.check_targets(problem.y)
    kernel = dense_kernel(k)
    allowed = tolerance or TOLERANCE["float32" if kernel.rounding else "float64"]
    coefficients, truncation = flow_coefficients(
        kernel, problem.y, problem.f0, loss, times, allowed, law.ridge, progress
    )
    trajectory = trajectory_from_coefficients(kernel, problem, law, coefficients, truncation)
    error = trajectory.error
    if not error.total <= allowed:
        warnings.warn(
            f"The predictions have an estimated error of {error.total:.1e} relative to the largest norm(u - f0), above "
            f"the tolerance of {allowed:.1e}: {error.truncation:.1e} from time stepping and {error.storage:.1e} from "
            "rounding.",
            stacklevel=2,
        )
    return trajectory


def checked_times(times: Sequence[float] | np.ndarray, limit: bool = False) -> Float[np.ndarray, " s"]:
    """Return the times as a NumPy float64 array.

    Args:
        times: Times, shape (s,).
        limit: Whether infinity is allowed.

    Raises:
        ValueError: If `times` is empty or not one-dimensional, or if a time is negative, NaN or, unless `limit` is
            true, infinite.
    """
    array = float64_array("times", times)
    allowed = (array >= 0) & (limit | (array < np.inf))
    if array.ndim != 1 or not array.size or not allowed.all():
        received = array[~allowed][0] if array.ndim == 1 and array.size else f"shape {array.shape}"
        numbers = "nonnegative numbers" if limit else "finite, nonnegative numbers"
        raise ValueError(f"times must be a nonempty list of {numbers}, got {received}.")
    return array


def _checked_steps(steps: int | Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the steps at which to make predictions, as an int64 array."""
    if isinstance(steps, int | np.integer) and not isinstance(steps, bool):
        check_memory(f"Predicting {steps} steps", 8 * int(steps))
        array = np.arange(steps + 1)
    else:
        array = real_array("steps", steps)
    allowed = (array >= 0) & (array == np.round(array))
    if array.ndim != 1 or not array.size or not allowed.all():
        received = array[~allowed][0] if array.ndim == 1 and array.size else described(steps)
        raise ValueError(
            f"steps must be a nonnegative integer or a nonempty list of nonnegative integers, got {received}."
        )
    if array.max() > np.iinfo(np.int64).max / 2:
        raise ValueError(f"steps must be at most {np.iinfo(np.int64).max // 2}, got {array.max():g}.")
    return array.astype(np.int64)


def check_learning_rate(learning_rate: float) -> None:
    """Check that a learning rate is positive and finite.

    Args:
        learning_rate: Learning rate to check.

    Raises:
        ValueError: If the learning rate is not positive and finite.
    """
    check_number("learning_rate", learning_rate, positive=True)
