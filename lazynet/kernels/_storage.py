"""Large kernels whose entries are stored in memory, on disk or on the devices, or recomputed for every product."""

import os
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lazynet.arguments import calls_of, check_callback, check_choice, check_count, described
from lazynet.arrays import real_array
from lazynet.kernels import _operators as operators
from lazynet.kernels._checks import check_dtype
from lazynet.kernels._dense import DeviceOperator, put_on_devices
from lazynet.kernels._operators import Block, KernelOperator
from lazynet.kernels._spectrum import upper_tiles
from lazynet.plan import Job, available_memory, check_fits, device_memory, symmetric_bytes
from lazynet.precision import float64_devices
from lazynet.typing import AnyArray

WORKING = 2**28  # bytes of working memory for computing a block, in addition to the stored entries
# Assumed error in the entries of a kernel computed in float32, relative to the largest entry: twice the unit roundoff.
# For image kernels, the errors estimated from products with random vectors are 0.2 to 1.2 times this value.
COMPUTED = 2.0**-23
ALIGNED = 64  # alignment in bytes that lets JAX use a NumPy array without copying it
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
    """Wrap a large kernel matrix as an operator for `kernel_descent`, `kernel_flow` and `complexity`.

    Args:
        kernel: Function `kernel(x1, x2=None, dtype=...)`, as returned by `lazynet.analytic_kernel`.
        x: Inputs, shape (n, d).
        dtype: Dtype of the entries, "float64" or "float32". Float32 entries use half the memory, and their rounding
            errors are included in the error estimates for all results.
        storage: "memory" stores the upper triangle, n^2 / 2 entries, in memory. "disk" stores the upper triangle in a
            temporary file that is deleted along with the operator. "devices" distributes all rows across
            `jax.devices()`. "none" recomputes every block for every product. Defaults to "devices" if there are
            accelerators and the kernel fits in their memory, otherwise to "memory" if the kernel fits in host memory,
            and otherwise to "disk".
        memory: Host memory limit in bytes. Defaults to the free memory.
        progress: Function that is called with the fraction of the work completed as blocks are computed.

    Returns:
        A `lazynet.kernels.KernelOperator`.

    Raises:
        ValueError: If an argument is invalid, if the kernel does not fit in the chosen storage, or if an entry of the
            kernel is not finite. The arguments and the size are checked before any entries are computed.

    >>> import numpy as np, lazynet as lz
    >>> k = lz.kernel_operator(lz.analytic_kernel(lz.TwoLayer(width=2)), np.eye(3))
    >>> lz.kernel_descent(k, np.ones(3), learning_rate=1.0, steps=[1]).train
    array([[0.5, 0.5, 0.5]])
    """
    check_storage(dtype, storage)
    check_callback("progress", progress)
    if memory is not None:
        check_count("memory", memory, 0)
    if not callable(kernel):
        raise ValueError(f"kernel must be a function kernel(x1, x2=None, dtype=...), got {described(kernel)}.")
    x = real_array("x", x)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must be a nonempty array of shape (n, d), got shape {x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinite entries.")
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
        with calls_of("kernel"):
            block = kernel(x[rows], dtype=dtype) if rows == columns else kernel(x[rows], x[columns], dtype=dtype)
        block = real_array("The result of kernel", block)
        shape = rows.stop - rows.start, columns.stop - columns.start
        if block.shape != shape:
            raise ValueError(
                f"kernel must return an array of shape {shape} for x1 with {shape[0]} rows and x2 with {shape[1]} "
                f"rows, got shape {block.shape}."
            )
        if not np.isfinite(block).all():
            raise ValueError(
                f"kernel must return finite values, got NaN or infinity in rows {rows.start} to {rows.stop - 1}."
            )
        return block

    if storage == "none":
        return KernelOperator(n, compute, dtype, rounding, storage)
    if storage == "devices":
        return DeviceOperator(put_on_devices(n, compute, dtype, progress), rounding, storage)
    entries = _aligned_array(needed, dtype) if storage == "memory" else _array_on_disk(job.name, needed, dtype)
    return KernelOperator(n, _stored_blocks(n, compute, entries, progress), dtype, rounding, storage)


def check_storage(dtype: str, storage: str | None) -> None:
    """Check the dtype and the storage of a kernel operator.

    Args:
        dtype: Dtype of the entries, "float64" or "float32".
        storage: "memory", "disk", "devices", "none", or None for the default.

    Raises:
        ValueError: If `dtype` or `storage` is unknown.
    """
    check_dtype(dtype)
    check_choice("storage", storage, STORAGES, optional=True)


def choose_storage(n: int, dtype: str, room: int) -> str:
    """Return the default storage for the entries of a kernel.

    Args:
        n: Number of rows.
        dtype: Dtype of the entries, "float64" or "float32".
        room: Host memory available for the entries, in bytes.

    Returns:
        "devices" if there are accelerators and the kernel fits in their memory, otherwise "memory" if the upper
        triangle fits in `room` bytes, and otherwise "disk".
    """
    devices = float64_devices()
    if devices[0].platform != "cpu" and np.dtype(dtype).itemsize * n**2 <= device_memory(devices):
        return "devices"
    return "memory" if symmetric_bytes(n, np.dtype(dtype).itemsize, operators.BLOCK) <= room else "disk"


def kernel_job(n: int, d: int, dtype: str, storage: str) -> Job:
    """Return the memory and the number of operations needed to compute and store the entries of a kernel.

    Args:
        n: Number of rows.
        d: Number of input features.
        dtype: Dtype of the entries, "float64" or "float32".
        storage: "memory", "disk", "devices" or "none".

    Returns:
        A `lazynet.plan.Job`. Its dictionary `bytes` is empty if the entries are not stored.

    >>> kernel_job(1000, 10, "float32", "none").bytes
    {}
    """
    itemsize = np.dtype(dtype).itemsize
    half = symmetric_bytes(n, itemsize, operators.BLOCK)
    place, entries = {
        "none": ("not stored", {}),
        "devices": ("stored on the devices", {"entries, on the devices": itemsize * n**2}),
        "disk": ("upper triangle on disk", {"entries, on disk": half}),
        "memory": ("upper triangle in memory", {"entries": half}),
    }[storage]
    return Job(f"A kernel of {n} rows in {dtype} ({place})", entries, {"products of inputs": float(n) ** 2 * d})


def _aligned_array(needed: int, dtype: str) -> np.ndarray:
    """Allocate an array that is aligned so that JAX can use it without copying it."""
    raw = np.empty(needed + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + needed].view(dtype)


def _array_on_disk(name: str, needed: int, dtype: str) -> np.ndarray:
    """Allocate an array in a temporary file that is deleted along with the array."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    check_fits(name, needed, free, "disk space")
    with tempfile.TemporaryFile() as file:
        # Reserve the space now: if the disk filled up later, SIGBUS would kill the process.
        os.posix_fallocate(file.fileno(), 0, needed)
        return np.memmap(file, dtype, "w+", shape=(needed // np.dtype(dtype).itemsize,))


def _stored_blocks(n: int, compute: Block, entries: np.ndarray, progress: Callable[[float], None] | None) -> Block:
    """Compute the blocks of the upper triangle, store them in `entries`, and return a function that looks them up."""
    blocks, start = {}, 0
    for rows, columns in upper_tiles(n, operators.BLOCK):
        shape = rows.stop - rows.start, columns.stop - columns.start
        block = entries[start : start + shape[0] * shape[1]].reshape(shape)
        start += block.size
        block[:] = compute(rows, columns)
        blocks[rows.start, columns.start] = block
        if progress is not None:
            with calls_of("progress"):
                progress(start / entries.size)
    return lambda rows, columns: blocks[rows.start, columns.start]
