"""The residual along the eigenvectors of a kernel."""

import numpy as np
from jaxtyping import Float

from lazynet.kernels import Spectrum
from lazynet.typing import AnyArray, Targets


def residual_modes(
    k: Spectrum, y: Targets, u: Float[AnyArray, "s n"] | Float[AnyArray, "s n k"]
) -> Float[np.ndarray, "s n"] | Float[np.ndarray, "s n k"]:
    """v_i'(y - u), the residual along each eigenvector from that of the largest eigenvalue down, NumPy float64.

    Arora et al. 2019, Theorem 4.1: the modes whose squares sum to ||y - u||^2.

    Args:
        k: eigenvalues and eigenvectors of the kernel on the training set.
        y: targets (n,) or (n, k).
        u: predictions on the training set at s snapshots, each shaped as y.
    """
    residual = np.asarray(y, np.float64) - np.asarray(u, np.float64)
    return np.moveaxis(np.tensordot(residual, k.vectors[:, ::-1], axes=(1, 0)), -1, 1)
