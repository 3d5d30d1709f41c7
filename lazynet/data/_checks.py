"""Checks of arguments that several functions of this room share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_count(argument: str, value: Any, least: int) -> int:
    """Return `value` as an int that is at least `least`; ValueError naming `argument` otherwise."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_key(key: Any) -> jax.Array:
    """Return `key` if it is one jax.random key, typed or of the older uint32 kind; ValueError otherwise."""
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
        if typed or (key.dtype == jnp.uint32 and key.ndim == 1):
            return key
    raise ValueError(f"key must be one key of jax.random, got {key!r}: write jax.random.key(0)")


def check_array(argument: str, value: Any) -> np.ndarray:
    """Return `value` as a float64 array of finite numbers; ValueError naming `argument` otherwise."""
    try:
        array = np.asarray(value)
        if np.iscomplexobj(array):
            raise TypeError("these are complex")
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be an array of real numbers, got {type(value).__name__}: {error}") from error
    if not np.isfinite(array).all():
        raise ValueError(
            f"{argument} must be finite, got NaN or infinity at index {_first(~np.isfinite(array))}: remove that row"
        )
    return array


def _first(mask: Any) -> Any:
    """Return the index of the first True, as a plain int for one dimension."""
    index = tuple(int(i) for i in np.argwhere(mask)[0])
    return index[0] if len(index) == 1 else index


def check_rows(argument: str, value: Any) -> np.ndarray:
    """Return `value` as float64 rows, (n, d), none of them zero; ValueError naming `argument` otherwise."""
    x = check_array(argument, value)
    if x.ndim != 2:
        raise ValueError(
            f"{argument} must be two-dimensional (n, d), got shape {x.shape}: reshape it to one row a point"
        )
    zero = ~x.any(axis=1)
    if zero.any():
        raise ValueError(f"{argument} must have no zero row, got zeros in row {_first(zero)}: remove that row")
    return x


def check_targets(argument: str, value: Any, rows: int) -> np.ndarray:
    """Return `value` as float64 targets of `rows` rows; ValueError naming `argument` otherwise."""
    y = check_array(argument, value)
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] < 2):
        raise ValueError(
            f"{argument} must have shape (n,), or (n, k) with k of at least 2, got shape {y.shape}: "
            "write one output as y.reshape(-1)"
        )
    if len(y) != rows:
        raise ValueError(f"{argument} must have one entry for each of the {rows} rows of its x, got {len(y)}")
    return y
