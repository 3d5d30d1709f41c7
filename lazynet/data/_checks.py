"""Argument checks shared by the functions of this package."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arrays import float64_array
from lazynet.plan import check_memory


def check_count(name: str, value: object, minimum: int) -> int:
    """Return an integer argument as an int.

    Raises:
        ValueError: If `value` is not an integer, or is below `minimum`.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}.")
    return int(value)


def check_number(name: str, value: object, *, positive: bool = False, maximum: float = np.inf) -> float:
    """Return a nonnegative real argument as a float.

    Raises:
        ValueError: If `value` is not a finite number, is negative (or zero, if `positive`), or exceeds `maximum`.
    """
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        number = float(value)
        if 0 <= number <= maximum and number < np.inf and not (positive and number == 0):
            return number
    if maximum < np.inf:
        allowed = f"a number between 0 and {maximum:g}"
    else:
        allowed = "positive and finite" if positive else "finite and nonnegative"
    raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def check_points(count: int, dim: int) -> None:
    """Check that random points, which are drawn in float32 and returned in float64, fit in memory.

    Raises:
        ValueError: If they do not fit.
    """
    check_memory(f"Sampling {count} points with {dim} features", (4 + 2 * 8) * count * dim)


def check_key(key: object) -> Array:
    """Check that an argument is a single JAX random key, either typed or a raw uint32 array, and return it.

    Raises:
        ValueError: If `key` is not a single key.
    """
    if isinstance(key, Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
        if typed or (key.dtype == jnp.uint32 and key.ndim == 1):
            return key
    raise ValueError(f"key must be a single JAX random key, got {key!r}. Create one with jax.random.key(0).")


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
    """Return an array-like argument as a float64 array of shape (n, d).

    Raises:
        ValueError: If `value` is not a finite two-dimensional array, or has a zero row.
    """
    x = check_array(name, value)
    if x.ndim != 2:
        raise ValueError(
            f"{name} must be an array of shape (n, d), got shape {x.shape}. Reshape the array so that each row is one "
            "example."
        )
    zero_rows = np.flatnonzero(~x.any(axis=1))
    if zero_rows.size:
        raise ValueError(f"{name} must have no zero rows, got only zeros in row {zero_rows[0]}.")
    return x


def check_targets(name: str, value: object, rows: int) -> np.ndarray:
    """Return array-like targets as a float64 array of shape (n,) or (n, k).

    Raises:
        ValueError: If `value` is not a finite array of either shape, or if n differs from `rows`.
    """
    y = check_array(name, value)
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] < 2):
        raise ValueError(
            f"{name} must be an array of shape (n,), or (n, k) with k >= 2, got shape {y.shape}. "
            "If there is a single output, flatten the targets with y.reshape(-1)."
        )
    if len(y) != rows:
        raise ValueError(f"{name} must have one target for each of the {rows} inputs, got {len(y)} targets.")
    return y
