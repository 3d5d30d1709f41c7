"""Where a long cell is kept while it is trained, by orbax."""

import hashlib
import io
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60.0  # between two checkpoints


class CellCheckpoint:
    """The last state of one cell, in a folder of its own; `lazynet.training.simulate` says what is in it.

    All of it is one array of bytes beside its SHA-256, so that what is damaged is never taken for whole.
    """

    def __init__(self, folder: Path) -> None:
        """A checkpoint in this folder, which need not exist."""
        self._folder, self._saved = folder.absolute(), time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """What was saved last, None where nothing was or it is damaged."""
        steps = self._steps()
        if not steps:
            return None
        try:
            kept = _checkpointer().restore(self._folder / str(steps[-1]))
            content = np.asarray(kept["content"]).tobytes()
            whole = np.asarray(kept["sha256"]).tobytes() == hashlib.sha256(content).digest()
        # Whatever orbax says of files that are not as it wrote them.
        except Exception:
            whole = False
        if not whole:
            warnings.warn(
                f"The checkpoint in {str(self._folder)!r} is damaged, and its cell begins anew.", stacklevel=2
            )
            self.clear()
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def due(self) -> bool:
        """Whether a minute is over since the last time."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save this in place of what was saved before; a process that is killed meanwhile keeps the one before."""
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
            # Nothing is lost but the way back.
            warnings.warn(f"A checkpoint could not be written: {error}", stacklevel=2)
            return
        finally:
            self._saved = time.monotonic()
        for old in before:
            if old != step:
                shutil.rmtree(self._folder / str(old))

    def clear(self) -> None:
        """The cell is finished, or begins anew."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """Steps with a whole checkpoint: orbax gives drafts another name until they are."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdigit())


class Budget:
    """A checkpoint that is due when the time of a sweep is over, and ends it once it is saved."""

    def __init__(self, checkpoint: CellCheckpoint, deadline: float) -> None:
        """The checkpoint, and the time on the clock `time.monotonic`."""
        self._checkpoint, self._deadline = checkpoint, deadline

    def load(self) -> dict[str, np.ndarray] | None:
        """What was saved last."""
        return self._checkpoint.load()

    def due(self) -> bool:
        """Whether it is time to save, or to end."""
        return self.over() or self._checkpoint.due()

    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._deadline

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save.

        Raises:
            OutOfTime: if the time is over.
        """
        self._checkpoint.save(step, arrays)
        if self.over():
            raise OutOfTime


class OutOfTime(Exception):
    """The time of a sweep is over."""


def _checkpointer() -> Any:
    # Only here, because orbax takes a while to load.
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()
