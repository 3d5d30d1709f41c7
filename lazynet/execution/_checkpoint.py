"""Orbax checkpoints for cells that take a long time to compute."""

import hashlib
import io
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

# Seconds between checkpoints.
SECONDS = 60.0


class CellCheckpoint:
    """The last saved state of one cell, stored in a separate folder.

    `lazynet.training.simulate` determines what the state contains. The state is stored as an array of bytes, together
    with the SHA-256 hash of these bytes, so that any damage is detected.
    """

    def __init__(self, folder: Path) -> None:
        """Create a checkpoint in the given folder, which need not exist yet."""
        self._folder, self._saved = folder.absolute(), time.monotonic()

    def part(self, name: str) -> "CellCheckpoint":
        """Return the checkpoint for one training run within the cell."""
        return CellCheckpoint(self._folder / name)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the last saved state, or None if no state has been saved or the state is damaged."""
        steps = self._steps()
        if not steps:
            return None
        try:
            stored = _checkpointer().restore(self._folder / str(steps[-1]))
            content = np.asarray(stored["content"]).tobytes()
            intact = np.asarray(stored["sha256"]).tobytes() == hashlib.sha256(content).digest()
            with np.load(io.BytesIO(content), allow_pickle=False) as named:
                arrays = dict(named)
        # Orbax raises many different types of errors if its files are damaged.
        except Exception:
            intact = False
        if not intact:
            warnings.warn(
                f"The checkpoint in {str(self._folder)!r} is damaged, so its cell will be recomputed from the "
                "beginning.",
                stacklevel=2,
            )
            self.clear()
            return None
        return arrays

    def due(self) -> bool:
        """Return whether at least a minute has passed since the checkpoint was created or last saved."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace the last saved state. If the process is killed during the save, the previous state is kept."""
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
            # The study continues despite the error, because checkpoints are needed only to resume it.
            warnings.warn(f"A checkpoint could not be written: {error}", stacklevel=2)
            return
        finally:
            self._saved = time.monotonic()
        for old in before:
            if old != step:
                shutil.rmtree(self._folder / str(old))

    def clear(self) -> None:
        """Remove all saved states. Called when the cell is finished or must be recomputed from the beginning."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """Return the steps of all completely saved states, in ascending order.

        The name of a completely saved state is its step number; incomplete states have other names.
        """
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())


class Budget:
    """A checkpoint that is also due once the study's time limit is reached.

    From then on, `save` raises `OutOfTime` after storing the state.
    """

    def __init__(self, checkpoint: CellCheckpoint, deadline: float) -> None:
        """Combine a checkpoint with a deadline, given as a value of `time.monotonic()`."""
        self._checkpoint, self._deadline = checkpoint, deadline

    def part(self, name: str) -> "Budget":
        """Return the checkpoint for one training run within the cell."""
        return Budget(self._checkpoint.part(name), self._deadline)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the last saved state, or None if no state has been saved or the state is damaged."""
        return self._checkpoint.load()

    def due(self) -> bool:
        """Return whether the underlying checkpoint is due or the time limit has been reached."""
        return self.over() or self._checkpoint.due()

    def over(self) -> bool:
        """Return whether the time limit has been reached."""
        return time.monotonic() >= self._deadline

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace the last saved state.

        Raises:
            OutOfTime: If the time limit has been reached. The state is saved first.
        """
        self._checkpoint.save(step, arrays)
        if self.over():
            raise OutOfTime


class OutOfTime(Exception):
    """Raised when the time limit of a study is reached."""


def _checkpointer() -> Any:
    # Importing Orbax is slow, so it is imported only when it is needed.
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()
