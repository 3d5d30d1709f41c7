"""Components of the residual along the eigenvectors of a kernel."""

import numpy as np
from jaxtyping import Float

from lazynet.arrays import float64_array
from lazynet.kernels import Spectrum
from lazynet.typing import AnyArray, Targets


def residual_modes(
    k: Spectrum, y: Targets, u: Float[AnyArray, "s n"] | Float[AnyArray, "s n k"]
) -> Float[np.ndarray, "s n"] | Float[np.ndarray, "s n k"]:
    """Return the components v_i . (y - u) of the residual along the eigenvectors v_i of a kernel.

    The squares of the components sum to ||y - u||^2 (Arora et al. 2019, Theorem 4.1).

    Args:
        k: Spectrum of the kernel on the training set.
        y: Targets, shape (n,) or (n, k).
        u: Predictions on the training set at s snapshots, shape (s, n) or (s, n, k).

    Returns:
        Components in descending order of eigenvalue, as a NumPy float64 array with the shape of `u`.
    """
    residual = float64_array("y", y) - float64_array("u", u)
    return np.moveaxis(np.tensordot(residual, k.vectors[:, ::-1], axes=(1, 0)), -1, 1)
