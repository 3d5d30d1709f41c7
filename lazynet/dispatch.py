"""Functions dispatched on the type of their first argument, which may be passed by name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Dispatched(Protocol[P, R_co]):
    """A function that can be extended with implementations for other types of its first argument."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the implementation for the type of the first argument."""
        ...

    def register(self, kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that registers a function as the implementation for a type."""
        ...


def dispatched(
    function: Callable[P, R_co], finish: Callable[[Any, Any], Any] = lambda first, result: result
) -> Dispatched[P, R_co]:
    """Decorate a function as `functools.singledispatch` does, but also allow the first argument to be passed by name.

    Args:
        function: Default implementation, used for types that have no registered implementation.
        finish: Function that maps the first argument and an implementation's return value to the final result.

    Returns:
        A function with the same signature as `function` and a `register` method.
    """
    generic = functools.singledispatch(function)
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not args and first in kwargs:
            args = (kwargs.pop(first),)
        # Without the first argument, this call raises Python's usual TypeError for missing arguments.
        return finish(args[0], generic(*args, **kwargs)) if args else cast(Any, function)(**kwargs)

    call.register = generic.register  # type: ignore[attr-defined]
    return cast(Dispatched[P, R_co], call)
