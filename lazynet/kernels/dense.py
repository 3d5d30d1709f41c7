"""A kernel matrix that is there, as an operator: its rows are shared over the devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels.operators import KernelOperator
from lazynet.kernels.spectrum import check_symmetric
from lazynet.plan import available_memory
from lazynet.precision import float64, float64_devices
from lazynet.typing import SquareKernel

PANEL = 256  # rows of a float32 matrix that are widened at a time: they stay in the cache


class DenseOperator(KernelOperator):
    """A stored symmetric matrix K (n, n), float64 or float32, with products in float64 on all devices."""

    def __init__(self, matrix: np.ndarray, rounding: float) -> None:
        """Share the rows over the devices."""
        super().__init__(
            len(matrix), lambda rows, columns: matrix[rows, columns], matrix.dtype.name, rounding, "memory"
        )
        devices = float64_devices()
        ends = np.linspace(0, self.n, len(devices) + 1).astype(int)
        with float64():
            self._panels = [
                jax.device_put(matrix[start:stop], device)
                for start, stop, device in zip(ends[:-1], ends[1:], devices, strict=True)
                if stop > start
            ]

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """K v in float64."""
        with float64():
            parts = [_times(panel, jax.device_put(v, panel.device)) for panel in self._panels]
            return np.concatenate([np.asarray(part) for part in parts])


@jax.jit
def _times(panel: Array, v: Array) -> Array:
    if panel.dtype == v.dtype:
        return panel @ v
    size = min(PANEL, len(panel))
    whole = len(panel) // size

    def widened(i: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(panel, i * size, size).astype(v.dtype) @ v

    first = jax.lax.map(widened, jnp.arange(whole)).reshape(-1, v.shape[1])
    return jnp.concatenate([first, panel[whole * size :].astype(v.dtype) @ v])


def dense_operator(k: SquareKernel) -> KernelOperator:
    """A kernel matrix as an operator; float32 entries stay as they are.

    Where the devices have no room for a second copy, tiles are multiplied where they lie.

    Raises:
        ValueError: if it is not a finite symmetric matrix.
    """
    matrix: Any = np.asarray(k)
    rounding = 0.0 if matrix.dtype == np.float64 else float(jnp.finfo(matrix.dtype).eps) / 2
    if matrix.dtype not in (np.float64, np.float32):
        matrix = matrix.astype(np.float64)
    check_symmetric(matrix, "k")
    if matrix.nbytes < available_memory() / 2:
        return DenseOperator(matrix, rounding)
    return KernelOperator(
        len(matrix), lambda rows, columns: matrix[rows, columns], matrix.dtype.name, rounding, "memory"
    )
