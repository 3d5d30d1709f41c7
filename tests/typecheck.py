"""The type checker of the tests: beartype, for nested functions when they are first called.

The import hook decorates nested functions whenever they are defined, which takes milliseconds each, also in threads.
beartype catches warnings meanwhile, and two threads that do so at once lose later warnings of the process.
"""

import functools
from threading import RLock

from beartype import beartype

LOCK = RLock()


def check_types(function):
    """Return the function with checks of its arguments and its result."""
    if "<locals>" not in function.__qualname__ or isinstance(function, type):
        return _checked(function)
    checked = None

    @functools.wraps(function)
    def checked_when_called(*args, **kwargs):
        nonlocal checked
        checked = checked or _checked(function)
        return checked(*args, **kwargs)

    return checked_when_called


def _checked(function):
    with LOCK:
        return beartype(function)
