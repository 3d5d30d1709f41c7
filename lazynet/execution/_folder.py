"""The folder in which a study is stored, with options to resume or shard the study and to limit its run time."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazynet.arguments import as_number, check_flag, check_path, described
from lazynet.plan import MOST


@dataclass(frozen=True)
class RunFolder:
    """A folder for a study that can be stopped, resumed and shared among several processes.

    Every finished cell is stored immediately, with a checksum, and the state of a long-running cell is stored once a
    minute. On machines of the same kind, the result of a resumed study is bit-for-bit identical to that of an
    uninterrupted study.

    Args:
        path: Path of the folder.
        resume: Whether the folder may already exist. If it does, it must belong to the same study, and only the missing
            cells are computed.
        shard: A pair (k, N), or None to compute all cells. If a pair is given, the cells are divided into N shards, and
            only the k-th shard is computed. All N processes share the folder, so it may already exist. The study
            returns None, and `lazynet.merge_shards` assembles the result.
        max_seconds: Time limit in seconds, after which the study stores its state and raises TimeoutError.

    Raises:
        ValueError: If an argument is invalid.

    >>> import tempfile, lazynet as lz
    >>> data, path = lz.load_dataset("digits", n_train=32, n_test=8), tempfile.mkdtemp()
    >>> folder = lz.RunFolder(path, resume=True)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10, out=folder)
    """

    path: str | Path
    resume: bool = False
    shard: tuple[int, int] | None = None
    max_seconds: float | int | None = None

    def __post_init__(self) -> None:
        """Validate the arguments."""
        object.__setattr__(self, "path", check_path("path", self.path))
        check_flag("resume", self.resume)
        if self.shard is not None:
            _check_shard(self.shard)
        if self.max_seconds is not None and not (as_number(self.max_seconds) or 0) > 0:
            raise ValueError(f"max_seconds must be positive, got {described(self.max_seconds)}.")

    @property
    def may_exist(self) -> bool:
        """True if the folder may already exist before the study starts."""
        return self.resume or self.shard is not None

    def check(self) -> None:
        """Raise a ValueError if the folder must be new but already exists, or if it cannot be created."""
        path = Path(self.path)
        if self.may_exist and path.is_dir():
            return
        if path.exists() or path.is_symlink():
            raise ValueError(f"out must be a new folder, got {str(path)!r}, which already exists.")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"out must be a path where a folder can be created, got {str(path)!r}.")


def as_run_folder(out: Any) -> RunFolder | None:
    """Convert a study's `out` argument to a run folder.

    Args:
        out: Path of a folder, a `RunFolder`, or None to store nothing.

    Returns:
        A `RunFolder`, or None if `out` is None.

    Raises:
        ValueError: If `out` is not a path, a `RunFolder` or None.
    """
    if out is None or isinstance(out, RunFolder):
        return out
    if not isinstance(out, str | os.PathLike):
        raise ValueError(f"out must be a path or a lazynet.RunFolder, got {described(out)}.")
    return RunFolder(check_path("out", out))


def _check_shard(shard: Any) -> None:
    is_pair = isinstance(shard, tuple | list) and len(shard) == 2
    if not is_pair or not all(isinstance(part, int) and not isinstance(part, bool) for part in shard):
        raise ValueError(f"shard must be a pair (k, N) of integers, got {shard!r}.")
    if not 1 <= shard[0] <= shard[1] <= MOST:
        raise ValueError(f"shard must be k/N with 1 <= k <= N <= {MOST}, got {shard[0]}/{shard[1]}.")
