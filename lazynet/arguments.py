"""Argument checks shared by all public functions, with one function for each kind of argument.

A check raises a ValueError that names the argument, says what it must be, and shows the value that was passed. Errors
raised by a user's function are passed on with a note that names the argument through which the function was passed; see
`calls_of`.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Maximum length of a value's description in an error message, in characters.
LONGEST = 200
# Maximum length of each part of a path, in bytes.
LONGEST_FILE_NAME = 255


def described(value: Any) -> str:
    """Return a short description of a value for an error message.

    Args:
        value: Any value.

    Returns:
        The shape if the value is a concrete array; otherwise the value's `repr`, or the value's type if the `repr` is
        too long, has several lines or fails.
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        value = value.item()
    if isinstance(value, jax.core.Tracer):
        return "a value that JAX traces"
    if isinstance(value, np.ndarray | Array) and value.ndim:
        return f"an array of shape {value.shape}"
    try:
        text = repr(value)
    except Exception:
        text = ""
    return text if text and len(text) <= LONGEST and "\n" not in text else f"an object of type {type(value).__name__}"


def as_number(value: Any) -> float | None:
    """Return a real number as a float, or None for any other value; booleans do not count as numbers.

    Args:
        value: Any value. Zero-dimensional arrays count as numbers.
    """
    if isinstance(value, np.ndarray | Array) and not isinstance(value, np.ma.MaskedArray) and value.ndim == 0:
        if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
            return None
        return None if isinstance(value, jax.core.Tracer) else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_number(
    name: str,
    value: Any,
    *,
    positive: bool = False,
    below: float = math.inf,
    maximum: float = math.inf,
    where: str = "",
) -> float:
    """Return a finite nonnegative argument as a float.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
        positive: Whether to reject zero.
        below: Exclusive upper bound of the argument.
        maximum: Inclusive upper bound of the argument.
        where: Text to insert after the allowed values, such as " at width 8".

    Raises:
        ValueError: If the argument is not a number, is not finite, or is outside the allowed range.
    """
    number = as_number(value)
    if number is not None and 0 <= number <= maximum and number < below and not (positive and number == 0):
        return number
    if maximum < math.inf:
        allowed = f"a number between 0 and {maximum:g}"
    elif below < math.inf:
        allowed = f"a {'positive' if positive else 'nonnegative'} number below {below:g}"
    else:
        allowed = "positive and finite" if positive else "finite and nonnegative"
    raise ValueError(f"{name} must be {allowed}{where}, got {described(value)}.")


def check_count(name: str, value: Any, minimum: int = 1, most: int | None = None) -> int:
    """Return an integer argument as an int; booleans do not count as integers.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
        minimum: Smallest allowed value.
        most: Largest allowed value, or None for no limit.

    Raises:
        ValueError: If the argument is not an integer, or is outside the allowed range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        allowed = "a positive integer" if minimum == 1 else f"an integer >= {minimum}"
        raise ValueError(f"{name} must be {allowed}, got {described(value)}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}.")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Raise a ValueError unless the argument is True or False.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {described(value)}.")


def check_choice(name: str, value: Any, allowed: Iterable[str], *, more: str = "", optional: bool = False) -> Any:
    """Check that an argument is one of several strings, and return it.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
        allowed: The allowed strings.
        more: Text that names other allowed values in the error message, such as ", or a lazynet.Optimizer".
        optional: Whether None is allowed.

    Raises:
        ValueError: If the argument is not an allowed value.
    """
    words = list(allowed)
    if (optional and value is None) or (isinstance(value, str) and value in words):
        return value
    none = "None or " if optional else ""
    raise ValueError(f"{name} must be {none}one of {', '.join(words)}{more}, got {described(value)}.")


def check_instance(name: str, value: Any, kind: type) -> None:
    """Raise a ValueError unless the argument is an instance of a public lazynet class.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
        kind: The class.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a lazynet.{kind.__name__}, got {described(value)}.")


def check_sequence(name: str, value: Any, entries: str) -> list[Any]:
    """Convert an argument that is a list, tuple, range or one-dimensional array to a list.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
        entries: What the list must contain, for the error message, such as "positive integers".

    Raises:
        ValueError: If the argument is of another type, such as a string, a mapping or a generator.
    """
    if isinstance(value, list | tuple | range):
        return list(value)
    is_array = isinstance(value, np.ndarray | Array) and not isinstance(value, np.ma.MaskedArray)
    if is_array and value.ndim == 1 and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        entries_of: list[Any] = np.asarray(value).tolist()
        return entries_of
    raise ValueError(f"{name} must be a list of {entries}, got {described(value)}.")


def check_key(value: Any) -> Array:
    """Return the argument `key` if it is a single JAX random key, either a typed key or a raw uint32 array.

    Args:
        value: The argument to check.

    Raises:
        ValueError: If the argument is not a single key.
    """
    if isinstance(value, Array):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ()
        if typed or (value.dtype == jnp.uint32 and value.ndim == 1 and value.size in (2, 4)):
            return value
    raise ValueError(f"key must be a single JAX random key, got {described(value)}. Create one with jax.random.key(0).")


def check_callback(name: str, value: Any) -> None:
    """Raise a ValueError unless the argument is a function or None.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.
    """
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be a function or None, got {described(value)}.")


def printable(text: str) -> str:
    """Escape all characters that a terminal would interpret or cannot display.

    Args:
        text: Text that may contain file names or other untrusted data.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c in " \n\t" else ascii(c)[1:-1] for c in text)


def check_path(name: str, value: Any) -> Path:
    """Check that an argument is a path, and return it with "~" expanded.

    Args:
        name: Name of the argument in error messages.
        value: The argument to check.

    Raises:
        ValueError: If the argument is not a path, if file systems would reject it, or if "~" cannot be expanded.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise ValueError(f"{name} must be a path, got {described(value)}.")
    text = os.fspath(value)
    if "\0" in text or any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in Path(text).parts):
        raise ValueError(
            f"{name} must be a path without null characters and with at most {LONGEST_FILE_NAME} bytes in each part, "
            f"got {described(value)}."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name} must be a path whose leading ~, if any, refers to a known home directory, got {described(value)}."
        ) from error


@contextmanager
def calls_of(name: str) -> Iterator[None]:
    """Add a note to errors raised by a user's function, naming the argument through which the function was passed.

    Args:
        name: Name of the argument in the note.
    """
    try:
        yield
    except Exception as error:
        note = f"The error was raised by a function passed to lazynet as {name}."
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise
