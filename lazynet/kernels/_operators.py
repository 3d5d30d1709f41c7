"""Kernel matrices that are multiplied and never looked at: the upper triangle in blocks, stored or computed anew."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._halves import half_products
from lazynet.kernels._spectrum import tiles, upper_tiles
from lazynet.plan import available_memory, check_fits
from lazynet.typing import AnyArray

BLOCK = 2048  # rows of a stored block
PANEL = 256  # rows that a device widens to float64 and multiplies at once


# The entries of a block of the upper triangle, for a slice of rows and of columns.
Block = Callable[[slice, slice], np.ndarray]


class KernelOperator:
    """A symmetric kernel matrix K (n, n) known by its products.

    Only the blocks of the upper triangle are kept or computed; a product reads each of them once and uses it twice.
    Vectors, sums and results are float64 whatever the dtype of the entries.

    Attributes:
        n: number of rows.
        dtype: of the entries.
        rounding: error of an entry relative to the largest, 0 where it is exact as far as lazynet knows.
        storage: "memory", "disk", "devices" or "none".
    """

    def __init__(
        self, n: int, block: Block, dtype: str, rounding: float, storage: str, size: int | None = None
    ) -> None:
        """An operator from a function that gives a block of the upper triangle, for a slice of rows and of columns.

        Blocks have BLOCK rows, or as many as `size` says.
        """
        self.n, self.dtype, self.rounding, self.storage = n, np.dtype(dtype), rounding, storage
        self._block, self._size = block, size or BLOCK

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    def blocks(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Rows, columns and entries of each block of the upper triangle."""
        for rows, columns in upper_tiles(self.n, self._size):
            yield rows, columns, self._block(rows, columns)

    def dense(self) -> Float[np.ndarray, "n n"]:
        """The whole matrix, float64."""
        check_fits(f"A whole kernel of {self.n} rows", 8 * self.n**2, available_memory())
        result = np.empty(self.shape)
        for rows, columns, block in self.blocks():
            result[rows, columns] = block
            result[columns, rows] = block.T
        return result

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """The diagonal, float64."""
        return np.concatenate([np.diag(self._block(s, s)).astype(np.float64) for s in tiles(self.n, self._size)])

    def columns(self, index: np.ndarray) -> Float[np.ndarray, "n r"]:
        """The columns with these distinct numbers, float64."""
        result = np.empty((self.n, len(index)))
        for rows, columns, block in self.blocks():
            (here,) = np.nonzero((index >= columns.start) & (index < columns.stop))
            result[rows, here] = block[:, index[here] - columns.start]
            if rows != columns:
                (here,) = np.nonzero((index >= rows.start) & (index < rows.stop))
                result[columns, here] = block[index[here] - rows.start].T
        return result

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """K v in float64."""
        if len(v) != self.n:
            raise ValueError(f"v has shape {v.shape}, but an operator of {self.n} rows multiplies ({self.n}, k).")
        result = np.zeros(v.shape)
        for rows, columns, block in self.blocks():
            block = np.ascontiguousarray(block, self.dtype)
            above, below = half_products(block, v[columns], None if rows == columns else v[rows])
            result[rows] += above
            result[columns] += below
        return result


def error_norm(rounding: float, diagonal: float, n: int) -> float:
    """The norm that errors of all entries may have together, twice what independent ones have."""
    return 2 * rounding * diagonal * float(np.sqrt(n))


def _times(block: Array, w: Array) -> Array:
    """block w', which XLA does faster than block v."""
    return jax.lax.dot_general(block, w, (((1,), (1,)), ((), ())))


@jax.jit
def widened_product(block: Array, w: Array) -> Array:
    """block w' in the dtype of w; entries of another are widened a few rows at a time."""
    if block.dtype == w.dtype:
        return _times(block, w)
    size = min(PANEL, len(block))
    whole = len(block) // size

    def panel(i: Array) -> Array:
        return _times(jax.lax.dynamic_slice_in_dim(block, i * size, size).astype(w.dtype), w)

    kept = jax.lax.map(panel, jnp.arange(whole)).reshape(whole * size, len(w))
    if whole * size == len(block):
        return kept
    return jnp.concatenate([kept, _times(block[whole * size :].astype(w.dtype), w)])


class CrossOperator:
    """The kernel between other inputs (n1 rows) and those of an operator (n rows), computed anew for every product."""

    def __init__(
        self, kernel: Callable[..., np.ndarray], x1: Float[AnyArray, "n1 d"], x2: Float[AnyArray, "n d"], dtype: str
    ) -> None:
        """K(x1, x2) with entries of this dtype; `kernel` is a function as `kernel_operator` takes."""
        if x1.ndim != 2 or x1.shape[1] != x2.shape[1] or not np.isfinite(x1).all():
            raise ValueError(f"x1 has shape {x1.shape}, but must be finite rows of length {x2.shape[1]}.")
        self.shape = len(x1), len(x2)
        self._block = lambda rows, columns: kernel(x1[rows], x2[columns], dtype=dtype)

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n1 k"]:
        """K v in float64."""
        result = np.zeros((self.shape[0], v.shape[1]))
        for rows in tiles(self.shape[0], BLOCK):
            for columns in tiles(self.shape[1], BLOCK):
                result[rows] += self._block(rows, columns).astype(np.float64, copy=False) @ v[columns]
        return result
