"""Mean and covariance over initializations of what infinitely wide networks predict, at every time of training.

In the limit of infinite width the outputs at the start are a Gaussian process, and the flow that follows is linear in
them: f_t = f_0 + A(t) (y - f_0(train)), A(t) = K_test K^-1 (I - exp(-tK)), so that f_t is Gaussian too. On the training
set I - A(t) is exp(-tK).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.dynamics._laws import descent_growth, descent_residual, over_eigenvalue
from lazynet.dynamics._modes import check_not_negative
from lazynet.dynamics._prediction import check_learning_rate
from lazynet.kernels import KernelOperator, Spectrum, spectrum
from lazynet.kernels._spectrum import check_kernel, check_targets
from lazynet.plan import available_memory, check_fits
from lazynet.typing import AnyArray, SquareKernel, Targets


class Ensemble(NamedTuple):
    """Mean and covariance of predictions over initializations at s times, NumPy float64.

    Attributes:
        time: (s,).
        train_mean: (s, n) or (s, n, k).
        train_covariance: (s, n, n), the same for each of several outputs, which are independent.
        test_mean: (s, n_test) or (s, n_test, k); None where no test kernel was given.
        test_covariance: (s, n_test, n_test); None where no test kernel was given.

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
) -> Ensemble:
    """Mean and covariance over random starts of infinitely wide networks under gradient flow on the squared loss.

    With S the covariance of the outputs at the start (the NNGP kernel) and A = K_test K^-1 (I - exp(-tK)), the mean is
    A y and the covariance S_test,test + A S A' - A S_train,test - (A S_train,test)'; on the training set they are
    (I - exp(-tK)) y and exp(-tK) S exp(-tK). Lee et al. 2019, section 2.3.2, here for the sum over examples of half
    the squared error. At infinite time this is the NTK posterior, and where only the readout is trained, so that
    K = S, it is the NNGP posterior: the Bayesian one. Under full-batch descent at learning rate eta exp(-tK) is
    (I - eta K)^(t / eta).

    A `TwoLayer` network with `symmetric=False` has S = `analytic_kernel(network.clone(train="readout"))`. With a
    symmetric start its outputs begin at zero: they have no spread, and `kernel_flow` says all.

    Args:
        k: kernel on the training set (n, n), its `lazynet.kernels._spectrum`, or a `lazynet.kernel_operator`.
        y: targets (n,) or (n, k).
        times: (s,) times that are not negative, t = eta k for step k of a small learning rate; `inf` for the limit.
            Modes whose eigenvalue is zero to rounding are never learned, not in the limit either.
        start_covariance: S of the training rows followed by the test rows, (n + n_test, n + n_test).
        k_test: kernel between test and training inputs, (n_test, n).
        learning_rate: of descent, whose `times` are eta times whole numbers of steps; flow when left out.

    Returns:
        Ensemble of NumPy float64 arrays.

    Raises:
        ValueError: if shapes do not fit, a time is negative or between two steps, a kernel or S is not a finite
            symmetric matrix or has a negative eigenvalue, or the memory does not suffice.

    >>> import numpy as np, lazynet as lz
    >>> s = np.array([[1.0, 0.6], [0.6, 1.0]])  # one training row, one test row
    >>> ensemble = lz.kernel_ensemble(
    ...     s[:1, :1], np.ones(1), times=[0.0, np.inf], start_covariance=s, k_test=s[1:, :1]
    ... )
    >>> ensemble.test_mean[:, 0], ensemble.test_covariance[:, 0, 0]
    (array([0. , 0.6]), array([1.  , 0.64]))
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not times.size or not (times >= 0).all():
        raise ValueError("times must be a list of times that are not negative; inf is the limit.")
    descent = None if learning_rate is None else (learning_rate, _whole_steps(times, learning_rate))
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    test = np.zeros((0, n)) if k_test is None else np.asarray(k_test, np.float64)
    if test.ndim != 2 or test.shape[1] != n or not np.isfinite(test).all():
        raise ValueError(f"k_test has shape {test.shape}, but must be a finite matrix (n_test, {n}).")
    start = check_kernel(start_covariance, "start_covariance")
    rows = n + len(test)
    if len(start) != rows:
        raise ValueError(
            f"start_covariance has shape {start.shape}, but {n} training and {len(test)} test rows ask for "
            f"({rows}, {rows})."
        )
    needed = 8 * (len(times) * (n**2 + len(test) ** 2) + 6 * rows**2)
    check_fits(f"An ensemble of {rows} rows at {len(times)} times", needed, available_memory())
    if not isinstance(k, Spectrum):
        k = spectrum(k.dense() if isinstance(k, KernelOperator) else k)
    check_not_negative(k.values)
    check_not_negative(scipy.linalg.eigvalsh(start, check_finite=False), "start_covariance")

    shares = _shares(k.values, times) if descent is None else _shares_of_descent(k.values, *descent)
    left, learned, inverse = shares
    images = test @ k.vectors
    weights = (k.vectors.T @ y).reshape(1, n, -1)
    train_mean = (k.vectors @ (learned[..., None] * weights)).reshape(len(times), *y.shape)
    test_mean = (images @ (inverse[..., None] * weights)).reshape(len(times), len(test), *y.shape[1:])
    # The start along the modes of K, on the training set and between it and the test set.
    among = k.vectors.T @ start[:n, :n] @ k.vectors
    across = k.vectors.T @ start[:n, n:]
    train_covariance, test_covariance = np.empty((len(times), n, n)), np.empty((len(times), len(test), len(test)))
    for i in range(len(times)):
        e, a = k.vectors * left[i], images * inverse[i]
        train_covariance[i] = _symmetric(e @ among @ e.T)
        test_covariance[i] = _symmetric(start[n:, n:] + a @ among @ a.T - 2 * (a @ across))
    if k_test is None:
        return Ensemble(times, train_mean, train_covariance, None, None)
    return Ensemble(times, train_mean, train_covariance, test_mean, test_covariance)


def _shares(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each mode at each time (s, n): exp(-t lambda), 1 - exp(-t lambda), and the latter over lambda."""
    # A kernel has no negative eigenvalue, but its rounded entries may.
    values = np.maximum(values, 0)
    rounding = max(len(values) * np.finfo(float).eps * values.max(), np.finfo(float).tiny)
    # From here on rounding would decide what is learned of eigenvalues that it cannot tell from zero.
    endless = times >= 1 / rounding
    finite = np.where(endless, 0, times)
    exponent = np.outer(finite, values)
    exponent[endless] = np.where(values > rounding, np.inf, 0)
    learned = -np.expm1(-exponent)
    return np.exp(-exponent), learned, over_eigenvalue(learned, values, finite)


def _whole_steps(times: np.ndarray, learning_rate: float) -> np.ndarray:
    """The steps of descent at these times."""
    check_learning_rate(learning_rate)
    if not np.isfinite(times).all():
        raise ValueError("times must be finite for descent; leave learning_rate out for the limit.")
    steps = np.round(times / learning_rate)
    if not np.allclose(steps * learning_rate, times, rtol=1e-9, atol=0):
        raise ValueError("times must be learning_rate times whole numbers of steps.")
    return steps.astype(np.int64)


def _shares_of_descent(
    values: np.ndarray, learning_rate: float, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of descent: (1 - eta lambda)^k, with its sign, what is learned, and the latter over lambda."""
    values = np.maximum(values, 0)
    learned = descent_growth(values, learning_rate, steps)
    left = descent_residual(values, learning_rate, steps, 0.0)
    return left, learned, over_eigenvalue(learned, values, learning_rate * steps)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
