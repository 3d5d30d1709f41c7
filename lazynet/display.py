"""Short descriptions with which objects that hold arrays show themselves in a terminal and in a notebook."""

from collections.abc import Mapping
from html import escape
from typing import Any, TypeVar

import numpy as np
from jax import Array
from jax.tree_util import keystr, tree_leaves_with_path

# Vectors with at most this many entries are shown with their values.
FEW = 4
# Number of arrays of a tree that are named.
NAMED = 4
# Largest number of characters in the description of a field.
LONGEST = 120

Shown = TypeVar("Shown", bound=type)


def displayed(cls: Shown) -> Shown:
    """Make the instances of a class show one line for each field, in place of the entries of their arrays.

    Args:
        cls: A named tuple, or a class with annotated attributes.

    Returns:
        The class, with the methods `__repr__` and `_repr_html_`.
    """
    cls.__repr__, cls._repr_html_ = short_repr, table_html  # type: ignore[assignment, attr-defined]
    return cls


def described_fields(value: Any) -> dict[str, str]:
    """Return a description of each field of a named tuple or of an object's annotated attributes.

    Args:
        value: The object.
    """
    names = getattr(value, "_fields", None) or tuple(type(value).__annotations__)
    return {name: described(getattr(value, name)) for name in names}


def short_repr(value: Any) -> str:
    """Return the name of an object's class, and one line for each of its fields; used as a `__repr__` method.

    Args:
        value: The object.
    """
    fields = described_fields(value)
    width = max(map(len, fields))
    return "\n".join([type(value).__name__, *(f"  {name:{width}}  {text}" for name, text in fields.items())])


def table_html(value: Any) -> str:
    """Return an HTML table with one row for each field of an object; used as a `_repr_html_` method.

    Args:
        value: The object.
    """
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in described_fields(value).items()
    )
    return f"<table><caption>{escape(type(value).__name__)}</caption>{cells}</table>"


def described(value: Any) -> str:
    """Describe a value on one line: an array by its dtype and shape, and a tree of arrays by its size.

    Args:
        value: The value.
    """
    if isinstance(value, np.ndarray | Array):
        return _array(value)
    # An xarray.Dataset is a mapping too; xarray is not imported here, because that takes long.
    if hasattr(value, "data_vars"):
        sizes = ", ".join(f"{name} ({size})" for name, size in value.sizes.items())
        return f"xarray.Dataset with {len(value.data_vars)} variables and dimensions {sizes}"
    if isinstance(value, Mapping):
        return _tree(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _array(value: Any) -> str:
    """Return the dtype and shape of an array, and the values of a short vector."""
    text = f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, np.ndarray) and value.ndim == 1 and 0 < value.size <= FEW:
        text += f": {', '.join(f'{entry:.4g}' for entry in value)}"
    return text


def _tree(value: Mapping[str, Any]) -> str:
    """Return the number of entries in a tree of arrays, and the names and shapes of the first ones."""
    leaves = tree_leaves_with_path(value)
    named = [f"{keystr(path, simple=True, separator='/')} {np.shape(leaf)}" for path, leaf in leaves[:NAMED]]
    more = ", ..." if len(leaves) > NAMED else ""
    return f"{sum(np.size(leaf) for _, leaf in leaves)} numbers in {', '.join(named)}{more}" if leaves else "empty"
