"""Argument checks shared by several modules of this package."""

from lazynet.arguments import check_choice
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
