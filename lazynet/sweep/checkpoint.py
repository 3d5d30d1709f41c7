"""Where a long cell is kept while it is computed, by orbax."""

import shutil
import time
from pathlib import Path
from typing import Any

SECONDS = 60.0  # between two checkpoints


class CellCheckpoint:
    """The last state of one cell, in a folder of its own; `lazynet.training.simulate` says what is in it."""

    def __init__(self, folder: Path) -> None:
        """A checkpoint in this folder, which need not exist."""
        self._folder, self._saved = folder.absolute(), time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was saved last, None where nothing was."""
        steps = self._steps()
        return _checkpointer().restore(self._folder / str(steps[-1])) if steps else None

    def due(self) -> bool:
        """Whether a minute is over since the last time."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, tree: dict[str, Any]) -> None:
        """Save this in place of what was saved before; a process that is killed meanwhile keeps the one before."""
        before = self._steps()
        with _checkpointer() as checkpointer:
            checkpointer.save(self._folder / str(int(tree["done"])), tree, force=True)
        for step in before:
            if step != int(tree["done"]):
                shutil.rmtree(self._folder / str(step))
        self._saved = time.monotonic()

    def clear(self) -> None:
        """The cell is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """Steps with a whole checkpoint: orbax gives drafts another name until they are."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdigit())


def _checkpointer() -> Any:
    # Only here, because orbax takes a while to load.
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()
