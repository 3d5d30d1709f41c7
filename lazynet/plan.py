"""What a job takes, in bytes and operations, before it starts; and the one refusal of a job that cannot fit."""

import os
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import NamedTuple

import jax

# A look at what is free takes as long as a small kernel, and so many bytes are always there.
SMALL = 2**28


class Job(NamedTuple):
    """What a job takes, and for what.

    Attributes:
        name: what a refusal calls it.
        bytes: that it must hold at the same time, by what they are for.
        flops: floating-point operations of its large parts, by what they are for.
        share: of the rate of a large matrix product, about, at which they run.
    """

    name: str
    bytes: dict[str, int]
    flops: dict[str, float]
    share: float = 1.0

    def __str__(self) -> str:
        """One line, with the parts in brackets."""
        memory = _with_parts({name: value / 1e9 for name, value in self.bytes.items()}, "GB")
        work = _with_parts({name: value / 1e12 for name, value in self.flops.items()}, "TFLOP")
        return f"{self.name}: {memory}, {work}"

    def check(self) -> None:
        """Refuse it if it needs more memory than is free.

        Raises:
            ValueError: with both numbers.
        """
        check_memory(self.name, sum(self.bytes.values()))


def _with_parts(parts: dict[str, float], unit: str) -> str:
    listed = ", ".join(f"{name} {value:.3g}" for name, value in parts.items() if value)
    return f"{sum(parts.values()):.3g} {unit} ({listed})" if listed else f"0 {unit}"


def available_memory() -> int:
    """Bytes of memory that this process may still take: what the machine has free, or less where a limit is set."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        # Counts the page cache, which the system gives back when asked.
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":") for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    return min(free, *_cgroup_room(free))


def _cgroup_room(otherwise: int) -> list[int]:
    """What a container's or a scheduler's limit leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that were read or written count as used, and are given back when asked.
        return [max(0, limit - used + int(fields["inactive_file"]))]
    except (OSError, ValueError, KeyError):
        return [otherwise]


def device_memory(devices: list[jax.Device]) -> int:
    """Bytes that arrays shared evenly over these devices may still take; on a CPU half of what is available."""
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in each for each in stats):
        return available_memory() // 2
    return len(devices) * min(each["bytes_limit"] - each["bytes_in_use"] for each in stats)


def symmetric_bytes(n: int, itemsize: int, block: int) -> int:
    """Bytes of the upper triangle of an n x n matrix in blocks of `block` rows."""
    full, rest = divmod(n, block)
    sizes = [block] * full + [rest] * (rest > 0)
    return itemsize * sum(rows * sum(sizes[i:]) for i, rows in enumerate(sizes))


def check_fits(what: str, needed: int, free: int, where: str = "memory") -> None:
    """Refuse a job that needs more memory, or disk, than there is.

    Raises:
        ValueError: with both numbers.
    """
    if needed > free:
        raise ValueError(f"{what} takes {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB of {where} are free for it.")


def check_memory(what: str, needed: int) -> None:
    """Refuse a job that needs more memory than is free; what is always there is not looked up.

    Raises:
        ValueError: with both numbers.
    """
    if needed > SMALL:
        check_fits(what, needed, available_memory())


def eigenvectors_bytes(n: int) -> int:
    """Bytes that all eigenvectors of a float64 matrix of n rows take beside it: they and LAPACK's 2 n^2."""
    return 3 * 8 * n**2


def eigenvectors_flops(n: int) -> float:
    """Operations of finding them, about 9 n^3 (Golub and Van Loan 2013, section 8.3.4)."""
    return 9.0 * n**3


class Blocks(NamedTuple):
    """How a matrix is computed: rows of a block, and how many blocks' features are held at a time."""

    rows: int
    held: int


def plan_blocks(what: str, n: int, most: int, free: int, needed: Callable[[int], tuple[int, int]]) -> Blocks:
    """Blocks of n rows, of `most` rows at most, that fit into the memory that is free.

    Args:
        what: the job, as a refusal names it.
        n: number of rows.
        most: rows of a block at most.
        free: bytes that may be taken.
        needed: for a number of rows to a block, the bytes taken beside what is held, and those held of each block.

    Raises:
        ValueError: with both numbers, if blocks of one row do not fit.
    """
    # Equal blocks: the last one is filled up.
    rows = ceil(n / ceil(n / most))
    beside, each = needed(rows)
    if beside + ceil(n / rows) * each > free:
        one, many = sum(needed(1)), beside + each
        check_fits(what, one, free)
        # Half is left for more blocks to hold. Bytes grow as rows or faster, and so lie below the line from 1 to here.
        if many > one:
            rows = min(rows, 1 + (free - one) // 2 * (rows - 1) // (many - one))
        while rows > 1 and sum(needed(rows)) > free:
            rows //= 2
        beside, each = needed(rows)
    return Blocks(rows, min(ceil(n / rows), (free - beside) // each))
