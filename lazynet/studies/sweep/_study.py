"""The study that the runner executes for a sweep, with one task for each pack of members."""

from dataclasses import dataclass
from typing import ClassVar

from lazynet.execution import Arrays, Output, TaskProgress, result_files
from lazynet.experiment import CellCheckpoint, Pack, compute_cell
from lazynet.studies._packs import PackStudy, assemble_cells
from lazynet.studies.sweep._verdict import verdicts_json
from lazynet.typing import Result

KIND = "sweep"


@dataclass(frozen=True)
class SweepStudy(PackStudy):
    """A sweep over widths, seeds and other axes, together with the predictions for its networks."""

    kind: ClassVar[str] = KIND

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files, including the verdict."""
        return OUTPUT

    def compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Train a pack of members and return its arrays, together with those of its predictions.

        Args:
            pack: The pack of members.
            rate: Learning rate eta.
            progress: Reports progress.
            checkpoint: Saves and restores unfinished training, or None.

        Returns:
            The arrays of the pack's cell.
        """
        return compute_cell(self.spec, pack, rate, self.references, progress.steps, checkpoint).to_arrays()


def _files(result: Result) -> dict[str, bytes]:
    return result_files(result) | {"verdict.json": (verdicts_json(result) + "\n").encode()}


OUTPUT = Output(assemble_cells, _files)
