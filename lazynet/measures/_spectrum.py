"""Singular values of weights and of weight updates."""

import numpy as np
from jaxtyping import Float

from lazynet.arguments import described
from lazynet.arrays import float64_array
from lazynet.typing import AnyArray


def singular_values(a: Float[AnyArray, "m d"]) -> Float[np.ndarray, " r"]:
    """Return the singular values of a matrix.

    Figures 1(d) and 2(d) of Li and Liang 2018 show the singular values of the weight update W - W_0 and of the weights
    W.

    Args:
        a: Matrix, shape (m, d).

    Returns:
        Singular values in descending order, as a NumPy float64 array of shape (min(m, d),).

    Raises:
        ValueError: If `a` is not a nonempty matrix of finite numbers.
    """
    matrix = float64_array("a", a)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"a must be a nonempty matrix of finite numbers, got {described(a)}.")
    return np.linalg.svd(matrix, compute_uv=False)


def leading_values(values: Float[AnyArray, " r"]) -> int:
    """Return the number of singular values before the largest drop, measured by the ratio s_i / s_{i+1}.

    Values of at most 1e-7 times the largest value are ignored, because float32 rounding errors are of this order.

    Args:
        values: Singular values in descending order, shape (r,).

    Returns:
        The number of leading values.

    Raises:
        ValueError: If `values` is not a nonempty one-dimensional array of finite nonnegative numbers in
            descending order.

    >>> import numpy as np
    >>> from lazynet.measures import leading_values
    >>> leading_values(np.array([5.0, 4.0, 0.1, 0.09]))
    2
    """
    values = _check_singular_values(values)
    if (np.diff(values) > 0).any():
        raise ValueError("values must be in descending order.")
    values = values[values > 1e-7 * values[0]]
    return int(np.argmax(values[:-1] / values[1:])) + 1 if len(values) > 1 else len(values)


def effective_rank(values: Float[AnyArray, " r"]) -> float:
    """Return the effective rank exp(-sum_i p_i log p_i) with p_i = s_i / sum_j s_j.

    See Roy and Vetterli 2007, Definition 1.

    Args:
        values: Singular values s_i, shape (r,).

    Returns:
        A number between 1 and r, or NaN if all values are zero.

    Raises:
        ValueError: If `values` is not a nonempty one-dimensional array of finite nonnegative numbers.

    >>> import numpy as np
    >>> from lazynet.measures import effective_rank
    >>> round(effective_rank(np.array([3.0, 3.0, 0.0])), 6)
    2.0
    """
    values = _check_singular_values(values)
    if not values.any():
        return np.nan
    # Dividing by the largest value first keeps the sum in range.
    values = values / values.max()
    p = values / values.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def _check_singular_values(values: AnyArray) -> Float[np.ndarray, " r"]:
    array = float64_array("values", values)
    if array.ndim != 1 or not array.size or not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(
            f"values must be a nonempty one-dimensional array of finite nonnegative numbers, got {described(values)}."
        )
    return array
