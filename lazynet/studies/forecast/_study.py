"""Forecasts as a study for the runner, with one task for each pack of members."""

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lazynet.execution import Arrays, Output, Task, TaskProgress, result_files
from lazynet.experiment import (
    Cell,
    CellCheckpoint,
    Pack,
    Record,
    References,
    Spec,
    as_json,
    assemble,
    compute_forecast,
)
from lazynet.measures import label_result
from lazynet.studies._packs import pack_task, rates_of, study_attributes
from lazynet.typing import Result

KIND = "forecast"


@dataclass(frozen=True)
class Forecast:
    """Forecasts for the networks of a sweep.

    Attributes:
        spec: The specification of the sweep.
        order: None, or 3 to train third-order Taylor polynomials.
        references: The infinite-width kernels, shared by all cells.
    """

    kind: ClassVar[str] = KIND
    spec: Spec
    order: int | None
    references: References = field(default_factory=References)

    @property
    def dtype(self) -> str:
        """The dtype in which Taylor polynomials are trained."""
        return self.spec.training.dtype

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files."""
        return OUTPUT

    def request(self) -> str:
        """Return the specification of the study as canonical JSON."""
        return as_json(json.loads(self.spec.request()) | {"order": self.order})

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record, reusing the learning rates from the stored record if there is one."""
        record = self.spec.record(rates_of(self.spec, self.references, stored))
        record.settings["order"] = self.order
        return record.to_json() | {"begun": time.time()}

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
        return compute_forecast(self.spec.points[pack.point], pack, rate, self.references, self.order).to_arrays()


def _losses(arrays: Arrays) -> np.ndarray:
    return np.ravel(Cell.from_arrays(arrays).variables["train_loss"][:, -1])


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    result = assemble([Cell.from_arrays(cell) for cell in cells], Record.from_json(record))
    result.attrs |= study_attributes(record)
    label_result(result, KIND)
    return result


OUTPUT = Output(_assemble, result_files)
