"""The one place that switches to float64: kernels, solves and predictions run inside this context."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def float64() -> Iterator[None]:
    """Compute in float64 with full-precision matrix products, in this thread only.

    Results must leave the context as NumPy arrays (`numpy.asarray`): outside of it a float64 `jax.Array` falls
    back to float32 in ordinary arithmetic.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield
