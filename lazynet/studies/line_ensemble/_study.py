"""The line ensemble as a study for the runner: a task for each pack of networks, and one for infinite width."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lazynet.dynamics import kernel_descent, kernel_ensemble
from lazynet.execution import Arrays, Output, Task, TaskProgress, result_files
from lazynet.experiment import CellCheckpoint, Pack, Record, Trained, train_pack
from lazynet.kernels import start_covariance
from lazynet.measures import label_result
from lazynet.studies._packs import PackStudy, squared_losses, study_attributes, warn_of_divergence
from lazynet.typing import Result

KIND = "line_ensemble"
LIMIT = "limit"


@dataclass(frozen=True)
class LineEnsemble(PackStudy):
    """Networks evaluated on the line through two inputs; the points on the line are the test inputs in `spec.data`.

    Attributes:
        ends: The two inputs, shape (2, d).
        places: The coordinate of each test input on the line.
    """

    kind: ClassVar[str] = KIND
    ends: np.ndarray
    places: np.ndarray

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and its files. This study has no verdict."""
        return OUTPUT

    @property
    def settings(self) -> dict[str, Any]:
        """The line."""
        return {"ends": self.ends.tolist(), "places": self.places.tolist()}

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record, reusing the learning rates from the stored record if there is one."""
        return super().begin(stored) | {"outputs": self.spec.data.y_train.ndim > 1}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return a task for each pack of networks, and a task for the infinite-width limit."""
        rates = Record.from_json(record).rates[0]
        return [*super().tasks(record), Task(LIMIT, "infinite width", 1, partial(self._limit, rates))]

    def losses(self, arrays: Arrays) -> np.ndarray:
        """Return the final loss of each network in a pack; see `PackStudy`."""
        return arrays["loss"]

    def compute(self, pack: Pack, rate: float, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Return a pack's predictions, losses, and differences from the infinite-width predictions.

        The infinite-width predictions start from the networks' own initial outputs. The predictions and the differences
        have shape (members, step, place, ...). The differences are omitted if the network has no analytic kernel.
        """
        trained = train_pack(self.spec, pack, rate, self.references, progress.steps, checkpoint)
        line, training = self.spec.data, self.spec.training
        losses = squared_losses(trained.records["train_prediction"][:, -1], line.y_train)
        arrays = {"prediction": trained.records["test_prediction"], "loss": losses}
        limit = self.references.limit(self.spec.points[0], pack.width)
        if limit is None:
            return arrays
        return arrays | {"gap": _gap(trained, line, limit, rate, training.snapshot_steps)}

    def _limit(self, rates: dict[int, float], progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        """Return the mean and standard deviation of the outputs of infinitely wide networks.

        The mean has shape (width, step, place, ...), and the standard deviation has shape (width, step, place).
        """
        point, bands = self.spec.points[0], []
        line = point.data
        for width in self.spec.widths:
            limit, covariance = self.references.limit(point, width), start_covariance(point.network.clone(width=width))
            if limit is None or covariance is None:
                return {}
            band = kernel_ensemble(
                limit.spectrum,
                line.y_train,
                times=rates[width] * point.training.snapshot_steps,
                start_covariance=covariance(np.concatenate([line.x_train, line.x_test])),
                k_test=limit.test,
                learning_rate=rates[width],
            )
            # Rounding can make a zero variance slightly negative.
            variance = np.diagonal(np.asarray(band.test_covariance), axis1=1, axis2=2)
            bands.append((np.asarray(band.test_mean), np.sqrt(np.maximum(variance, 0))))
        means, deviations = (np.stack(parts) for parts in zip(*bands, strict=True))
        return {"kernel_mean": means, "kernel_deviation": deviations}


def _gap(trained: Trained, line: Any, limit: Any, rate: float, steps: np.ndarray) -> np.ndarray:
    f = trained.records["test_prediction"]
    # Kernel descent treats the members as additional outputs.
    f0, f0_test = (trained.records[f"{part}_prediction"][:, 0] for part in ("train", "test"))
    path = kernel_descent(
        limit.spectrum,
        np.stack([line.y_train] * len(f), axis=1).reshape(line.n_train, -1),
        learning_rate=rate,
        steps=steps,
        f0=np.moveaxis(f0, 0, 1).reshape(line.n_train, -1),
        k_test=limit.test,
        f0_test=np.moveaxis(f0_test, 0, 1).reshape(line.n_test, -1),
    )
    predicted = np.asarray(path.test).reshape(*f.shape[1:3], len(f), *f.shape[3:])
    return f - np.moveaxis(predicted, 2, 0)


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    import xarray

    plan, outputs = Record.from_json(record), ("output",) if record["outputs"] else ()
    *packs, bands = cells
    table = _table(plan, packs, outputs) | _bands(bands, outputs)
    coords = {
        "width": plan.settings["widths"],
        "seed": plan.settings["seeds"],
        "step": plan.snapshot_steps,
        "place": plan.settings["places"],
    }
    result = xarray.Dataset(table, coords=coords)
    warn_of_divergence((~np.isfinite(result.prediction.isel(step=-1))).any(["place", *outputs]))
    result.attrs |= study_attributes(record)
    label_result(result, KIND)
    return result


def _table(plan: Record, cells: list[Arrays], outputs: tuple[str, ...]) -> dict[str, tuple[Any, np.ndarray]]:
    """Return the predictions, their statistics over seeds, and the decomposition of the mean squared gap.

    The gap is the difference from the infinite-width prediction.
    """
    widths = plan.settings["widths"]

    def stacked(name: str) -> np.ndarray:
        by_width: dict[int, list[np.ndarray]] = {width: [] for width in widths}
        for pack, cell in zip(plan.packs, cells, strict=True):
            by_width[pack.width].append(cell[name])
        return np.stack([np.concatenate(parts) for parts in by_width.values()])

    f, dims = stacked("prediction"), ("width", "step", "place", *outputs)
    table: dict[str, tuple[Any, np.ndarray]] = {
        "prediction": (("width", "seed", "step", "place", *outputs), f),
        "mean": (dims, f.mean(axis=1)),
        "deviation": (dims, f.std(axis=1, ddof=1)),
    }
    if all("gap" in cell for cell in cells):
        parts = split_with_errors(stacked("gap").reshape(*f.shape[:3], -1))
        table |= {name: (("width", "step"), values) for name, values in parts.items()}
    return table


def split_with_errors(gap: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean square of the gap, and its parts: squared bias and variance.

    If there are at least three seeds, also return jackknife standard errors of the squared bias and the variance.

    Args:
        gap: Difference from the infinite-width limit, with shape (width, seed, step, place).
    """
    bias, variance = split_gap(gap)
    parts = {"gap_squared": bias + variance, "gap_bias_squared": bias, "gap_variance": variance}
    seeds = gap.shape[1]
    if seeds > 2:
        jackknife = [split_gap(np.delete(gap, i, axis=1)) for i in range(seeds)]
        for name, values in zip(("gap_bias_squared", "gap_variance"), zip(*jackknife, strict=True), strict=True):
            parts[f"{name}_error"] = np.sqrt((seeds - 1) * np.var(values, axis=0))
    return parts


def split_gap(gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unbiased estimates of the squared bias and the variance over seeds, averaged over points and outputs.

    The square of the mean over S seeds would overestimate the squared bias by variance / S on average. The estimate is
    therefore the mean square minus the variance.

    Args:
        gap: Difference from the infinite-width limit, with shape (width, seed, step, place).
    """
    variance = gap.var(axis=1, ddof=1).mean(axis=-1)
    return (gap**2).mean(axis=(1, 3)) - variance, variance


def _bands(bands: Arrays, outputs: tuple[str, ...]) -> dict[str, tuple[Any, np.ndarray]]:
    """Return the mean and standard deviation at infinite width.

    They have the dimension `width` only if they depend on the width.
    """
    if not bands:
        return {}
    means, deviations = bands["kernel_mean"], bands["kernel_deviation"]
    alike = all(np.array_equal(band, part[0]) for part in (means, deviations) for band in part)
    dims = ("step", "place") if alike else ("width", "step", "place")
    if alike:
        means, deviations = means[0], deviations[0]
    return {"kernel_mean": ((*dims, *outputs), means), "kernel_deviation": (dims, deviations)}


OUTPUT = Output(_assemble, result_files)
