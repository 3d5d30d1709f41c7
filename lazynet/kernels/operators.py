"""Kernel matrices that are multiplied and never looked at: the upper triangle in blocks, stored or computed anew."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import Float

from lazynet.kernels.spectrum import tiles, upper_tiles
from lazynet.plan import available_memory, check_fits, symmetric_bytes
from lazynet.typing import AnyArray

BLOCK = 2048  # rows of a stored block
TILE = 512  # rows of what is multiplied at once: its copy in float64 stays in the cache
WORKING = 2**28  # bytes that computing a block takes at most, beside what is stored
# Relative error of an entry of a kernel computed in float32, twice that of rounding (on images a random vector shows
# 0.2 to 1.2 times that).
COMPUTED = 2.0**-23


class KernelOperator:
    """A symmetric kernel matrix K (n, n) known by its products.

    Only the blocks of the upper triangle are kept or computed; a product reads each of them once and uses it twice.
    Vectors, sums and results are float64 whatever the dtype of the entries.

    Attributes:
        n: number of rows.
        dtype: of the entries.
        rounding: relative error of an entry, 0 where it is exact as far as lazynet knows.
        storage: "memory", "disk" or "none".
    """

    def __init__(
        self, n: int, block: Callable[[slice, slice], np.ndarray], dtype: str, rounding: float, storage: str
    ) -> None:
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
        # BLAS does not share a product as narrow as this between threads.
        workers = os.cpu_count() or 1
        sums = np.zeros((workers, *v.shape))
        with ThreadPoolExecutor(workers) as pool:
            for rows, columns, block in self.blocks():
                places = [
                    (i, j)
                    for i in tiles(block.shape[0], TILE)
                    for j in tiles(block.shape[1], TILE)
                    if rows != columns or j.start >= i.start
                ]
                shares = [places[worker::workers] for worker in range(workers)]
                multiply = partial(_multiply, block, rows.start, columns.start, v)
                # A list, so that an error in a thread is an error here.
                list(pool.map(multiply, shares, sums))
        return sums.sum(axis=0)


def _multiply(
    block: np.ndarray, above: int, left: int, v: np.ndarray, places: list[tuple[slice, slice]], result: np.ndarray
) -> None:
    """Add tiles of a block of the upper triangle, and their transposes, times v."""
    wide = np.empty(TILE * TILE)
    for i, j in places:
        tile = block[i, j]
        if tile.dtype != np.float64:
            copy = wide[: tile.size].reshape(tile.shape)
            np.copyto(copy, tile)
            tile = copy
        here, there = slice(above + i.start, above + i.stop), slice(left + j.start, left + j.stop)
        result[here] += tile @ v[there]
        if here != there:
            result[there] += tile.T @ v[here]


def kernel_operator(
    kernel: Callable[..., np.ndarray],
    x: Float[AnyArray, "n d"],
    *,
    dtype: str = "float64",
    storage: str | None = None,
    memory: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> KernelOperator:
    """The kernel matrix of many rows as an operator, for `kernel_descent`, `kernel_flow` and `complexity`.

    Args:
        kernel: a function `kernel(x1, x2=None, dtype=...)`, such as `lazynet.analytic_kernel` gives.
        x: inputs (n, d).
        dtype: of the entries, "float64" or "float32", which halves the bytes at a cost that every error tells.
        storage: "memory" keeps the upper triangle, n^2 / 2 entries; "disk" keeps it in a temporary file that goes with
            the operator; "none" computes every block anew for every product. Left out, "memory" where it fits, else
            "disk".
        memory: bytes that may be taken; left out, what is free.
        progress: is called with the share that is done, as blocks are computed.

    Raises:
        ValueError: before any work, if dtype or storage is not one of those, or the memory does not suffice; and if
            an entry is not finite.

    >>> import numpy as np, lazynet as lz
    >>> k = lz.kernel_operator(lz.analytic_kernel(lz.TwoLayer(width=2)), np.eye(3))
    >>> lz.kernel_descent(k, np.ones(3), learning_rate=1.0, steps=[1]).train
    array([[0.5, 0.5, 0.5]])
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype is {dtype!r}, but must be 'float64' or 'float32'.")
    if storage not in ("memory", "disk", "none", None):
        raise ValueError(f"storage is {storage!r}, but must be 'memory', 'disk' or 'none'.")
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"x has shape {x.shape}, but must be finite rows (n, d), at least one.")
    n, itemsize = len(x), np.dtype(dtype).itemsize
    needed = symmetric_bytes(n, itemsize, BLOCK)
    room = (available_memory() if memory is None else memory) - WORKING
    if storage is None:
        storage = "memory" if needed <= room else "disk"
    if storage == "memory":
        check_fits(f"A kernel of {n} rows in {dtype} (half of it, in blocks)", needed, room)
    rounding = COMPUTED if dtype == "float32" else 0.0

    def compute(rows: slice, columns: slice) -> np.ndarray:
        block = kernel(x[rows], dtype=dtype) if rows == columns else kernel(x[rows], x[columns], dtype=dtype)
        if not np.isfinite(block).all():
            raise ValueError(f"The kernel of rows {rows.start} to {rows.stop - 1} has NaN or infinite entries.")
        return block

    if storage == "none":
        return KernelOperator(n, compute, dtype, rounding, storage)
    entries: np.ndarray
    if storage == "memory":
        entries = np.empty(needed // itemsize, dtype)
    else:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        check_fits(f"A kernel of {n} rows in {dtype} (half of it, in blocks)", needed, free, "disk")
        with tempfile.TemporaryFile() as file:
            # Taken now, because a file that cannot grow later kills the process.
            os.posix_fallocate(file.fileno(), 0, needed)
            entries = np.memmap(file, dtype, "w+", shape=(needed // itemsize,))
    places, start = {}, 0
    for rows, columns in upper_tiles(n, BLOCK):
        shape = rows.stop - rows.start, columns.stop - columns.start
        block = entries[start : start + shape[0] * shape[1]].reshape(shape)
        start += block.size
        block[:] = compute(rows, columns)
        places[rows.start, columns.start] = block
        if progress is not None:
            progress(start / entries.size)
    return KernelOperator(n, lambda rows, columns: places[rows.start, columns.start], dtype, rounding, storage)


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
