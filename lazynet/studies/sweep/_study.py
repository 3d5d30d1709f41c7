"""The study that the runner executes for a sweep, with one task for each pack of members."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lazynet.execution import Arrays, Output, Task, TaskProgress, result_files
from lazynet.experiment import Cell, CellCheckpoint, Pack, Record, References, Spec, assemble, compute_cell
from lazynet.studies._packs import pack_task, rates_of, study_attributes
from lazynet.studies.sweep._verdict import verdicts_json
from lazynet.typing import Result

KIND = "sweep"


@dataclass(frozen=True)
class SweepStudy:
    """A sweep over widths, seeds and other axes, together with the predictions for its networks.

    Attributes:
        spec: The specification of the sweep.
        references: The infinite-width kernels, shared by all cells.
    """

    kind: ClassVar[str] = KIND
    spec: Spec
    references: References = field(default_factory=References)

    @property
    def dtype(self) -> str:
        """The dtype used for training."""
        return self.spec.training.dtype

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files, including the verdict."""
        return OUTPUT

    def request(self) -> str:
        """Return the specification of the sweep as canonical JSON."""
        return self.spec.request()

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record of the sweep, reusing the learning rates from the stored record if there is one."""
        rates = rates_of(self.spec, self.references, stored)
        return self.spec.record(rates).to_json() | {"begun": time.time()}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return one task for each pack of members."""
        plan = Record.from_json(record)
        return [
            pack_task(
                self.spec, number, pack, partial(self._compute, pack, plan.rates[pack.point][pack.width]), _losses
            )
            for number, pack in enumerate(plan.packs)
        ]

    def _compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        return compute_cell(self.spec, pack, rate, self.references, progress.steps, checkpoint).to_arrays()


def _losses(arrays: Arrays) -> np.ndarray:
    return np.ravel(Cell.from_arrays(arrays).variables["train_loss"][:, -1])


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    result = assemble([Cell.from_arrays(cell) for cell in cells], Record.from_json(record))
    result.attrs |= study_attributes(record)
    return result


def _files(result: Result) -> dict[str, bytes]:
    return result_files(result) | {"verdict.json": (verdicts_json(result) + "\n").encode()}


OUTPUT = Output(_assemble, _files)
