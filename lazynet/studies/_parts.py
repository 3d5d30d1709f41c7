"""Studies that consist of several sweeps, each stored in a subfolder of the study's folder."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from lazynet.execution import RunFolder


@dataclass(frozen=True)
class Parts:
    """The folder of a study that consists of several sweeps.

    Attributes:
        folder: The study's folder, or None to store nothing.
        deadline: The time at which the time limit expires, as a value of `time.monotonic()`.
    """

    folder: RunFolder | None
    deadline: float

    @classmethod
    def starting_now(cls, folder: RunFolder | None) -> "Parts":
        """Return the folder of a study whose time limit starts now."""
        limit = float("inf") if folder is None or folder.max_seconds is None else folder.max_seconds
        return cls(folder, time.monotonic() + limit)

    def subfolder(self, name: str) -> RunFolder | None:
        """Return the folder for one of the sweeps, or None if nothing is stored.

        Args:
            name: Name of the subfolder.
        """
        folder = self.folder
        if folder is None:
            return None
        left = None if folder.max_seconds is None else max(self.deadline - time.monotonic(), 1e-3)
        # The subfolder inherits `resume`: when the study is resumed, the subfolder may already exist, but it need not.
        return replace(folder, path=Path(folder.path) / name, max_seconds=left)
