"""Mean and covariance, over initializations, of the outputs of infinitely wide networks at any training time.

In the limit of infinite width, the initial outputs f_0 form a Gaussian process, and the outputs under gradient flow are
linear in f_0: f_t = f_0 + A(t) (y - f_0(train)) with A(t) = K_test K^-1 (I - exp(-tK)). Hence f_t is Gaussian too. On
the training set, I - A(t) = exp(-tK).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.arguments import check_number
from lazynet.display import displayed
from lazynet.dynamics._laws import Law, allow_overflow, zero_below_rounding
from lazynet.dynamics._modes import check_not_negative
from lazynet.dynamics._prediction import check_learning_rate, checked_times
from lazynet.dynamics._trajectory import check_test_kernel, real_kernel
from lazynet.kernels import KernelOperator, Spectrum, check_kernel, check_targets, spectrum
from lazynet.plan import available_memory, check_fits
from lazynet.typing import AnyArray, SquareKernel, Targets


@displayed
class Ensemble(NamedTuple):
    """Mean and covariance, over initializations, of predictions at s times, as NumPy float64 arrays.

    If there are several outputs, they are independent and have the same covariance.

    Attributes:
        time: Times, shape (s,).
        train_mean: Mean on the training set, shape (s, n) or (s, n, k).
        train_covariance: Covariance on the training set, shape (s, n, n).
        test_mean: Mean on the test set, shape (s, n_test) or (s, n_test, k), or None if there is no test kernel.
        test_covariance: Covariance on the test set, shape (s, n_test, n_test), or None if there is no test kernel.

    >>> import numpy as np, lazynet as lz
    >>> ensemble = lz.kernel_ensemble(np.eye(3), np.ones(3), times=[0.0, 1.0], start_covariance=np.eye(3))
    >>> ensemble.train_mean.shape, ensemble.train_covariance.shape
    ((2, 3), (2, 3, 3))
    """

    time: Float[np.ndarray, " s"]
    train_mean: np.ndarray
    train_covariance: Float[np.ndarray, "s n n"]
    test_mean: np.ndarray | None
    test_covariance: Float[np.ndarray, "s n_test n_test"] | None


def kernel_ensemble(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    *,
    times: Sequence[float] | np.ndarray,
    start_covariance: Float[AnyArray, "rows rows"],
    k_test: Float[AnyArray, "n_test n"] | None = None,
    learning_rate: float | None = None,
    ridge: float = 0.0,
) -> Ensemble:
    """Predict the mean and covariance, over initializations, of the outputs of infinitely wide networks.

    The loss is half the squared error, summed over examples. Let S be the covariance of the initial outputs (the NNGP
    kernel) and A = K_test K^-1 (I - exp(-tK)). On the test set, the mean is A y and the covariance is
    S_test,test + A S_train,train A' - A S_train,test - (A S_train,test)'. On the training set, the mean is
    (I - exp(-tK)) y and the covariance is exp(-tK) S_train,train exp(-tK) (Lee et al. 2019, section 2.3.2). For
    full-batch gradient descent with learning rate eta, (I - eta K)^(t / eta) replaces exp(-tK).

    With a ridge beta, each network is trained with the penalty 1/2 beta ||theta - theta_0||^2. Let B = K + beta I. Then
    A = K_test B^-1 (I - exp(-tB)) on the test set, and B^-1 (beta I + K exp(-tB)) replaces exp(-tK) on the training
    set. For gradient descent, (I - eta B)^(t / eta) replaces exp(-tB).

    At infinite time, the result describes fully trained networks. If only the readout is trained, then K = S, and
    without a ridge the result at infinite time is the posterior of noise-free Bayesian inference. With a ridge, it is
    not a posterior, because the penalty pulls each network back to its own initial function. For the posterior with
    noise, see `lazynet.kernel_posterior`. Modes whose eigenvalue is zero up to rounding are never
    learned.

    For a `TwoLayer` network with `symmetric=False`, S is the matrix of the kernel
    `analytic_kernel(network.clone(train="readout"))`. With symmetric initialization, all initial outputs are zero, so
    the covariance is zero and `kernel_flow` predicts the mean.

    Args:
        k: Kernel on the training set: a matrix of shape (n, n), its `Spectrum`, or a `lazynet.kernel_operator`.
        y: Targets, shape (n,) or (n, k).
        times: Nonnegative times, shape (s,). Infinity stands for the limit of gradient flow. Step k of gradient descent
            corresponds to time eta k.
        start_covariance: Covariance S of the initial outputs on the training rows followed by the test rows, shape
            (n + n_test, n + n_test).
        k_test: Kernel between test and training inputs, shape (n_test, n).
        learning_rate: Learning rate eta of gradient descent; all times must be multiples of eta. If None, gradient flow
            is predicted.
        ridge: Coefficient beta of the ridge penalty, nonnegative.

    Returns:
        An `Ensemble` of NumPy float64 arrays.

    Raises:
        ValueError: If shapes do not match, if a time is negative or not a multiple of `learning_rate`, if `k` or
            `start_covariance` is not a finite, symmetric, positive semidefinite matrix, if any other argument is
            invalid, or if the result does not fit in memory.

    >>> import numpy as np, lazynet as lz
    >>> s = np.array([[1.0, 0.6], [0.6, 1.0]])  # one training row, one test row
    >>> ensemble = lz.kernel_ensemble(
    ...     s[:1, :1], np.ones(1), times=[0.0, np.inf], start_covariance=s, k_test=s[1:, :1]
    ... )
    >>> ensemble.test_mean[:, 0], ensemble.test_covariance[:, 0, 0]
    (array([0. , 0.6]), array([1.  , 0.64]))
    """
    times = checked_times(times, limit=True)
    ridge = check_number("ridge", ridge)
    law = Law(times, None if learning_rate is None else _steps_at(times, learning_rate), learning_rate, ridge=ridge)
    k = real_kernel(k)
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    test = np.asarray(check_test_kernel(np.zeros((0, n)) if k_test is None else k_test, n))
    start = check_kernel(start_covariance, "start_covariance")
    rows = n + len(test)
    if len(start) != rows:
        raise ValueError(
            f"start_covariance must have shape ({rows}, {rows}) for {n} training and {len(test)} test rows, got shape "
            f"{start.shape}."
        )
    required = 8 * (len(times) * (n**2 + len(test) ** 2) + 6 * rows**2)
    check_fits(f"An ensemble of {rows} rows at {len(times)} times", required, available_memory())
    if not isinstance(k, Spectrum):
        k = spectrum(k.dense() if isinstance(k, KernelOperator) else k)
    check_not_negative(k.values)
    check_not_negative(scipy.linalg.eigvalsh(start, check_finite=False), "start_covariance")

    values = zero_below_rounding(k.values, n)
    remaining, learned, inverse = _fractions(law, values)
    images = test @ k.vectors
    weights = (k.vectors.T @ y).reshape(1, n, -1)
    train_mean = (k.vectors @ (learned[..., None] * weights)).reshape(len(times), *y.shape)
    test_mean = (images @ (inverse[..., None] * weights)).reshape(len(times), len(test), *y.shape[1:])
    # Covariance of the initial outputs along the modes of K: within the training set, and between the training and test
    # sets.
    start_train = k.vectors.T @ start[:n, :n] @ k.vectors
    start_cross = k.vectors.T @ start[:n, n:]
    train_covariance, test_covariance = np.empty((len(times), n, n)), np.empty((len(times), len(test), len(test)))
    for i in range(len(times)):
        e, a = k.vectors * remaining[i], images * inverse[i]
        train_covariance[i] = _symmetrize(e @ start_train @ e.T)
        test_covariance[i] = _symmetrize(start[n:, n:] + a @ start_train @ a.T - 2 * (a @ start_cross))
    if k_test is None:
        return Ensemble(times, train_mean, train_covariance, None, None)
    return Ensemble(times, train_mean, train_covariance, test_mean, test_covariance)


@allow_overflow
def _fractions(law: Law, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unlearned fraction, the learned fraction, and the latter over the eigenvalue, each of shape (s, n)."""
    return law.remaining(values), law.growth(values), law.coefficients(values)


def _steps_at(times: np.ndarray, learning_rate: float) -> np.ndarray:
    """Return the gradient-descent steps that correspond to the given times."""
    check_learning_rate(learning_rate)
    if not np.isfinite(times).all():
        raise ValueError(
            "times must be finite for gradient descent, got inf. For the gradient-flow limit, omit learning_rate."
        )
    steps = np.round(times / learning_rate)
    between = ~np.isclose(steps * learning_rate, times, rtol=1e-9, atol=0)
    if between.any():
        raise ValueError(f"times must be multiples of learning_rate = {learning_rate}, got {times[between][0]}.")
    return steps.astype(np.int64)


def _symmetrize(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
