"""What a fixed kernel predicts of training: with the squared loss every time at once, with any other step by step.

With K = sum_i lambda_i v_i v_i' and residual r_0 = y - f_0, the residual along v_i shrinks by a factor d_i: descent
has d_i(k) = (1 - eta lambda_i)^k, flow has d_i(t) = exp(-t lambda_i) (Arora et al. 2019, Theorem 4.1; Lee et al. 2019,
section 2.2, here for the sum over examples of half the squared error). Small kernels are diagonalized; of a large one
the Lanczos process finds the few modes that r_0 excites (see `lazynet.dynamics._modes`). Other losses and mini-batches
couple the modes: see `lazynet.dynamics._coefficients`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from lazynet.dynamics._coefficients import check_batches, check_targets_of, descend, whole
from lazynet.dynamics._flow import flow
from lazynet.dynamics._laws import Law
from lazynet.dynamics._modes import TOLERANCE
from lazynet.dynamics._trajectory import Trajectory, by_coefficients, by_modes, start_of
from lazynet.kernels import CrossOperator, KernelOperator, Spectrum
from lazynet.kernels._krylov import check_tolerance
from lazynet.losses import Loss, get_loss, squared
from lazynet.typing import AnyArray, SquareKernel, Targets


def kernel_descent(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    *,
    learning_rate: float,
    steps: int | Sequence[int] | np.ndarray,
    loss: str | Loss = "squared",
    momentum: float = 0.0,
    batches: AnyArray | None = None,
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predictions of descent u <- u - eta K grad L(u) from u(0) = f0, for the squared loss u <- u - eta K (u - y).

    Arora et al. 2019, section 4: u~(k+1) = u~(k) - eta H (u~(k) - y). Momentum is that of `optax.sgd`: with g the
    gradient in the parameters, v <- mu v + g and theta <- theta - eta v. The squared loss on the full batch gives all
    steps at once; any other loss, and mini-batches, take a product with K, or with its rows of the batch, each.

    Args:
        k: kernel on the training set (n, n), its `lazynet.kernels._spectrum`, or a `lazynet.kernel_operator`.
        y: targets (n,) or (n, k), as the loss takes them.
        learning_rate: eta, for the loss 1/2 sum ||f - y||^2 or the given one with its own sum or mean.
        steps: the number of steps, which gives every step from 0 on, or the steps wanted.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        momentum: mu, from 0 to below 1.
        batches: the examples of each step in their order, whole numbers (steps, B); the gradient of a summed loss is
            scaled by n / B. Left out, all examples at every step.
        f0: prediction on the training set at the start, a number or shaped as y.
        k_test: kernel between test and training inputs, (n_test, n), or a `lazynet.kernels.CrossOperator`.
        f0_test: prediction on the test set at the start.
        method: "exact" by all eigenvalues and eigenvectors, "krylov" by products with K alone. Left out, "exact" up to
            1000 examples, where it is about as fast. Only for the squared loss on the full batch.
        tolerance: of "krylov": the error to reach, relative to norm(y - f0). Left out, 1e-5, and 1e-4 for a kernel
            stored in float32. Where it cannot be reached, a warning says why, and `Trajectory.error` by how much.
        progress: is called with the number of products and the truncation error as they go on.

    Returns:
        Trajectory of NumPy float64 arrays; time is eta * step whatever the momentum.

    Raises:
        ValueError: if shapes do not fit, the kernel is not a finite symmetric matrix or has a negative eigenvalue, the
            learning rate is not positive and finite (for "krylov" also if descent diverges), a step is negative, the
            tolerance is not positive, loss, momentum or batches are not as above, or a kernel that has to be whole
            does not fit in memory.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_descent(np.eye(2), np.ones(2), learning_rate=0.5, steps=2).train[:, 0]
    array([0.  , 0.5 , 0.75])
    >>> lz.kernel_descent(np.eye(2), np.ones(2), learning_rate=0.5, steps=2, batches=np.array([[0], [0]])).train[2]
    array([1., 0.])
    """
    check_learning_rate(learning_rate)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be at least 0 and below 1.")
    loss = get_loss(loss)
    steps = np.arange(steps + 1) if isinstance(steps, int | np.integer) else np.asarray(steps)
    if steps.ndim != 1 or not steps.size or (steps < 0).any() or (steps != np.round(steps)).any():
        raise ValueError("steps must be a number of steps, or a list of steps that are whole and not negative.")
    if steps.max() > np.iinfo(np.int64).max / 2:
        raise ValueError(f"steps has {steps.max():g}, which is more than can be counted.")
    steps = steps.astype(np.int64)
    law = Law(learning_rate * steps, steps, learning_rate, momentum)
    start = start_of(k, y, f0, k_test, f0_test)
    if loss == squared() and batches is None:
        return by_modes(k, start, law, method, tolerance, progress)
    for name, value in (("method", method), ("tolerance", tolerance)):
        if value is not None:
            raise ValueError(
                f"{name} is {value!r}, but only the squared loss on the full batch has a choice; leave {name} out."
            )
    check_targets_of(loss, start.y)
    if batches is not None:
        batches = check_batches(batches, len(start.y), int(steps.max()))
    kernel = whole(k)
    found = descend(kernel, start.y, start.f0, loss, learning_rate, momentum, batches, steps, progress)
    return by_coefficients(kernel, start, law, found, 0.0)


def kernel_flow(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    *,
    times: Sequence[float] | np.ndarray,
    loss: str | Loss = "squared",
    f0: float | AnyArray = 0.0,
    k_test: Float[AnyArray, "n_test n"] | CrossOperator | None = None,
    f0_test: float | AnyArray = 0.0,
    method: Literal["exact", "krylov"] | None = None,
    tolerance: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    """Predictions of gradient flow du/dt = -K grad L(u) from u(0) = f0, for the squared loss du/dt = -K (u - y).

    Lee et al. 2019, section 2.2. Arguments, result and errors are those of `kernel_descent`; `times` (s,) are
    not negative, and t = eta k is the time of step k. A loss other than the squared one is followed by diffrax until
    two solutions agree to `tolerance`, relative to the largest norm(u - f0). Hinge has no gradient where y f = 1: jax's
    is taken, predictions that stay on that edge chatter about it, and a tolerance below about 1e-3 may end in the
    warning.

    >>> import numpy as np, lazynet as lz
    >>> lz.kernel_flow(np.eye(1), np.ones(1), times=[0.0, np.log(2)]).train[:, 0]
    array([0. , 0.5])
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("times must be a list of finite times that are not negative.")
    loss, law = get_loss(loss), Law(times)
    start = start_of(k, y, f0, k_test, f0_test)
    if loss == squared():
        return by_modes(k, start, law, method, tolerance, progress)
    if method is not None:
        raise ValueError(f"method is {method!r}, but only the squared loss has a choice; leave method out.")
    check_tolerance(tolerance)
    check_targets_of(loss, start.y)
    kernel = whole(k)
    allowed = tolerance or TOLERANCE["float32" if kernel.rounding else "float64"]
    found, truncation = flow(kernel, start.y, start.f0, loss, times, allowed, progress)
    path = by_coefficients(kernel, start, law, found, truncation)
    if not path.error.total <= allowed:
        warnings.warn(
            f"Predictions may be wrong by {path.error.total:.1e} of the largest norm(u - f0), above the tolerance "
            f"{allowed:.1e}: {path.error.truncation:.1e} of it from steps in time, {path.error.storage:.1e} from "
            "rounding.",
            stacklevel=2,
        )
    return path


def check_learning_rate(learning_rate: float) -> None:
    """Refuse a learning rate that is not positive and finite."""
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}, but must be positive and finite.")
