"""What a job takes, in bytes, before it starts; and the one refusal of a job that cannot fit."""

import os


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
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            return [max(0, int(limit.read()) - int(used.read()))]
    except (OSError, ValueError):
        return [otherwise]


def symmetric_bytes(n: int, itemsize: int, block: int) -> int:
    """Bytes of the upper triangle of an n x n matrix in blocks of `block` rows."""
    full, rest = divmod(n, block)
    sizes = [block] * full + [rest] * (rest > 0)
    return itemsize * sum(rows * sum(sizes[i:]) for i, rows in enumerate(sizes))


def check_fits(what: str, needed: int, memory: int) -> None:
    """Refuse a job that needs more memory than there is.

    Raises:
        ValueError: with both numbers.
    """
    if needed > memory:
        raise ValueError(f"{what} takes {needed / 1e9:.2f} GB, but {memory / 1e9:.2f} GB of memory are free for it.")
