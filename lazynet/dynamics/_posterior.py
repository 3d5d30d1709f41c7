"""Bayesian inference with a Gaussian process whose covariance is a kernel."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.arguments import check_number
from lazynet.display import displayed
from lazynet.dynamics._trajectory import check_test_kernel
from lazynet.kernels import check_kernel, check_targets
from lazynet.typing import AnyArray, SquareKernel, Targets


@displayed
class Posterior(NamedTuple):
    """Mean and covariance of a Gaussian process on the test set, given noisy targets, as NumPy float64 arrays.

    Several outputs are independent and share one covariance.

    Attributes:
        mean: Mean, shape (n_test,) or (n_test, k).
        covariance: Covariance of the function values, without the noise, shape (n_test, n_test).

    >>> import numpy as np, lazynet as lz
    >>> s = np.eye(3)
    >>> posterior = lz.kernel_posterior(s[:2, :2], np.ones(2), noise=0.1, k_test=s[2:, :2], k_test_test=s[2:, 2:])
    >>> posterior.mean.shape, posterior.covariance.shape
    ((1,), (1, 1))
    """

    mean: np.ndarray
    covariance: Float[np.ndarray, "n_test n_test"]


def kernel_posterior(
    k: SquareKernel,
    y: Targets,
    *,
    noise: float,
    k_test: Float[AnyArray, "n_test n"],
    k_test_test: Float[AnyArray, "n_test n_test"],
) -> Posterior:
    """Compute the posterior of a Gaussian process with covariance K, given targets with independent Gaussian noise.

    With noise of variance beta, the mean is K_test (K + beta I)^-1 y and the covariance is
    K_test,test - K_test (K + beta I)^-1 K_test' (Rasmussen and Williams 2006, equations (2.23) and (2.24)). The mean
    equals that of infinitely wide networks trained to convergence with the ridge beta, if K is their tangent kernel and
    their mean output is initially zero. The covariance generally differs from that of `lazynet.kernel_ensemble` at
    infinite time with this ridge. The two are equal if beta = 0 and K is also the covariance of the initial outputs.

    Args:
        k: Covariance on the training set, shape (n, n). For Bayesian inference with an infinitely wide network, this is
            the NNGP kernel, such as the `analytic_kernel` of a `TwoLayer` network with `train="readout"`.
        y: Targets, shape (n,) or (n, k).
        noise: Variance beta of the noise, in squared units of the targets, nonnegative.
        k_test: Covariance between test and training inputs, shape (n_test, n).
        k_test_test: Covariance on the test set, shape (n_test, n_test).

    Returns:
        A `Posterior` of NumPy float64 arrays.

    Raises:
        ValueError: If shapes do not match, if a covariance is not a finite, symmetric matrix, if `noise` is negative,
            or if K + beta I is not positive definite.

    >>> import numpy as np, lazynet as lz
    >>> s = np.array([[1.0, 0.6], [0.6, 1.0]])  # one training row, one test row
    >>> posterior = lz.kernel_posterior(s[:1, :1], np.ones(1), noise=0.5, k_test=s[1:, :1], k_test_test=s[1:, 1:])
    >>> posterior.mean, posterior.covariance[0]
    (array([0.4]), array([0.76]))
    """
    k, noise = check_kernel(k, "k"), check_number("noise", noise)
    y = check_targets(y, len(k))
    test, between = np.asarray(check_test_kernel(k_test, len(k))), check_kernel(k_test_test, "k_test_test")
    if len(between) != len(test):
        raise ValueError(f"k_test_test must have shape ({len(test)}, {len(test)}), got shape {between.shape}.")
    shifted = k + noise * np.eye(len(k))
    try:
        half = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"k must be positive definite after adding noise = {noise:g} to its diagonal, but it is not."
        ) from None
    targets, rows = (scipy.linalg.solve_triangular(half, a, lower=True) for a in (y.reshape(len(k), -1), test.T))
    covariance = between - rows.T @ rows
    return Posterior((rows.T @ targets).reshape(len(test), *y.shape[1:]), (covariance + covariance.T) / 2)
