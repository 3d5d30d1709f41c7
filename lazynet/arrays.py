"""Checks and conversions of array arguments, shared by all public functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_traced(*trees: object) -> bool:
    """Return whether any array in the given trees is traced, as arrays are while JAX jits, batches or differentiates.

    Args:
        *trees: Trees of arrays, such as the variables of a network.
    """
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def real_array(name: str, value: Any) -> np.ndarray:
    """Convert an array-like argument to a NumPy array of real numbers, keeping its dtype.

    Arguments that are not arrays of real numbers are rejected. NumPy alone would ignore masks, drop the imaginary parts
    of complex numbers, and convert dates, text and booleans to numbers.

    Args:
        name: Name of the argument in error messages.
        value: The argument, such as a list, a NumPy or JAX array, or an `xarray.DataArray`.

    Returns:
        A NumPy array of integers or floating-point numbers.

    Raises:
        ValueError: If the argument is masked, is traced by JAX, or is not an array of integers or floating-point
            numbers.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name} must be an array of real numbers, got a masked array. Remove or fill its masked entries."
        )
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} must be a concrete array, got a traced one. Call this function outside jax.jit, jax.vmap and "
            "jax.grad."
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(value).__name__} ({error}).") from error
    # NumPy has no kind code for bfloat16 and similar dtypes.
    if array.dtype.kind not in "iuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be an array of real numbers, got an array of {array.dtype}.")
    return array


def traceable_array(name: str, value: Any) -> Any:
    """Check an array argument as `real_array` does, but return traced arrays unchanged.

    Args:
        name: Name of the argument in error messages.
        value: The argument to convert.

    Returns:
        A NumPy array, or a traced array of integers or floating-point numbers.
    """
    if not isinstance(value, Tracer):
        return real_array(name, value)
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise ValueError(f"{name} must be an array of real numbers, got a traced array of dtype {value.dtype}.")
    return value


def float64_array(name: str, value: Any) -> np.ndarray:
    """Convert an array-like argument to a NumPy float64 array; see `real_array`.

    Args:
        name: Name of the argument in error messages.
        value: The argument to convert.

    Returns:
        A NumPy float64 array.
    """
    return real_array(name, value).astype(np.float64, copy=False)


def input_dtype(x: Any, dtype: Any) -> np.dtype:
    """Return the dtype of a network's input rows: int32 for integers such as token ids, and `dtype` otherwise.

    Args:
        x: Array of rows.
        dtype: Dtype for rows of floating-point numbers.
    """
    return np.dtype("int32" if np.issubdtype(x.dtype, np.integer) else dtype)


def floating_dtype(x: Any) -> np.dtype:
    """Return the dtype of x, or JAX's default floating-point dtype if x contains integers."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return np.dtype(x.dtype)
    return jax.dtypes.canonicalize_dtype(float)


def floats(x: Any) -> Any:
    """Return x, converted to JAX's default floating-point dtype if it contains integers."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x, floating_dtype(x))


def network_rows(x: Any, dtype: Any) -> jax.Array:
    """Convert rows to a JAX array of the dtype that a network expects; see `input_dtype`."""
    return jnp.asarray(x, input_dtype(x, dtype))


def nbytes(tree: Any) -> int:
    """Return the total size in bytes of the arrays in a tree; a `jax.ShapeDtypeStruct` may stand in for an array."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def with_floats_as(dtype: Any, tree: Any) -> Any:
    """Convert the floating-point leaves of a pytree to a dtype; other leaves keep their dtypes.

    NumPy arrays are copied first, because once a function traced without JAX's 64-bit mode has converted an array, JAX
    converts that same array to float32 even in 64-bit mode.

    Args:
        dtype: Dtype of the floating-point leaves in the result.
        tree: Pytree of arrays and numbers.

    Returns:
        A pytree of JAX arrays.
    """

    def converted(leaf: Any) -> Any:
        array = jnp.asarray(np.array(leaf) if isinstance(leaf, np.ndarray) else leaf)
        return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree.map(converted, tree)
