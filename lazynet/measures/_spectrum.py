"""Singular values of weights and of what training has added to them."""

import numpy as np
from jaxtyping import Float

from lazynet.typing import AnyArray


def singular_values(a: Float[AnyArray, "m d"]) -> Float[np.ndarray, " r"]:
    """Singular values of a matrix from the largest down, min(m, d) of them, NumPy float64.

    Of the update W - W_0 and of W itself: Li and Liang 2018, Figures 1 (d) and 2 (d).
    """
    return np.linalg.svd(np.asarray(a, np.float64), compute_uv=False)


def leading_values(values: Float[AnyArray, " r"]) -> int:
    """How many singular values stand before the largest drop, s_i / s_(i+1), from one to the next.

    Of values below the rounding of float32, 1e-7 of the largest, nothing is said.

    >>> leading_values(np.array([5.0, 4.0, 0.1, 0.09]))
    2
    """
    seen = np.asarray(values, np.float64)
    seen = seen[seen > 1e-7 * seen[0]]
    return int(np.argmax(seen[:-1] / seen[1:])) + 1 if len(seen) > 1 else len(seen)


def effective_rank(values: Float[AnyArray, " r"]) -> float:
    """exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j (Roy and Vetterli 2007, definition 1): from 1 to r.

    NaN where all are zero.

    >>> round(effective_rank(np.array([3.0, 3.0, 0.0])), 6)
    2.0
    """
    values = np.asarray(values, np.float64)
    if not values.any():
        return np.nan
    p = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(p * np.log(p))))
