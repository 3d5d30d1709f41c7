"""The folder of a study: how the study resumes, shares its work and ends in time."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFolder:
    """A folder for a study that may be stopped, resumed and shared by several processes.

    Every finished cell is stored at once, with its checksum, and the state of a long cell once a minute. A resumed
    study gives the result of a study that was never stopped, bit for bit, on machines of one kind.

    Args:
        path: the folder.
        resume: whether the folder may exist. Then only the cells that it lacks are computed. The study must be the one
            that began it.
        shard: (k, N), to compute the k-th of N shares of the cells. All N processes share the folder and may find it
            begun; each study then returns None, and `lazynet.merge_shards` assembles the result.
        max_seconds: time limit in seconds, after which the study stores its state and raises TimeoutError.

    Raises:
        ValueError: if an argument is not as described.

    >>> import tempfile, lazynet as lz
    >>> data, path = lz.load_dataset("digits", n_train=32, n_test=8), tempfile.mkdtemp()
    >>> folder = lz.RunFolder(path, resume=True)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10, out=folder)
    """

    path: str | Path
    resume: bool = False
    shard: tuple[int, int] | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that no folder has."""
        if not isinstance(self.path, str | os.PathLike):
            raise ValueError(f"out must be a path or a lazynet.RunFolder, got {self.path!r}.")
        if not isinstance(self.resume, bool):
            raise ValueError(f"resume must be True or False, got {self.resume!r}.")
        if self.shard is not None:
            _check_shard(self.shard)
        limit = self.max_seconds
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise ValueError(f"max_seconds must be positive, got {limit!r}.")

    @property
    def may_exist(self) -> bool:
        """True if the folder may exist already."""
        return self.resume or self.shard is not None

    def check(self) -> None:
        """Refuse a folder that exists and may not, and one that cannot be made."""
        path = Path(self.path)
        if self.may_exist and path.is_dir():
            return
        if path.exists():
            raise ValueError(f"out must be a new folder, got {str(path)!r}, which exists.")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"out must be a folder that can be made, got {str(path)!r}.")


def as_run_folder(out: Any) -> RunFolder | None:
    """Return the run folder that the argument `out` of a study means."""
    return out if out is None or isinstance(out, RunFolder) else RunFolder(out)


def _check_shard(shard: Any) -> None:
    pair = isinstance(shard, tuple | list) and len(shard) == 2 and all(isinstance(part, int) for part in shard)
    if not pair:
        raise ValueError(f"shard must be (k, N), two whole numbers, got {shard!r}.")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard must be k/N with k from 1 to N, got {shard[0]}/{shard[1]}.")
