"""Context managers that set the floating-point precision for kernels, linear solves, predictions and training."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import jax
import numpy as np
from jax import Array

# Real dtypes that JAX narrows to 32 bits unless its 64-bit mode is on.
WIDE = (np.float64, np.int64, np.uint64)


@contextmanager
def float64() -> Iterator[None]:
    """Enable float64 and full-precision matrix products in the current thread.

    Convert results to NumPy arrays (`numpy.asarray`) before leaving the context: outside it, ordinary arithmetic
    casts a float64 `jax.Array` to float32.
    """
    # Allow implicit transfers even if the user disallows them, because lazynet takes and returns NumPy arrays.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.transfer_guard("allow"):
        yield


@contextmanager
def host_float64() -> Iterator[None]:
    """Enable `float64` and place arrays on the CPU: TPUs do not support float64, and most GPUs are slow in float64."""
    try:
        on_host = jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        # JAX has no CPU backend in this configuration, so arrays stay on the default device.
        on_host = nullcontext()
    with float64(), on_host:
        yield


def arithmetic(dtype: str) -> AbstractContextManager:
    """Return a context manager for training with full-precision matrix products in "float32" or "float64"."""
    return float64() if dtype == "float64" else jax.default_matmul_precision("highest")


def keeps_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function of arrays so that it computes in float64 if an argument is a 64-bit array from outside JAX.

    JAX would cast such an array, for example a NumPy array, to 32 bits unless its 64-bit mode is on. This applies to
    both floating-point numbers and integers. Results computed in float64 are NumPy arrays. Calls that JAX traces, and
    calls without such arrays, are passed through unchanged.
    """

    @wraps(function)
    def computed(*args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves((args, kwargs))
        wide = any(not isinstance(leaf, Array) and getattr(leaf, "dtype", None) in WIDE for leaf in leaves)
        if not wide or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return function(*args, **kwargs)
        with host_float64():
            return jax.tree.map(np.asarray, function(*args, **kwargs))

    return computed


def float64_devices() -> list[jax.Device]:
    """Return this process's devices for float64 computations, which are CPUs if the accelerator is a TPU."""
    devices = jax.local_devices()
    return jax.local_devices(backend="cpu") if devices[0].platform == "tpu" else devices
