"""Forecasts as a study for the runner, with one task for each pack of members."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lazynet.execution import Arrays, Output, TaskProgress, result_files
from lazynet.experiment import CellCheckpoint, Pack, compute_forecast
from lazynet.measures import label_result
from lazynet.studies._packs import PackStudy, assemble_cells
from lazynet.typing import Result

KIND = "forecast"


@dataclass(frozen=True)
class Forecast(PackStudy):
    """Forecasts for the networks of a sweep.

    Attributes:
        order: None, or 3 to train third-order Taylor polynomials.
    """

    kind: ClassVar[str] = KIND
    order: int | None

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files."""
        return OUTPUT

    @property
    def settings(self) -> dict[str, Any]:
        """The order."""
        return {"order": self.order}

    def compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Forecast a pack of members; see `PackStudy`."""
        return compute_forecast(self.spec.points[pack.point], pack, rate, self.references, self.order).to_arrays()


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    result = assemble_cells(record, cells)
    label_result(result, KIND)
    return result


OUTPUT = Output(_assemble, result_files)
