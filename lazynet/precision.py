"""The one place that switches to float64: kernels, solves and predictions run inside these contexts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import jax


@contextmanager
def float64() -> Iterator[None]:
    """Compute in float64 with full-precision matrix products, in this thread only.

    Results must leave the context as NumPy arrays (`numpy.asarray`): outside of it a float64 `jax.Array` falls
    back to float32 in ordinary arithmetic.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


@contextmanager
def host_float64() -> Iterator[None]:
    """The same on the CPU, whatever the accelerator: a TPU has no float64 and most GPUs little of it."""
    try:
        on_host = jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        # JAX was told to leave the CPU out, so its own device has to do.
        on_host = nullcontext()
    with float64(), on_host:
        yield


def arithmetic(dtype: str) -> AbstractContextManager:
    """The precision that training runs in: full-precision products in the dtype asked for, float32 or float64."""
    return float64() if dtype == "float64" else jax.default_matmul_precision("highest")


def float64_devices() -> list[jax.Device]:
    """The devices of this process that share work in float64: a TPU has none, so that the CPU does it."""
    devices = jax.local_devices()
    return jax.local_devices(backend="cpu") if devices[0].platform == "tpu" else devices
