"""Compiled programs that grow in number with the width, and how to release them."""

from collections.abc import Callable
from typing import Any

import jax

_functions: list[Any] = []


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function with `jax.jit` and let `release` free its programs.

    Args:
        function: the function to compile; left out when the decorator takes options.
        **options: passed to `jax.jit`, such as `static_argnames`.

    Returns:
        The compiled function.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    jitted = jax.jit(function, **options)
    _functions.append(jitted)
    return jitted


def release() -> None:
    """Free the programs of all functions made by `compiled`; programs of the caller's own functions stay."""
    for function in _functions:
        function.clear_cache()
