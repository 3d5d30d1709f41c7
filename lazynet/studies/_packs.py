"""Studies over widths and seeds, in which each task handles a pack of networks."""

import json
import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lazynet.execution import Arrays, Task, TaskProgress, provenance
from lazynet.experiment import (
    Cell,
    CellCheckpoint,
    Pack,
    Record,
    References,
    Spec,
    as_json,
    assemble,
    units_of,
)
from lazynet.typing import DataArray, Result


@dataclass(frozen=True)
class PackStudy:
    """A study with one task for each pack of networks. Subclasses add their kind, output, settings and computation.

    Attributes:
        spec: The specification of the networks and their training.
        references: The infinite-width kernels, shared by all packs.
    """

    spec: Spec
    references: References = field(default_factory=References, kw_only=True)

    @property
    def dtype(self) -> str:
        """The dtype used for training."""
        return self.spec.training.dtype

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the study that are not part of the specification."""
        return {}

    def request(self) -> str:
        """Return the specification of the study as canonical JSON."""
        return as_json(json.loads(self.spec.request()) | self.settings)

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record, reusing the learning rates from the stored record if there is one.

        Args:
            stored: The stored record, or an empty dictionary.
        """
        record = self.spec.record(_rates_of(self.spec, self.references, stored))
        record.settings.update(self.settings)
        return record.to_json() | {"begun": time.time()}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return one task for each pack of networks.

        Args:
            record: The record of the study.
        """
        plan = Record.from_json(record)
        return [self._task(number, pack, plan.rates[pack.point][pack.width]) for number, pack in enumerate(plan.packs)]

    def _task(self, number: int, pack: Pack, rate: float) -> Task:
        def losses(arrays: Arrays) -> dict[str, float]:
            values = self.losses(arrays).tolist()
            return {f"width {pack.width}, seed {seed}": loss for seed, loss in zip(pack.seeds, values, strict=True)}

        point = self.spec.points[pack.point]
        return Task(
            key=f"{number:06d}",
            name=f"width {pack.width}",
            units=units_of(self.spec, pack),
            compute=partial(self.compute, pack, rate),
            program=(pack.width, point.program_key, point.training),
            losses=losses,
        )

    def compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Return the arrays of a pack.

        Args:
            pack: The pack of networks.
            rate: Learning rate eta.
            progress: Reports progress.
            checkpoint: Saves and restores unfinished training, or None.
        """
        raise NotImplementedError

    def losses(self, arrays: Arrays) -> np.ndarray:
        """Return the final loss of each network in a pack.

        Args:
            arrays: The arrays of the pack.
        """
        return np.ravel(Cell.from_arrays(arrays).variables["train_loss"][:, -1])


def assemble_cells(record: dict[str, Any], cells: list[Arrays]) -> Result:
    """Return the result of a study whose packs are cells of a sweep."""
    result = assemble([Cell.from_arrays(cell) for cell in cells], Record.from_json(record))
    result.attrs |= study_attributes(record)
    return result


def _rates_of(spec: Spec, references: References, stored: dict[str, Any]) -> list[dict[int, float]]:
    """Return the learning rates at each point in the study, keyed by width.

    Default rates are read from the stored record. If the record is empty or does not match the study's points and
    widths, they are computed.
    """
    before = _stored_rates(stored)
    if [list(rates) for rates in before] != [list(spec.widths)] * len(spec.points):
        before = []
    return [
        before[i] if before and point.learning_rate is None else references.rates(point, spec.widths)
        for i, point in enumerate(spec.points)
    ]


def _stored_rates(stored: dict[str, Any]) -> list[dict[int, float]]:
    """Return the learning rates in a stored record, or an empty list if it contains none."""
    try:
        return Record.from_json(stored).rates
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def squared_losses(predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return half the sum of squared errors for each network, as an array of shape (member,).

    Args:
        predictions: The networks' predictions, shape (member, n) or (member, n, k).
        y: Targets, shape (n,) or (n, k).
    """
    return np.sum((predictions - y).reshape(len(predictions), -1) ** 2, axis=1) / 2


def warn_of_divergence(diverged: DataArray) -> None:
    """Warn about the widths at which networks diverged, given a flag for each width and seed."""
    for width, count in zip(diverged.width.values.tolist(), diverged.sum("seed").values.tolist(), strict=True):
        if count:
            warnings.warn(f"{count} of {diverged.sizes['seed']} networks of width {width} diverged.", stacklevel=3)


def study_attributes(record: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a result: the settings as JSON and the provenance."""
    settings = Record.from_json(record).settings
    return provenance(json.dumps(settings), settings["dtype"], record["begun"])
