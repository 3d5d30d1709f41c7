"""Kernel matrices that are multiplied and never looked at: the upper triangle in blocks, stored or computed anew."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels.spectrum import tiles, upper_tiles
from lazynet.plan import available_memory, check_fits
from lazynet.precision import host_float64
from lazynet.typing import AnyArray

BLOCK = 2048  # rows of a stored block
PANEL = 256  # rows that are widened to float64 and multiplied at once: they stay in the cache


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

    def __init__(self, n: int, block: Block, dtype: str, rounding: float, storage: str) -> None:
        """An operator from a function that gives a block of the upper triangle, for a slice of rows and of columns."""
        self.n, self.dtype, self.rounding, self.storage = n, np.dtype(dtype), rounding, storage
        self._block = block

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    def blocks(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Rows, columns and entries of each block of the upper triangle."""
        for rows, columns in upper_tiles(self.n, BLOCK):
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
        return np.concatenate([np.diag(self._block(s, s)).astype(np.float64) for s in tiles(self.n, BLOCK)])

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
        result, w = np.zeros(v.shape), np.ascontiguousarray(v.T)
        with host_float64():
            for rows, columns, block in self.blocks():
                if rows == columns:
                    result[rows] += widened_product(block, w[:, columns])
                else:
                    right, below = _both_products(block, w[:, columns], w[:, rows])
                    result[rows] += right
                    result[columns] += np.asarray(below).T
        return result


def error_norm(rounding: float, diagonal: float, n: int) -> float:
    """The norm that errors of all entries may have together, twice what independent ones have."""
    return 2 * rounding * diagonal * float(np.sqrt(n))


def _times(block: Array, w: Array) -> Array:
    """block w', which XLA does faster than block v."""
    return jax.lax.dot_general(block, w, (((1,), (1,)), ((), ())))


@jax.jit
def widened_product(block: Array, w: Array) -> Array:
    """block w' in the dtype of w; entries of another are widened a few rows at a time, which stay in the cache."""
    if block.dtype == w.dtype:
        return _times(block, w)
    return _in_panels(block, lambda rows, at: (None, _times(rows.astype(w.dtype), w)), None)[1]


@jax.jit
def _both_products(block: Array, right: Array, left: Array) -> tuple[Array, Array]:
    """block right' and left block."""

    def both(rows: Array, at: Array) -> tuple[Array, Array]:
        rows = rows.astype(right.dtype)
        return jax.lax.dynamic_slice_in_dim(left, at, len(rows), axis=1) @ rows, _times(rows, right)

    below, above = _in_panels(block, both, jnp.zeros((len(left), block.shape[1]), left.dtype))
    return above, below


def _in_panels(block: Array, f: Callable[[Array, Array], tuple[Any, Array]], zero: Any) -> tuple[Any, Array]:
    """Sum and stack what f gives of a few rows at a time."""
    size = min(PANEL, len(block))
    whole = len(block) // size

    def step(total: Any, i: Array) -> tuple[Any, Array]:
        added, kept = f(jax.lax.dynamic_slice_in_dim(block, i * size, size), i * size)
        return jax.tree.map(jnp.add, total, added), kept

    total, kept = jax.lax.scan(step, zero, jnp.arange(whole))
    kept = kept.reshape(whole * size, kept.shape[2])
    if whole * size == len(block):
        return total, kept
    added, rest = f(block[whole * size :], jnp.asarray(whole * size))
    return jax.tree.map(jnp.add, total, added), jnp.concatenate([kept, rest])


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
