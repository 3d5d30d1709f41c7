"""Dense kernel matrices as operators, with rows distributed across the devices."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels import _operators as operators
from lazynet.kernels._operators import Block, KernelOperator, widened_product
from lazynet.kernels._spectrum import check_symmetric, upper_tiles
from lazynet.plan import device_memory
from lazynet.precision import float64, float64_devices
from lazynet.typing import SquareKernel


class DeviceOperator(KernelOperator):
    """Symmetric matrix K of shape (n, n), stored in float64 or float32 and multiplied in float64 on all devices.

    Args:
        panels: Arrays of consecutive rows of K, one array per device.
        rounding: Rounding error in an entry, relative to the largest entry.
        storage: Where the entries are stored, as in `KernelOperator`.
    """

    def __init__(self, panels: list[Array], rounding: float, storage: str) -> None:
        """Store the panels."""
        self._panels, self._ends = panels, np.cumsum([len(panel) for panel in panels])
        super().__init__(int(self._ends[-1]), self._entries, panels[0].dtype.name, rounding, storage)

    def _entries(self, rows: slice, columns: slice) -> np.ndarray:
        parts = []
        for panel, end in zip(self._panels, self._ends, strict=True):
            start = end - len(panel)
            first, last = max(rows.start, start), min(rows.stop, end)
            if first < last:
                size = int(last - first), columns.stop - columns.start
                with float64():
                    part = jax.lax.dynamic_slice(panel, (int(first - start), columns.start), size)
                    parts.append(np.asarray(part))
        return np.concatenate(parts)

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """Return the diagonal in float64."""
        starts = self._ends - [len(panel) for panel in self._panels]
        with float64():
            parts = [jnp.diagonal(panel, start) for panel, start in zip(self._panels, starts.tolist(), strict=True)]
            return np.concatenate([np.asarray(part, np.float64) for part in parts])

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Return K v in float64."""
        w = np.ascontiguousarray(v.T)
        with float64():
            parts = [widened_product(panel, jax.device_put(w, panel.device)) for panel in self._panels]
            return np.concatenate([np.asarray(part) for part in parts])


def shares(n: int) -> list[tuple[slice, jax.Device]]:
    """Split n rows evenly among the devices."""
    devices = float64_devices()
    ends = np.linspace(0, n, min(n, len(devices)) + 1).astype(int)
    return [(slice(*rows), device) for rows, device in zip(pairwise(ends.tolist()), devices, strict=False)]


def put_on_devices(n: int, compute: Block, dtype: str, progress: Callable[[float], None] | None) -> list[Array]:
    """Compute the upper triangle of a kernel in blocks, and return the full matrix as one panel of rows per device."""
    with float64():
        panels = [jnp.zeros((rows.stop - rows.start, n), dtype, device=device) for rows, device in shares(n)]

    def put(block: np.ndarray, above: int, left: int) -> None:
        for i, (rows, device) in enumerate(shares(n)):
            part = block[max(0, rows.start - above) : max(0, rows.stop - above)]
            if len(part):
                panels[i] = _put(panels[i], jax.device_put(part, device), max(0, above - rows.start), left)

    done = 0
    for rows, columns in upper_tiles(n, operators.BLOCK):
        block = compute(rows, columns)
        with float64():
            put(block, rows.start, columns.start)
            if rows != columns:
                put(block.T, columns.start, rows.start)
        done += block.size
        if progress is not None:
            progress(min(1.0, 2 * done / (n * (n + operators.BLOCK))))
    return panels


@partial(jax.jit, donate_argnums=0)
def _put(panel: Array, block: Array, above: Array | int, left: Array | int) -> Array:
    return jax.lax.dynamic_update_slice(panel, block, (above, left))


def dense_operator(k: SquareKernel) -> KernelOperator:
    """Wrap a kernel matrix as an operator.

    The rows are distributed across the accelerators if they fit in device memory. Otherwise, the matrix stays on the
    host, where it is copied only if it is not contiguous or its dtype is neither float64 nor float32.

    Args:
        k: Kernel matrix, shape (n, n). Float32 entries are not converted.

    Returns:
        A `KernelOperator` with the dtype of `k` if that is float64 or float32, and with dtype float64 otherwise.

    Raises:
        ValueError: If `k` is not a finite symmetric matrix.

    >>> dense_operator(np.eye(2)).product(np.ones((2, 1)))
    array([[1.],
           [1.]])
    """
    matrix: np.ndarray = np.asarray(k)
    exact = matrix.dtype == np.float64 or not jnp.issubdtype(matrix.dtype, jnp.floating)
    rounding = 0.0 if exact else float(jnp.finfo(matrix.dtype).eps) / 2
    if matrix.dtype not in (np.float64, np.float32):
        matrix = matrix.astype(np.float64)
    asymmetry = check_symmetric(matrix, "k")
    # The asymmetry of a kernel indicates the accuracy of its entries.
    if asymmetry > 4 * np.finfo(matrix.dtype).eps:
        rounding = max(rounding, asymmetry)
    if _stays_on_host(matrix):
        # Rows must be contiguous. A Fortran-ordered symmetric matrix can be replaced by its C-ordered transpose.
        rows = np.ascontiguousarray(matrix.T if matrix.flags.f_contiguous else matrix)
        return KernelOperator(len(rows), partial(_submatrix, rows), rows.dtype.name, rounding, "memory", size=len(rows))
    with float64():
        panels = [jax.device_put(matrix[rows], device) for rows, device in shares(len(matrix))]
    return DeviceOperator(panels, rounding, "devices")


def _stays_on_host(matrix: np.ndarray) -> bool:
    devices = float64_devices()
    return devices[0].platform == "cpu" or matrix.nbytes > device_memory(devices)


def _submatrix(matrix: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return matrix[rows, columns]
