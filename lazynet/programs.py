"""Compile functions that need a new program for every width, and release those programs."""

from collections.abc import Callable
from typing import Any

import jax

_functions: list[Any] = []


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function with `jax.jit` and register it, so that `release` can free its programs.

    Args:
        function: Function to compile; omitted if the decorator is used with options.
        **options: Options for `jax.jit`, such as `static_argnames`.

    Returns:
        The compiled function.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    jitted = jax.jit(function, **options)
    _functions.append(jitted)
    return jitted


def release() -> None:
    """Free the programs of all functions compiled with `compiled`; the programs of other functions are kept."""
    for function in _functions:
        function.clear_cache()
