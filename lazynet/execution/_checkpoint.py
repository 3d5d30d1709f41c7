"""The state of a long cell while it is computed, stored by orbax."""

import hashlib
import io
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

# Seconds between two checkpoints.
SECONDS = 60.0


class CellCheckpoint:
    """The last state of one cell, in a folder of its own; `lazynet.training.simulate` describes the state.

    The state is one array of bytes with its SHA-256, so that damage is always noticed.
    """

    def __init__(self, folder: Path) -> None:
        """Use this folder, which need not exist."""
        self._folder, self._saved = folder.absolute(), time.monotonic()

    def part(self, name: str) -> "CellCheckpoint":
        """Return the checkpoint of one training within the cell."""
        return CellCheckpoint(self._folder / name)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the last state, None if there is none or it is damaged."""
        steps = self._steps()
        if not steps:
            return None
        try:
            stored = _checkpointer().restore(self._folder / str(steps[-1]))
            content = np.asarray(stored["content"]).tobytes()
            intact = np.asarray(stored["sha256"]).tobytes() == hashlib.sha256(content).digest()
        # orbax raises errors of many types for damaged files.
        except Exception:
            intact = False
        if not intact:
            warnings.warn(
                f"The checkpoint in {str(self._folder)!r} is damaged, and its cell starts again.", stacklevel=2
            )
            self.clear()
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def due(self) -> bool:
        """Return whether a minute has passed since the last state was saved."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace the last state; a process that is killed meanwhile leaves the previous one."""
        before, stream = self._steps(), io.BytesIO()
        named: dict[str, Any] = arrays
        np.savez(stream, **named)
        content = stream.getvalue()
        tree = {
            "content": np.frombuffer(content, np.uint8),
            "sha256": np.frombuffer(hashlib.sha256(content).digest(), np.uint8),
        }
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(self._folder / str(step), tree, force=True)
        except OSError as error:
            # The study goes on: only a resumed one would miss the checkpoint.
            warnings.warn(f"A checkpoint could not be written: {error}", stacklevel=2)
            return
        finally:
            self._saved = time.monotonic()
        for old in before:
            if old != step:
                shutil.rmtree(self._folder / str(old))

    def clear(self) -> None:
        """Remove all states, of a cell that is finished or starts again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """Return the steps of all complete states; orbax gives drafts other names."""
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())


class Budget:
    """A checkpoint that is also due at the end of the time limit, and ends the study once it is saved."""

    def __init__(self, checkpoint: CellCheckpoint, deadline: float) -> None:
        """Combine a checkpoint with the end of the time limit on the clock `time.monotonic`."""
        self._checkpoint, self._deadline = checkpoint, deadline

    def part(self, name: str) -> "Budget":
        """Return the checkpoint of one training within the cell."""
        return Budget(self._checkpoint.part(name), self._deadline)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the last state, None if there is none or it is damaged."""
        return self._checkpoint.load()

    def due(self) -> bool:
        """Return whether it is time to save, or to end."""
        return self.over() or self._checkpoint.due()

    def over(self) -> bool:
        """Return whether the time limit is over."""
        return time.monotonic() >= self._deadline

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace the last state.

        Raises:
            OutOfTime: if the time limit is over.
        """
        self._checkpoint.save(step, arrays)
        if self.over():
            raise OutOfTime


class OutOfTime(Exception):
    """The time limit of a study is over."""


def _checkpointer() -> Any:
    # orbax takes a while to load.
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()
