"""Mode residuals of several networks as a study for the runner, with a task for each pack of networks."""

import json
import time
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np

from lazynet.execution import Arrays, Output, Task, TaskProgress, result_files
from lazynet.experiment import (
    CellCheckpoint,
    Pack,
    Record,
    References,
    Spec,
    as_json,
    fingerprint,
    train_pack,
)
from lazynet.kernels import Spectrum
from lazynet.measures import label_result
from lazynet.studies._packs import pack_task, rates_of, squared_losses, study_attributes, warn_of_divergence
from lazynet.studies.mode_residuals._modes import compare_modes
from lazynet.typing import Result

KIND = "mode_residuals"


@dataclass(frozen=True)
class ModeResiduals:
    """Networks whose residuals are compared with a kernel's prediction.

    Attributes:
        spec: The specification of the networks and their training.
        kernel: Spectrum of the kernel on the training set, or None for the analytic kernel at each width.
        tolerance: Maximum gap at which a mode still counts as following the kernel's prediction.
        references: The infinite-width kernels, shared by all cells.
    """

    kind: ClassVar[str] = KIND
    spec: Spec
    kernel: Spectrum | None
    tolerance: float
    references: References = field(default_factory=References)

    @property
    def dtype(self) -> str:
        """The dtype used for training."""
        return self.spec.training.dtype

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files. This study has no verdict."""
        return OUTPUT

    def request(self) -> str:
        """Return the specification of the study as canonical JSON."""
        kernel = None if self.kernel is None else fingerprint(self.kernel.values, self.kernel.vectors)
        return as_json(json.loads(self.spec.request()) | {"kernel": kernel, "tolerance": self.tolerance})

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record, reusing the learning rates from the stored record if there is one."""
        record = self.spec.record(rates_of(self.spec, self.references, stored))
        record.settings.update({"tolerance": self.tolerance})
        return record.to_json() | {"begun": time.time()}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return a task for each pack of networks."""
        plan = Record.from_json(record)
        return [
            pack_task(
                self.spec, number, pack, partial(self._compute, pack, plan.rates[0][pack.width]), itemgetter("loss")
            )
            for number, pack in enumerate(plan.packs)
        ]

    def _compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Train a pack of networks; return the comparison with the kernel, the kernel's eigenvalues, and the losses."""
        trained = train_pack(self.spec, pack, rate, self.references, progress.steps, checkpoint)
        y, kernel = self.spec.data.y_train, self.kernel
        if kernel is None:
            limit = self.references.limit(self.spec.points[0], pack.width)
            if limit is None:
                raise RuntimeError(f"The network has no analytic kernel at width {pack.width}.")
            kernel = limit.spectrum
        predictions = trained.records["train_prediction"].astype(np.float64)
        steps = self.spec.training.snapshot_steps
        tables = [compare_modes(kernel, y, u, rate, steps, self.tolerance) for u in predictions]
        arrays = {name: np.stack([table[name] for table in tables]) for name in tables[0]}
        return arrays | {"eigenvalue": kernel.values[::-1], "loss": squared_losses(predictions[:, -1], y)}


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    import xarray

    plan = Record.from_json(record)
    widths, seeds = plan.settings["widths"], plan.settings["seeds"]
    members, eigenvalues = {}, {}
    for pack, cell in zip(plan.packs, cells, strict=True):
        eigenvalues[pack.width] = cell["eigenvalue"]
        for member, seed in enumerate(pack.seeds):
            members[pack.width, seed] = {name: cell[name][member] for name in TABLE}
    table: dict[str, tuple[Any, np.ndarray]] = {}
    for name, dims in TABLE.items():
        values = np.stack([np.stack([members[width, seed][name] for seed in seeds]) for width in widths])
        table[name] = (("width", "seed", *dims)[: values.ndim], values)
    values = np.stack([eigenvalues[width] for width in widths])
    # Store the eigenvalues only once if the kernel does not depend on the width, as is usually the case.
    one_kernel = bool((values == values[0]).all())
    table["eigenvalue"] = ("mode", values[0]) if one_kernel else (("width", "mode"), values)
    steps, modes = plan.snapshot_steps, np.arange(1, values.shape[1] + 1)
    result = xarray.Dataset(table, coords={"width": widths, "seed": seeds, "step": steps, "mode": modes})
    warn_of_divergence((~np.isfinite(result.gap.isel(step=-1))).any("mode"))
    result.attrs |= study_attributes(record) | {"tolerance": plan.settings["tolerance"]}
    label_result(result, KIND)
    return result


# The variables stored for each network, with their dimensions.
TABLE = {
    "residual": ("step", "mode", "output"),
    "kernel_residual": ("step", "mode", "output"),
    "gap": ("step", "mode"),
    "last_step_held": ("mode",),
}
OUTPUT = Output(_assemble, result_files)
