"""Compile functions, release their programs, and retrace whatever may have changed in each public call.

A function that is passed to JAX as a static argument is traced once and then looked up by identity, so whatever it
reads from outside its arguments (an attribute, a dictionary, a global of a notebook, a module of a network) stays as it
was at the first call. Public functions whose arguments contain such functions therefore run in a scope of their own,
opened by the decorator `entry`: within it, every function is traced once, and the next call traces it again. A
program whose lowered text has been compiled before is reused, so the only cost is tracing and lowering.
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
from typing import Any, TypeVar

import jax
import numpy as np

# Parameters of public functions that may contain the user's functions.
PARAMETERS = frozenset({"network", "loss", "optimizer", "measure", "axes", "training"})
# Packages whose functions depend on nothing that can change.
PACKAGES = ("lazynet", "jax", "optax", "flax", "numpy")
# Random number generator.
GENERATOR = "threefry2x32"
# JAX's per-thread settings on which programs depend.
CONTEXT = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device", "jax_threefry_partitionable")
# Number of programs to keep for functions that are retraced.
KEPT = 64

Returned = TypeVar("Returned")

_functions: list["Compiled"] = []
_programs: OrderedDict[Any, Any] = OrderedDict()
# The user's functions that have been registered with the package, so that every call may use them.
_registered: list[Callable[..., Any]] = []
_scope: ContextVar[dict["Compiled", "_Traced"] | None] = ContextVar("scope", default=None)


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
    made = Compiled(function, options)
    _functions.append(made)
    return made


def release() -> None:
    """Free the programs of all functions compiled with `compiled`; the programs of other functions are kept."""
    for function in _functions:
        function.clear_cache()
    for traced in (_scope.get() or {}).values():
        traced.programs.clear()
    _programs.clear()


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a public function so that its results depend only on its arguments, as they are when it is called.

    The user's functions are traced again in each call; those of this package and
    of its libraries need not be. Random numbers come from the same generator, regardless of JAX's settings.
    """
    names = inspect.signature(function).parameters

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        fixed = not _registered and all(is_fixed(value) for name, value in given.items() if name in PARAMETERS)
        with same_random_numbers():
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
    """Draw random numbers with the generator that JAX uses by default, even if its settings say otherwise."""
    config: Any = jax.config
    if config.jax_threefry_partitionable and config.jax_default_prng_impl == GENERATOR:
        yield
    else:
        with jax.threefry_partitionable(True), jax.default_prng_impl(GENERATOR):
            yield


def register(function: Callable[..., Any]) -> None:
    """Register one of the user's functions, which public functions use from now on.

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
    """Return whether a value contains no function or object that can change between calls.

    Args:
        value: Argument of a public function.
    """
    if value is None or isinstance(value, str | bool | int | float | np.generic | np.ndarray | jax.Array):
        return True
    if isinstance(value, dict):
        return all(map(is_fixed, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_fixed, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _is_known(type(value)) and all(is_fixed(getattr(value, field.name)) for field in fields(value))
    return callable(value) and _is_known(value)


def once(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Decorate a function so that calls with equal arguments run it once, if the arguments cannot change.

    Args:
        function: Function of hashable positional arguments.

    Returns:
        The function, with its last 256 results kept.
    """
    kept = lru_cache(maxsize=256)(function)

    @wraps(function)
    def called(*args: Any) -> Returned:
        return (kept if is_fixed(args) else function)(*args)

    return called


def _is_known(value: Any) -> bool:
    """Return whether a function or class is found under its own name in one of the packages."""
    module = getattr(value, "__module__", None) or ""
    found = getattr(sys.modules.get(module), getattr(value, "__qualname__", ""), None)
    return module.partition(".")[0] in PACKAGES and found is value


class Compiled:
    """A function compiled with `jax.jit`, which is retraced in each scope of `entry`."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Compile the function; programs are made on demand."""
        self.function, self.options = function, options
        self._jitted: Any = jax.jit(function, **options)
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._current()(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the function for the given arguments, as a function compiled with `jax.jit` does."""
        return self._current().lower(*args, **kwargs)

    def clear_cache(self) -> None:
        """Free the programs."""
        self._jitted.clear_cache()

    def _cache_size(self) -> int:
        return self._jitted._cache_size()

    def _current(self) -> Any:
        scope = _scope.get()
        if scope is None:
            return self._jitted
        if self not in scope:
            scope[self] = _Traced(self)
        return scope[self]


class _Traced:
    """A compiled function as it is traced within one scope."""

    def __init__(self, made: Compiled) -> None:
        """Wrap the function again, because JAX looks up traces by the identity of the function."""
        self.programs: dict[Any, Any] = {}
        self._signature = inspect.signature(made.function)
        names = made.options.get("static_argnames", ())
        self._static = {names} if isinstance(names, str) else set(names)

        def again(*args: Any, **kwargs: Any) -> Any:
            return made.function(*args, **kwargs)

        again.__signature__ = self._signature  # type: ignore[attr-defined]
        again.__name__ = made.function.__name__
        self._jitted = jax.jit(again, **made.options)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the function for the given arguments."""
        return self._jitted.lower(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the compiled program for these arguments, which is looked up by its lowered text."""
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
    """Compile a lowered function, or return the program of an earlier one with the same text.

    Args:
        lowered: Result of the method `lower` of a compiled function.
        kinds: Hashable description of the arguments beyond their shapes and dtypes.

    Returns:
        The program, a `jax.stages.Compiled`.
    """
    text = lowered.as_text()
    # The text omits the Python function that is called back and the constants that JAX passes as hidden arguments.
    if "callback" in text or getattr(lowered._lowering, "const_args", True):
        return lowered.compile()
    digest = hashlib.sha256(text.encode()).hexdigest()
    key = digest, lowered.in_tree, lowered.out_tree, kinds, _context()
    if key not in _programs:
        _programs[key] = lowered.compile()
    _programs.move_to_end(key)
    while len(_programs) > KEPT:
        _programs.popitem(last=False)
    return _programs[key]


def _context() -> tuple[Any, ...]:
    """Return the current values of the settings in `CONTEXT`."""
    return tuple(getattr(jax.config, name) for name in CONTEXT)
