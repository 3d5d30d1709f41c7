"""Kernel matrices as operators that store or recompute the upper triangle in blocks."""

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

BLOCK = 2048  # rows per block
PANEL = 256  # number of rows that a device converts to float64 and multiplies at a time

# Function that maps a row slice and a column slice to the corresponding block of the upper triangle.
Block = Callable[[slice, slice], np.ndarray]


class KernelOperator:
    """Symmetric kernel matrix K of shape (n, n), accessed mainly through products with vectors.

    Only blocks of the upper triangle are stored or computed, and a product uses each block twice. Vectors, sums and
    results are float64, regardless of the dtype of the entries.

    Args:
        n: Number of rows.
        block: Function that maps a row slice and a column slice to a block of the upper triangle.
        dtype: Dtype of the entries.
        rounding: Error in an entry relative to the largest entry, or 0 if entries are exact up to float64 rounding.
        storage: Where the entries are stored: "memory", "disk", "devices" or "none".
        size: Number of rows per block. Defaults to `BLOCK`.

    Attributes:
        n: Number of rows.
        dtype: Dtype of the entries.
        rounding: Error in an entry relative to the largest entry.
        storage: Where the entries are stored.
    """

    def __init__(
        self, n: int, block: Block, dtype: str, rounding: float, storage: str, size: int | None = None
    ) -> None:
        """Store the arguments without computing any blocks."""
        self.n, self.dtype, self.rounding, self.storage = n, np.dtype(dtype), rounding, storage
        self._block, self._size = block, size or BLOCK

    def __repr__(self) -> str:
        """Return the shape, the dtype and the place of the entries."""
        return f"KernelOperator of shape {self.shape}, {self.dtype}, storage {self.storage!r}"

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, n) of the kernel matrix."""
        return self.n, self.n

    def blocks(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Iterate over the blocks of the upper triangle.

        Yields:
            The row slice, the column slice and the entries of each block.
        """
        for rows, columns in upper_tiles(self.n, self._size):
            yield rows, columns, self._block(rows, columns)

    def dense(self) -> Float[np.ndarray, "n n"]:
        """Return the kernel as a matrix.

        Returns:
            The matrix in float64, shape (n, n).

        Raises:
            ValueError: If the matrix does not fit in memory.
        """
        check_fits(f"A dense kernel of {self.n} rows", 8 * self.n**2, available_memory())
        result = np.empty(self.shape)
        for rows, columns, block in self.blocks():
            result[rows, columns] = block
            result[columns, rows] = block.T
        return result

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """Return the diagonal.

        Returns:
            The diagonal in float64, shape (n,).
        """
        slices = tiles(self.n, self._size)
        return np.concatenate([np.diag(self._block(rows, rows)).astype(np.float64) for rows in slices])

    def columns(self, index: np.ndarray) -> Float[np.ndarray, "n r"]:
        """Return selected columns.

        Args:
            index: Distinct indices of the columns, an integer array of shape (r,).

        Returns:
            The columns in float64, shape (n, r).
        """
        result = np.empty((self.n, len(index)))
        for rows, columns, block in self.blocks():
            (selected,) = np.nonzero((index >= columns.start) & (index < columns.stop))
            result[rows, selected] = block[:, index[selected] - columns.start]
            if rows != columns:
                (selected,) = np.nonzero((index >= rows.start) & (index < rows.stop))
                result[columns, selected] = block[index[selected] - rows.start].T
        return result

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Compute K v.

        Args:
            v: Vectors as columns, shape (n, k).

        Returns:
            The product in float64, shape (n, k).

        Raises:
            ValueError: If `v` does not have n rows.
        """
        if len(v) != self.n:
            raise ValueError(f"v must be an array of shape ({self.n}, k), got shape {v.shape}.")
        result = np.zeros(v.shape)
        for rows, columns, block in self.blocks():
            block = np.ascontiguousarray(block, self.dtype)
            above, below = half_products(block, v[columns], None if rows == columns else v[rows])
            result[rows] += above
            result[columns] += below
        return result


def error_norm(rounding: float, diagonal: float, n: int) -> float:
    """Return a conservative estimate of the spectral norm of the rounding errors in a kernel.

    The estimate is twice the typical norm of a matrix of independent errors.

    Args:
        rounding: Error in an entry relative to the largest entry.
        diagonal: Largest diagonal entry of the kernel.
        n: Number of rows.

    Returns:
        The estimated spectral norm, in the units of the kernel.
    """
    return 2 * rounding * diagonal * float(np.sqrt(n))


def _times(block: Array, w: Array) -> Array:
    """Return block @ w.T, which XLA computes faster than block @ v with v = w.T stored explicitly."""
    return jax.lax.dot_general(block, w, (((1,), (1,)), ((), ())))


@jax.jit
def widened_product(block: Array, w: Array) -> Array:
    """Return block @ w.T in the dtype of `w`; if the dtypes differ, `block` is converted PANEL rows at a time."""
    if block.dtype == w.dtype:
        return _times(block, w)
    size = min(PANEL, len(block))
    panels = len(block) // size

    def panel(i: Array) -> Array:
        return _times(jax.lax.dynamic_slice_in_dim(block, i * size, size).astype(w.dtype), w)

    product = jax.lax.map(panel, jnp.arange(panels)).reshape(panels * size, len(w))
    if panels * size == len(block):
        return product
    return jnp.concatenate([product, _times(block[panels * size :].astype(w.dtype), w)])


class ShiftedOperator(KernelOperator):
    """The matrix K + beta I for a kernel operator K.

    Args:
        k: Kernel operator K.
        ridge: Number beta to add to the diagonal.
    """

    def __init__(self, k: KernelOperator, ridge: float) -> None:
        """Store the arguments without computing any blocks."""

        def block(rows: slice, columns: slice) -> np.ndarray:
            entries = k._block(rows, columns)
            if rows != columns:
                return entries
            return entries.astype(np.float64) + ridge * np.eye(len(entries))

        super().__init__(k.n, block, k.dtype.name, k.rounding, k.storage, k._size)
        self._kernel, self._ridge = k, ridge

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Return (K + beta I) v."""
        return self._kernel.product(v) + self._ridge * v


class CrossOperator:
    """Kernel between new inputs (n1 rows) and the inputs of an operator (n rows), recomputed for every product.

    Args:
        kernel: Function `kernel(x1, x2, dtype=...)`, as in `lazynet.kernel_operator`.
        x1: New inputs, shape (n1, d).
        x2: Inputs of the operator, shape (n, d).
        dtype: Dtype of the entries, "float64" or "float32".

    Raises:
        ValueError: If `x1` is not a finite matrix with as many columns as `x2`.

    Attributes:
        shape: Shape (n1, n).
    """

    def __init__(
        self, kernel: Callable[..., np.ndarray], x1: Float[AnyArray, "n1 d"], x2: Float[AnyArray, "n d"], dtype: str
    ) -> None:
        """Check the inputs without computing any entries."""
        if x1.ndim != 2 or x1.shape[1] != x2.shape[1]:
            raise ValueError(f"x1 must be an array of shape (n1, {x2.shape[1]}), got shape {x1.shape}.")
        if not np.isfinite(x1).all():
            raise ValueError("x1 must be finite, got NaN or infinite entries.")
        self.shape = len(x1), len(x2)
        self._block = lambda rows, columns: kernel(x1[rows], x2[columns], dtype=dtype)

    def __repr__(self) -> str:
        """Return the shape."""
        return f"CrossOperator of shape {self.shape}"

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n1 k"]:
        """Compute K v.

        Args:
            v: Vectors as columns, shape (n, k).

        Returns:
            The product in float64, shape (n1, k).
        """
        result = np.zeros((self.shape[0], v.shape[1]))
        for rows in tiles(self.shape[0], BLOCK):
            for columns in tiles(self.shape[1], BLOCK):
                result[rows] += self._block(rows, columns).astype(np.float64, copy=False) @ v[columns]
        return result
