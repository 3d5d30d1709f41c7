"""What a job takes, in bytes, before it starts; and the one refusal of a job that cannot fit."""

import os
from pathlib import Path

import jax


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
