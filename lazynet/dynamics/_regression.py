"""Ridgeless kernel regression, whose predictions are the limit of training with a fixed kernel."""

import numpy as np
from jaxtyping import Float

from lazynet.arrays import float64_array
from lazynet.kernels import Spectrum, check_targets, spectrum
from lazynet.typing import AnyArray, SquareKernel, Targets


def kernel_regression(k: SquareKernel | Spectrum, y: Targets, k_test: Float[AnyArray, "n_test n"]) -> np.ndarray:
    """Return the kernel regression predictions K_test K^+ y.

    If f0 = 0, both `kernel_flow` and `kernel_descent` with a stable learning rate converge to these predictions (Jacot
    et al. 2018, section 5). Modes whose eigenvalue is zero up to rounding are never learned, so the pseudo-inverse K^+
    omits them.

    Args:
        k: Kernel on the training set, shape (n, n), or its `Spectrum`.
        y: Targets, shape (n,) or (n, k).
        k_test: Kernel between test and training inputs, shape (n_test, n).

    Returns:
        Predictions as a NumPy float64 array, shape (n_test,) or (n_test, k).

    Raises:
        ValueError: If shapes do not match, or if the kernel is not a finite symmetric matrix.

    >>> import numpy as np
    >>> from lazynet.dynamics import kernel_regression
    >>> kernel_regression(np.diag([2.0, 1.0]), np.ones(2), np.array([[1.0, 1.0]]))
    array([1.5])
    """
    if not isinstance(k, Spectrum):
        k = spectrum(k)
    y, test = check_targets(y, len(k.values)), float64_array("k_test", k_test)
    if test.ndim != 2 or test.shape[1] != len(y):
        raise ValueError(f"k_test must be a matrix of shape (n_test, {len(y)}), got shape {test.shape}.")
    rounding = len(k.values) * np.finfo(float).eps * np.abs(k.values).max()
    learned = k.values > rounding
    vectors = k.vectors[:, learned]
    modes = vectors.T @ y.reshape(len(y), -1) / k.values[learned, None]
    return (test @ (vectors @ modes)).reshape(len(test), *y.shape[1:])
