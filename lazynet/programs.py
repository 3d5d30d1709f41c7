"""Compile functions, release their programs, and retrace, on each public call, whatever may have changed.

A function that is passed to JAX as a static argument is traced once and then looked up by identity, so whatever it
reads from outside its arguments (an attribute, a dictionary, a notebook's global variable, a network's module) stays as
it was at the first call. Public functions whose arguments contain such functions therefore run in a scope of their own,
opened by the decorator `entry`: within it, every function is traced once, and the next call traces it again. A program
whose lowered text has been compiled before is reused, so the only cost is tracing and lowering.
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

# Parameters of public functions that may contain the user's functions.
PARAMETERS = frozenset({"network", "loss", "optimizer", "measure", "axes", "training"})
# Packages whose functions depend on nothing that can change.
PACKAGES = ("lazynet", "jax", "optax", "flax", "numpy")
# Random number generator.
GENERATOR = "threefry2x32"
# JAX's per-thread settings on which programs depend.
CONTEXT = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device", "jax_threefry_partitionable")
# Number of programs to keep. The least recently used ones are freed first. A program takes 2 to 4 MB, and each width of
# a sweep uses six to eight.
KEPT = 64

Returned = TypeVar("Returned")

# Programs by their lowered text and, for functions that are not retraced, jitted functions by their static arguments.
# The most recently used ones are last.
_programs: OrderedDict[Any, Any] = OrderedDict()
_lock = Lock()
# The user's functions that have been registered with the package, so that every call may use them.
_registered: list[Callable[..., Any]] = []
_scope: ContextVar[dict["Compiled", "_Traced"] | None] = ContextVar("scope", default=None)


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function with `jax.jit`, so that its programs can be freed.

    Args:
        function: Function to compile; omitted if the decorator is used with options.
        **options: Options for `jax.jit`, such as `static_argnames`.

    Returns:
        The compiled function.
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
    """Decorate a public function so that its results depend only on what its arguments are when it is called.

    The user's functions are traced again in each call. Functions of this package and its dependencies are not, because
    they read nothing that could change. Random numbers come from the same generator, regardless of JAX's settings.
    """
    names = inspect.signature(function).parameters

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        fixed = not _registered and all(is_fixed(value) for name, value in given.items() if name in PARAMETERS)
        # Users may disallow implicit transfers in their own code; NumPy arrays are inputs and results here.
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
        """Keep the function; programs are made on demand."""
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
        """Lower the function for the given arguments, as a function compiled with `jax.jit` does."""
        return self._current(args, kwargs).lower(*args, **kwargs)

    def jitted(self) -> Any:
        """Compile the function anew.

        JAX looks up traces by the identity of the function, so the function is wrapped.
        """

        def again(*args: Any, **kwargs: Any) -> Any:
            return self.function(*args, **kwargs)

        again.__signature__ = self.signature  # type: ignore[attr-defined]
        again.__name__ = self.function.__name__
        return jax.jit(again, **self.options)

    def _cache_size(self) -> int:
        return sum(program._cache_size() for (first, *_), program in _programs.items() if first is self)

    def _current(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the function that JAX has compiled for these static arguments, or the one of the current scope."""
        scope = _scope.get()
        if scope is not None:
            if self not in scope:
                scope[self] = _Traced(self)
            return scope[self]
        static = [(name, args[i] if i < len(args) else kwargs.get(name)) for name, i in self._positions]
        return _kept((self, *static), self.jitted)


def _kept(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return the program of a key, which is made if it is not kept."""
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
    """Return the number of programs in a kept program or jitted function."""
    return 1 if isinstance(program, jax.stages.Compiled) else max(1, program._cache_size())


class _Traced:
    """A compiled function as it is traced within one scope."""

    def __init__(self, made: Compiled) -> None:
        """Compile the function anew, because it may read something that has changed."""
        self.programs: dict[Any, Any] = {}
        self._signature, self._static = made.signature, made.static
        self._jitted = made.jitted()

    def _cache_size(self) -> int:
        """Return 0: the programs are kept by their text."""
        return 0

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
    program = _kept((digest, lowered.in_tree, lowered.out_tree, kinds, _context()), lowered.compile)
    _free(KEPT)
    return program


def _context() -> tuple[Any, ...]:
    """Return the current values of the settings in `CONTEXT`."""
    return tuple(getattr(jax.config, name) for name in CONTEXT)
