"""Argument checks shared by several modules of this package."""

import jax.numpy as jnp
import numpy as np

from lazynet.arguments import check_choice
from lazynet.arrays import is_traced
from lazynet.typing import AnyArray


def check_dtype(dtype: str) -> None:
    """Check the dtype of a kernel's entries.

    Raises:
        ValueError: If `dtype` is neither "float64" nor "float32".
    """
    check_choice("dtype", dtype, ("float64", "float32"))


def check_rows(x1: AnyArray, x2: AnyArray | None) -> None:
    """Check the shapes of the inputs of a kernel.

    Raises:
        ValueError: If `x1` or `x2` is empty or has fewer than two dimensions, or if their rows have different shapes.
    """
    if x1.ndim < 2 or not len(x1):
        raise ValueError(f"x1 must be a nonempty array of shape (n, d) or (n, ...), got shape {x1.shape}.")
    if x2 is not None and (x2.ndim < 2 or x2.shape[1:] != x1.shape[1:] or not len(x2)):
        raise ValueError(
            f"x2 must be a nonempty array with rows of shape {x1.shape[1:]} to match x1, got shape {x2.shape}."
        )


def check_norms(name: str, x: AnyArray, dtype: str) -> None:
    """Check that the squared norms of rows neither overflow nor underflow in the dtype of a computation.

    Args:
        name: Name of the rows in error messages.
        x: Rows, shape (n, ...). Integers and traced rows are not checked.
        dtype: "float64" or "float32".

    Raises:
        ValueError: If the squared norm of a nonzero row of finite numbers overflows or underflows.
    """
    if is_traced(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    rows = np.asarray(x).reshape(len(x), -1)
    if rows.dtype.kind != "f":
        # NumPy does not compute with bfloat16 and similar dtypes.
        rows = rows.astype(np.float32)
    limits = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64, casting="same_kind")
    checked = rows.any(axis=1) & np.isfinite(rows).all(axis=1)
    wrong = np.flatnonzero(checked & ~((squares >= limits.tiny) & (squares <= limits.max)))
    if wrong.size:
        raise ValueError(
            f"{name} must have rows whose squared norms are representable in {dtype}, got a norm of "
            f"{np.linalg.norm(rows[wrong[0]].astype(np.longdouble)):.3g} in row {wrong[0]}. Rescale the rows."
        )
