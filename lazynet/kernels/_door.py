"""Support for importing neural-tangents 0.6.5, which needs names that current versions of JAX no longer provide."""

import functools
import importlib
import importlib.util
import sys
import threading
from types import ModuleType

# Names that neural-tangents imports, and the locations of the corresponding objects in JAX 0.10 to 0.12. The last three
# locations are private.
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
    """Import neural-tangents 0.6.5 with JAX 0.10 through 0.12, without TensorFlow.

    Any names in `NAMES` that JAX lacks are added to JAX's modules during the import and removed afterwards, so the rest
    of the process sees an unmodified JAX. An empty module replaces `neural_tangents.experimental`, which requires
    TensorFlow.

    To compute in float64, call neural-tangents functions inside `lazynet.precision.float64()`.

    The library is not a dependency of lazynet, because it declares TensorFlow as a dependency of its own.

    Returns:
        The module `neural_tangents`. The empirical NTK implementations `AUTO` and `STRUCTURED_DERIVATIVES` and the
        function `predict.max_learning_rate` do not work with current versions of JAX.

    Raises:
        ImportError: If neural-tangents is not installed.

    Example:
        >>> neural_tangents().__name__
        'neural_tangents'
    """
    with _lock:
        if "neural_tangents" in sys.modules:
            return sys.modules["neural_tangents"]
        if importlib.util.find_spec("neural_tangents") is None:
            raise ImportError(
                "neural-tangents is not installed. Install it without TensorFlow by running "
                "pip install --no-deps neural-tangents==0.6.5 frozendict."
            )
        added, new_modules = [], []
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
                    added.append((owner, attribute))
            sys.modules["neural_tangents.experimental"] = ModuleType("neural_tangents.experimental")
            return importlib.import_module("neural_tangents")
        finally:
            for owner, attribute in added:
                delattr(owner, attribute)
            for module in new_modules:
                del sys.modules[module]


def resolve(name: str) -> object:
    """Look up a module attribute by its dotted `name`."""
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)
