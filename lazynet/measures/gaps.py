"""Distances between kernels and between predictions, and the error of a classifier; NumPy or traced."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.typing import AnyArray


def relative_distance(k: AnyArray, reference: AnyArray) -> Array:
    """||K - K_0|| / ||K_0|| in the Frobenius norm (Lee et al. 2019, Figure 1), a scalar."""
    return jnp.sqrt(jnp.sum((k - reference) ** 2) / jnp.sum(reference**2))


def rms(difference: np.ndarray, axes: int) -> np.ndarray:
    """Root mean square over the last `axes` axes."""
    return np.asarray(np.sqrt(np.mean(difference**2, axis=tuple(range(-axes, 0)))))


def zero_one_error(f: AnyArray, y: AnyArray) -> np.ndarray:
    """Share of misclassified examples: mean(y f <= 0) for one output, mean(argmax differs) for more.

    Args:
        f: predictions (..., n) for targets (n,), or (..., n, k) for targets (n, k).
        y: targets +-1, or rows that are largest at the true class.
    """
    if np.ndim(y) == 1:
        return np.asarray(np.mean(np.asarray(y) * np.asarray(f) <= 0, axis=-1))
    return np.asarray(np.mean(np.argmax(f, axis=-1) != np.argmax(y, axis=-1), axis=-1))
