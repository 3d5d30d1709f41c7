"""The one door to neural-tangents 0.6.5, which asks JAX for names that current versions no longer have."""

import functools
import importlib
import sys
import threading
from types import ModuleType

# Name that neural-tangents imports -> where the object lives in JAX 0.10 and 0.12. The last three have no public home.
NAMES = {
    "jax.core.Jaxpr": "jax.extend.core.Jaxpr",
    "jax.core.JaxprEqn": "jax.extend.core.JaxprEqn",
    "jax.core.Literal": "jax.extend.core.Literal",
    "jax.core.Primitive": "jax.extend.core.Primitive",
    "jax.core.Var": "jax.extend.core.Var",
    "jax.interpreters.ad.zeros_like_p": "jax._src.ad_util.zeros_like_p",
    "jax.util.safe_map": "jax._src.util.safe_map",
    "jax.util.safe_zip": "jax._src.util.safe_zip",
}
_lock = threading.Lock()


@functools.cache
def neural_tangents() -> ModuleType:
    """Import neural-tangents 0.6.5, ready to use on JAX 0.10 to 0.12, without TensorFlow.

    The names of `NAMES` that JAX lacks are lent to it for the length of the import and then taken back: neural-tangents
    binds them once, so that nothing else in the process sees a changed JAX. Only an empty stand-in for
    `neural_tangents.experimental`, its TensorFlow part, stays. Call it in float64 inside `lazynet.precision.float64()`.

    Returns:
        The module `neural_tangents`. Known not to work on a current JAX: the empirical NTK implementations `AUTO` and
        `STRUCTURED_DERIVATIVES`, and `predict.max_learning_rate`.

    Example:
        >>> neural_tangents().__name__
        'neural_tangents'
    """
    with _lock:
        if "neural_tangents" in sys.modules:
            return sys.modules["neural_tangents"]
        lent, new_modules = [], []
        try:
            for name, source in NAMES.items():
                module, attribute = name.rsplit(".", 1)
                try:
                    owner = importlib.import_module(module)
                except ModuleNotFoundError:
                    owner = sys.modules[module] = ModuleType(module)
                    new_modules.append(module)
                if not hasattr(owner, attribute):
                    setattr(owner, attribute, resolve(source))
                    lent.append((owner, attribute))
            sys.modules["neural_tangents.experimental"] = ModuleType("neural_tangents.experimental")
            return importlib.import_module("neural_tangents")
        finally:
            for owner, attribute in lent:
                delattr(owner, attribute)
            for module in new_modules:
                del sys.modules[module]


def resolve(name: str) -> object:
    """Return the object at a dotted `name`, the last part of which is an attribute of a module."""
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)
