"""Compile functions, free their programs, and retrace the user's functions on each call to a public function.

A function that is passed to JAX as a static argument is traced once and then looked up by identity, so the values that
it reads from outside its arguments (for example, from an attribute, a dictionary, a notebook's global variable or a
network's module) are frozen at the first call. If a public function might call a user-supplied function, the decorator
`entry` therefore opens a new scope for each call. Within the scope, every function is traced only once, and the next
call traces it again. A program is reused if the same lowered text has been compiled before, so retracing costs only the
time for tracing and lowering.
"""

import hashlib
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache, update_wrapper, wraps
from threading import Lock
from typing import Any, TypeVar

import jax
import numpy as np

# Names of the parameters of public functions that may contain user-supplied functions that JAX traces.
PARAMETERS = frozenset({"network", "loss", "optimizer", "measure", "axes", "training"})
# Packages whose functions do not depend on mutable global state.
PACKAGES = ("lazynet", "jax", "optax", "flax", "numpy")
# JAX's default random number generator.
GENERATOR = "threefry2x32"
# JAX's per-thread settings that affect compiled programs.
CONTEXT = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device", "jax_threefry_partitionable")
# Maximum number of programs to keep. The least recently used programs are freed first. A program takes 2 to 4 MB of
# memory, and each width in a sweep uses six to eight programs.
KEPT = 64

Returned = TypeVar("Returned")

# Programs, keyed by their lowered text, and jitted functions that are not retraced, keyed by their static arguments.
# The most recently used ones are last.
_programs: OrderedDict[Any, Any] = OrderedDict()
_lock = Lock()
# User-supplied functions registered with the package. Any public function might call them.
_registered: list[Callable[..., Any]] = []
_scope: ContextVar[dict["Compiled", "_Traced"] | None] = ContextVar("scope", default=None)


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function with `jax.jit` in such a way that `release` can free its programs.

    Args:
        function: Function to compile; omitted if the decorator is used with options.
        **options: Options for `jax.jit`, such as `static_argnames`.

    Returns:
        The compiled function, or a decorator if `function` is omitted.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    return Compiled(function, options)


def release() -> None:
    """Free the programs of all functions compiled with `compiled`; the programs of other functions are kept."""
    for traced in (_scope.get() or {}).values():
        traced.programs.clear()
    _free(0)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a public function so that its results depend only on the state of its arguments at the time of the call.

    The user's functions are retraced on every call. Functions from this package and its dependencies are not, because
    they do not depend on mutable global state. Random numbers always come from the same generator, regardless of JAX's
    settings.
    """
    names = inspect.signature(function).parameters

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        fixed = not _registered and all(is_fixed(value) for name, value in given.items() if name in PARAMETERS)
        # Allow implicit transfers even if the user disallows them, because lazynet takes and returns NumPy arrays.
        with same_random_numbers(), jax.transfer_guard("allow"):
            if fixed or _scope.get() is not None:
                return function(*args, **kwargs)
            token = _scope.set({})
            try:
                return function(*args, **kwargs)
            finally:
                _scope.reset(token)

    return called


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Use JAX's default random number generator, even if JAX's settings select another generator."""
    config: Any = jax.config
    if config.jax_threefry_partitionable and config.jax_default_prng_impl == GENERATOR:
        yield
    else:
        with jax.threefry_partitionable(True), jax.default_prng_impl(GENERATOR):
            yield


def register(function: Callable[..., Any]) -> None:
    """Register a user-supplied function, which any public function might call from now on.

    While a function is registered, public functions do not reuse traces from earlier calls.

    Args:
        function: Function that is traced as part of a program.
    """
    _registered.append(function)


def unregister(function: Callable[..., Any]) -> None:
    """Undo `register`.

    Args:
        function: Function that was registered.
    """
    _registered.remove(function)


def is_fixed(value: Any) -> bool:
    """Return whether all functions and objects in a value are known to behave the same way every time they are used.

    Args:
        value: Value to check, such as an argument of a public function.
    """
    if value is None or isinstance(value, str | bool | int | float | np.generic | np.ndarray | np.dtype | jax.Array):
        return True
    if isinstance(value, dict):
        return all(map(is_fixed, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_fixed, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _is_known(type(value)) and all(is_fixed(getattr(value, field.name)) for field in fields(value))
    return callable(value) and _is_known(value)


def once(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Decorate a function so that its results are cached for all arguments that are fixed according to `is_fixed`.

    Args:
        function: Function of hashable positional arguments.

    Returns:
        The decorated function, which keeps the 256 most recently used results.
    """
    kept = lru_cache(maxsize=256)(function)

    @wraps(function)
    def called(*args: Any) -> Returned:
        return (kept if is_fixed(args) else function)(*args)

    return called


def _is_known(value: Any) -> bool:
    """Return whether a function or class can be imported under its own name from one of the `PACKAGES`."""
    module = getattr(value, "__module__", None) or ""
    found = getattr(sys.modules.get(module), getattr(value, "__qualname__", ""), None)
    return module.partition(".")[0] in PACKAGES and found is value


class Compiled:
    """A function that is compiled with `jax.jit` and retraced in each scope that `entry` opens."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Store the function; its programs are compiled on demand."""
        self.function, self.options = function, options
        self.signature = inspect.signature(function)
        names = options.get("static_argnames", ())
        self.static = {names} if isinstance(names, str) else set(names)
        self._positions = [(name, i) for i, name in enumerate(self.signature.parameters) if name in self.static]
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        current = self._current(args, kwargs)
        before = current._cache_size()
        result = current(*args, **kwargs)
        if current._cache_size() > before:
            _free(KEPT)
        return result

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the function for the given arguments, like the `lower` method of a function compiled with `jax.jit`."""
        return self._current(args, kwargs).lower(*args, **kwargs)

    def jitted(self) -> Any:
        """Return a newly jitted version of the function.

        The function is wrapped in a new function, because JAX looks up traces by the identity of the function.
        """

        def again(*args: Any, **kwargs: Any) -> Any:
            return self.function(*args, **kwargs)

        again.__signature__ = self.signature  # type: ignore[attr-defined]
        again.__name__ = self.function.__name__
        return jax.jit(again, **self.options)

    def _cache_size(self) -> int:
        return sum(program._cache_size() for (first, *_), program in _programs.items() if first is self)

    def _current(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the function compiled for the current scope or, if there is no scope, for these static arguments."""
        scope = _scope.get()
        if scope is not None:
            if self not in scope:
                scope[self] = _Traced(self)
            return scope[self]
        static = [(name, args[i] if i < len(args) else kwargs.get(name)) for name, i in self._positions]
        return _kept((self, *static), self.jitted)


def _kept(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return the program stored under a key; if there is none, make and store it."""
    with _lock:
        program = _programs.get(key)
    if program is None:
        program = make()
    with _lock:
        _programs[key] = program
        _programs.move_to_end(key)
    return program


def _free(most: int) -> None:
    """Free the least recently used programs until at most `most` are left."""
    with _lock:
        left = sum(map(_count, _programs.values()))
        while left > most and _programs:
            _, program = _programs.popitem(last=False)
            left -= _count(program)
            if not isinstance(program, jax.stages.Compiled):
                program.clear_cache()


def _count(program: Any) -> int:
    """Return the number of programs in an entry of `_programs`, counting an empty entry as 1."""
    return 1 if isinstance(program, jax.stages.Compiled) else max(1, program._cache_size())


class _Traced:
    """A `Compiled` function that is retraced for one scope."""

    def __init__(self, made: Compiled) -> None:
        """Jit the function again, because values that it reads from outside its arguments may have changed."""
        self.programs: dict[Any, Any] = {}
        self._signature, self._static = made.signature, made.static
        self._jitted = made.jitted()

    def _cache_size(self) -> int:
        """Return 0, because programs from a scope are stored under their lowered text, not in a jitted function."""
        return 0

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the function for the given arguments."""
        return self._jitted.lower(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the program for these arguments, compiling it first unless a program with the same text is stored."""
        given = self._signature.bind(*args, **kwargs).arguments
        dynamic = {name: value for name, value in given.items() if name not in self._static}
        leaves, structure = jax.tree.flatten(dynamic)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._jitted(*args, **kwargs)
        static = tuple((name, value) for name, value in given.items() if name in self._static)
        kinds = tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)
        key = static, structure, kinds, _context()
        if key not in self.programs:
            self.programs[key] = program_of(self._jitted.lower(**given), kinds)
        return self.programs[key](**dynamic)


def program_of(lowered: Any, kinds: Any = ()) -> Any:
    """Compile a lowered function, or return the stored program of an earlier function with the same text.

    Args:
        lowered: Result of a jitted function's `lower` method.
        kinds: Hashable description of the arguments, such as their types and shardings.

    Returns:
        The program, a `jax.stages.Compiled`.
    """
    text = lowered.as_text()
    # The text does not show the Python functions that callbacks call or the constants that JAX passes as hidden
    # arguments, so functions that use either are always recompiled.
    if "callback" in text or getattr(lowered._lowering, "const_args", True):
        return lowered.compile()
    digest = hashlib.sha256(text.encode()).hexdigest()
    program = _kept((digest, lowered.in_tree, lowered.out_tree, kinds, _context()), lowered.compile)
    _free(KEPT)
    return program


def _context() -> tuple[Any, ...]:
    """Return the current values of the settings in `CONTEXT`."""
    return tuple(getattr(jax.config, name) for name in CONTEXT)
