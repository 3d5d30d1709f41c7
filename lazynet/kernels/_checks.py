"""Argument checks shared by several modules of this package."""


def check_dtype(dtype: str) -> None:
    """Check the dtype of a kernel's entries.

    Raises:
        ValueError: If `dtype` is neither "float64" nor "float32".
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype must be 'float64' or 'float32', got {dtype!r}.")
