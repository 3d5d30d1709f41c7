"""Where the entries of a large kernel are kept: in memory, in a file, on the devices, or nowhere."""

import os
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lazynet.kernels import _operators as operators
from lazynet.kernels._dense import DeviceOperator, put_on_devices
from lazynet.kernels._operators import Block, KernelOperator
from lazynet.kernels._spectrum import upper_tiles
from lazynet.plan import Job, available_memory, check_fits, device_memory, symmetric_bytes
from lazynet.precision import float64_devices
from lazynet.typing import AnyArray

WORKING = 2**28  # bytes that computing a block takes at most, beside what is stored
# Error of an entry, relative to the largest, of a kernel computed in float32: twice that of rounding (on images a
# random vector shows 0.2 to 1.2 times that).
COMPUTED = 2.0**-23
ALIGNED = 64  # bytes
STORAGES = ("memory", "disk", "devices", "none")


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
            the operator; "devices" shares all rows over `jax.devices()`, which multiply them; "none" computes every
            block anew for every product. Left out, "devices" on accelerators where it fits there, else "memory" where
            it fits, else "disk".
        memory: bytes that may be taken of the host's memory; left out, what is free.
        progress: is called with the share that is done, as blocks are computed.

    Raises:
        ValueError: before any work, if dtype or storage is not one of those, or the memory does not suffice; and if
            an entry is not finite.

    >>> import numpy as np, lazynet as lz
    >>> k = lz.kernel_operator(lz.analytic_kernel(lz.TwoLayer(width=2)), np.eye(3))
    >>> lz.kernel_descent(k, np.ones(3), learning_rate=1.0, steps=[1]).train
    array([[0.5, 0.5, 0.5]])
    """
    check_storage(dtype, storage)
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"x has shape {x.shape}, but must be finite rows (n, d), at least one.")
    n, room = len(x), (available_memory() if memory is None else memory) - WORKING
    if storage is None:
        storage = choose_storage(n, dtype, room)
    job = kernel_job(n, x.shape[1], dtype, storage)
    needed = sum(job.bytes.values())
    if storage == "memory":
        check_fits(job.name, needed, room)
    if storage == "devices":
        check_fits(job.name, needed, device_memory(float64_devices()), "device memory")
    rounding = COMPUTED if dtype == "float32" else 0.0

    def compute(rows: slice, columns: slice) -> np.ndarray:
        block = kernel(x[rows], dtype=dtype) if rows == columns else kernel(x[rows], x[columns], dtype=dtype)
        shape = rows.stop - rows.start, columns.stop - columns.start
        if block.shape != shape:
            raise ValueError(f"kernel returned shape {block.shape} for {shape[0]} and {shape[1]} rows.")
        if not np.isfinite(block).all():
            raise ValueError(f"The kernel of rows {rows.start} to {rows.stop - 1} has NaN or infinite entries.")
        return block

    if storage == "none":
        return KernelOperator(n, compute, dtype, rounding, storage)
    if storage == "devices":
        return DeviceOperator(put_on_devices(n, compute, dtype, progress), rounding, storage)
    entries = _in_memory(needed, dtype) if storage == "memory" else _in_file(job.name, needed, dtype)
    return KernelOperator(n, _kept(n, compute, entries, progress), dtype, rounding, storage)


def check_storage(dtype: str, storage: str | None) -> None:
    """Refuse a dtype or a place for the entries that there is not."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype is {dtype!r}, but must be 'float64' or 'float32'.")
    if storage not in (*STORAGES, None):
        raise ValueError(f"storage is {storage!r}, but must be one of {', '.join(STORAGES)}.")


def choose_storage(n: int, dtype: str, room: int) -> str:
    """Where the kernel of n rows goes, with so many bytes of the host's memory for its entries."""
    devices, whole = float64_devices(), np.dtype(dtype).itemsize * n**2
    if devices[0].platform != "cpu" and whole <= device_memory(devices):
        return "devices"
    return "memory" if symmetric_bytes(n, np.dtype(dtype).itemsize, operators.BLOCK) <= room else "disk"


def kernel_job(n: int, d: int, dtype: str, storage: str) -> Job:
    """What the entries of a kernel take: their bytes where they are kept, and the products of inputs of d features."""
    itemsize = np.dtype(dtype).itemsize
    half = symmetric_bytes(n, itemsize, operators.BLOCK)
    kept, entries = {
        "none": ("nothing of it kept", {}),
        "devices": ("all of it, on the devices", {"entries, on the devices": itemsize * n**2}),
        "disk": ("half of it, in a file", {"entries, on disk": half}),
        "memory": ("half of it, in blocks", {"entries": half}),
    }[storage]
    return Job(f"A kernel of {n} rows in {dtype} ({kept})", entries, {"products of inputs": float(n) ** 2 * d})


def _in_memory(needed: int, dtype: str) -> np.ndarray:
    """An array that starts where JAX takes it without a copy."""
    raw = np.empty(needed + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + needed].view(dtype)


def _in_file(name: str, needed: int, dtype: str) -> np.ndarray:
    """An array in a temporary file that goes with it."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    check_fits(name, needed, free, "disk")
    with tempfile.TemporaryFile() as file:
        # Taken now, because a file that cannot grow later kills the process.
        os.posix_fallocate(file.fileno(), 0, needed)
        return np.memmap(file, dtype, "w+", shape=(needed // np.dtype(dtype).itemsize,))


def _kept(n: int, compute: Block, entries: np.ndarray, progress: Callable[[float], None] | None) -> Block:
    """The blocks of the upper triangle, computed once and kept one after the other."""
    places, start = {}, 0
    for rows, columns in upper_tiles(n, operators.BLOCK):
        shape = rows.stop - rows.start, columns.stop - columns.start
        block = entries[start : start + shape[0] * shape[1]].reshape(shape)
        start += block.size
        block[:] = compute(rows, columns)
        places[rows.start, columns.start] = block
        if progress is not None:
            progress(start / entries.size)
    return lambda rows, columns: places[rows.start, columns.start]
