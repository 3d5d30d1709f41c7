"""Argument checks shared by the functions of `lazynet.data`."""

import numpy as np

from lazynet.arrays import float64_array, real_array
from lazynet.plan import check_memory

# Largest magnitude for which integer inputs are stored as int32, JAX's default integer type. Inputs that contain an
# integer of larger magnitude are stored as float64.
LARGEST = np.iinfo(np.int32).max


def check_points(count: int, dim: int) -> None:
    """Check that random points, which are drawn in float32 and returned in float64, fit in memory.

    Raises:
        ValueError: If the points do not fit in memory.
    """
    check_memory(f"Sampling {count} points with {dim} features", (4 + 2 * 8) * count * dim)


def check_array(name: str, value: object) -> np.ndarray:
    """Return an array-like argument as a float64 array.

    Raises:
        ValueError: If `value` is not an array of finite real numbers.
    """
    array = float64_array(name, value)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity at index {_first_index(~np.isfinite(array))}.")
    return array


def _first_index(mask: np.ndarray) -> int | tuple[int, ...]:
    """Return the index of the first True entry, as an int if the mask has one dimension and as a tuple otherwise."""
    index = tuple(int(i) for i in np.argwhere(mask)[0])
    return index[0] if len(index) == 1 else index


def check_rows(name: str, value: object) -> np.ndarray:
    """Return an array-like argument as an array of shape (n, d).

    Returns:
        An int32 array if `value` contains integers that fit, and a float64 array otherwise.

    Raises:
        ValueError: If `value` is not a finite two-dimensional array.
    """
    x = real_array(name, value)
    fits = x.dtype.kind in "iu" and (x.size == 0 or (x.max() <= LARGEST and x.min() >= -LARGEST))
    x = x.astype(np.int32) if fits else check_array(name, x)
    if x.ndim != 2:
        raise ValueError(
            f"{name} must be an array of shape (n, d), got shape {x.shape}. Reshape the array so that each row is one "
            "example."
        )
    return x


def check_targets(name: str, value: object, rows: int) -> np.ndarray:
    """Return array-like targets as a float64 array of shape (n,) or (n, k).

    Raises:
        ValueError: If `value` is not a finite array of either shape, or if n differs from `rows`.
    """
    y = check_array(name, value)
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] < 2):
        raise ValueError(
            f"{name} must be an array of shape (n,) or (n, k) with k >= 2, got shape {y.shape}. "
            "If there is a single output, flatten the targets with y.reshape(-1)."
        )
    if len(y) != rows:
        raise ValueError(f"{name} must have one target for each of the {rows} inputs, got {len(y)} targets.")
    return y
