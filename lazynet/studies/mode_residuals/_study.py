"""Mode residuals of several networks as a study for the runner, with a task for each pack of networks."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lazynet.execution import Arrays, Output, TaskProgress, result_files
from lazynet.experiment import (
    CellCheckpoint,
    Pack,
    Record,
    as_json,
    fingerprint,
    train_pack,
)
from lazynet.kernels import Spectrum
from lazynet.measures import label_result
from lazynet.studies._packs import PackStudy, squared_losses, study_attributes, warn_of_divergence
from lazynet.studies.mode_residuals._modes import compare_modes
from lazynet.typing import Result

KIND = "mode_residuals"


@dataclass(frozen=True)
class ModeResiduals(PackStudy):
    """Networks whose residuals are compared with a kernel's prediction.

    Attributes:
        kernel: Spectrum of the kernel on the training set, or None for the analytic kernel at each width.
        tolerance: Maximum gap at which a mode still counts as following the kernel's prediction.
    """

    kind: ClassVar[str] = KIND
    kernel: Spectrum | None
    tolerance: float

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files. This study has no verdict."""
        return OUTPUT

    @property
    def settings(self) -> dict[str, Any]:
        """The tolerance."""
        return {"tolerance": self.tolerance}

    def request(self) -> str:
        """Return the specification of the study as canonical JSON."""
        kernel = None if self.kernel is None else fingerprint(self.kernel.values, self.kernel.vectors)
        return as_json(json.loads(self.spec.request()) | {"kernel": kernel} | self.settings)

    def compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Train a pack of networks; return the comparison with the kernel, its eigenvalues, and the losses."""
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

    def losses(self, arrays: Arrays) -> np.ndarray:
        """Return the final loss of each network in a pack; see `PackStudy`."""
        return arrays["loss"]


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
