"""Estimates of how much memory and how many operations a job needs, and errors for jobs that do not fit in memory."""

import os
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import NamedTuple

import jax

# Jobs that need at most this number of bytes are not checked, because reading the amount of free memory takes as long
# as computing a small kernel.
SMALL = 2**28

# Maximum number of seeds, snapshots, shards or grid points. A record of each one is kept in memory.
MOST = 10**6


class Job(NamedTuple):
    """The memory and the number of operations that a job needs.

    Attributes:
        name: Name of the job in error messages.
        bytes: Number of bytes used for each purpose; all of them are in use at the same time.
        flops: Number of floating-point operations for each purpose, counting only the expensive parts.
        share: Approximate speed of these operations, as a fraction of the speed of a large matrix product.
    """

    name: str
    bytes: dict[str, int]
    flops: dict[str, float]
    share: float = 1.0

    def __str__(self) -> str:
        """Return one line that lists the memory and the number of operations, each with a breakdown in parentheses."""
        memory = _total_and_parts({name: value / 1e9 for name, value in self.bytes.items()}, "GB")
        work = _total_and_parts({name: value / 1e12 for name, value in self.flops.items()}, "TFLOP")
        return f"{self.name}: {memory}, {work}"

    def seconds(self, rate: float) -> float:
        """Return the time that the operations need.

        Args:
            rate: Speed of a large matrix product, in floating-point operations per second.

        Returns:
            The time in seconds.
        """
        return sum(self.flops.values()) / (self.share * rate)

    def check(self) -> None:
        """Raise an error if the job needs more memory than is available.

        Raises:
            ValueError: If the job does not fit in memory.
        """
        check_memory(self.name, sum(self.bytes.values()))


def _total_and_parts(parts: dict[str, float], unit: str) -> str:
    listed = ", ".join(f"{name} {value:.3g}" for name, value in parts.items() if value)
    return f"{sum(parts.values()):.3g} {unit} ({listed})" if listed else f"0 {unit}"


def available_memory() -> int:
    """Return the number of bytes that this process may still allocate under the machine's and the cgroup's limits."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        # MemAvailable includes the page cache, which the operating system frees on demand.
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":") for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    return min(free, _cgroup_memory(default=free))


def _cgroup_memory(default: int) -> int:
    """Return the bytes left under the limit set by a container or scheduler, or `default` if there is no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # The page cache counts as used memory, but the operating system frees it on demand.
        return max(0, limit - used + int(fields["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return default


def device_memory(devices: list[jax.Device]) -> int:
    """Return the number of bytes available for arrays split evenly across the devices.

    On CPUs, return half of the free memory.
    """
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in device_stats for device_stats in stats):
        return available_memory() // 2
    return len(devices) * min(device_stats["bytes_limit"] - device_stats["bytes_in_use"] for device_stats in stats)


def symmetric_bytes(n: int, itemsize: int, block: int) -> int:
    """Return the number of bytes in the upper triangle of an n x n matrix stored in blocks of `block` rows."""
    full, rest = divmod(n, block)
    sizes = [block] * full + [rest] * (rest > 0)
    return itemsize * sum(rows * sum(sizes[i:]) for i, rows in enumerate(sizes))


def check_fits(name: str, needed: int, free: int, where: str = "memory") -> None:
    """Raise an error if a job needs more memory or disk space than is available.

    Args:
        name: Name of the job, used as the subject of the error message.
        needed: Number of bytes that the job needs.
        free: Number of bytes that are available.
        where: Where the bytes are stored, such as "memory" or "disk".

    Raises:
        ValueError: If `needed` exceeds `free`.
    """
    if needed > free:
        raise ValueError(f"{name} needs {needed / 1e9:.2f} GB of {where}, but only {free / 1e9:.2f} GB is free.")


def check_memory(name: str, needed: int) -> None:
    """Raise an error if a job needs more memory than is available; small jobs always pass.

    Raises:
        ValueError: If the job does not fit in memory.
    """
    if needed > SMALL:
        check_fits(name, needed, available_memory())


def eigenvectors_bytes(n: int) -> int:
    """Return the number of bytes needed to compute all eigenvectors of an n x n float64 matrix.

    The total includes LAPACK's workspace of 2 n^2 numbers.
    """
    return 3 * 8 * n**2


def eigenvectors_flops(n: int) -> float:
    """Return the operation count of a full eigendecomposition, about 9 n^3 (Golub and Van Loan 2013, section 8.3.4)."""
    return 9.0 * n**3


class Blocks(NamedTuple):
    """The division of a matrix into blocks: the number of rows per block and the number of feature blocks in memory."""

    rows: int
    held: int


def plan_blocks(name: str, n: int, max_rows: int, free: int, needed: Callable[[int], tuple[int, int]]) -> Blocks:
    """Choose the largest blocks of rows that fit in the available memory.

    Args:
        name: Name of the job in error messages.
        n: Number of rows.
        max_rows: Maximum number of rows per block.
        free: Number of bytes that may be allocated.
        needed: Function that takes the number of rows per block and returns two byte counts: one for working
            memory, and one for the features of each block held in memory.

    Returns:
        The number of rows per block and the number of feature blocks held in memory.

    Raises:
        ValueError: If blocks of one row do not fit in memory.
    """
    # All blocks have the same size; the last one is padded.
    rows = ceil(n / ceil(n / max_rows))
    working, per_block = needed(rows)
    if working + ceil(n / rows) * per_block > free:
        single_row, all_rows = sum(needed(1)), working + per_block
        check_fits(name, single_row, free)
        # Leave half of the memory for holding more blocks. Memory use grows at least linearly with the number of rows,
        # so linear interpolation between one row and the current number of rows never underestimates it.
        if all_rows > single_row:
            rows = min(rows, 1 + (free - single_row) // 2 * (rows - 1) // (all_rows - single_row))
        while rows > 1 and sum(needed(rows)) > free:
            rows //= 2
        working, per_block = needed(rows)
    return Blocks(rows, min(ceil(n / rows), (free - working) // per_block))
