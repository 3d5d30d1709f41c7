"""`lz.line_ensemble`: many networks on a line between two inputs, beside the distribution that the kernel predicts."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from lazynet.data import Dataset
from lazynet.dynamics import kernel_descent, kernel_ensemble
from lazynet.execution._progress import Progress
from lazynet.execution._provenance import provenance
from lazynet.execution._runner import units_of
from lazynet.experiment._cell import DIVERGENCE
from lazynet.experiment._cost import sweep_jobs
from lazynet.experiment._grid import AXES
from lazynet.experiment._limits import Limits
from lazynet.experiment._members import Trained, train_members
from lazynet.experiment._record import as_json
from lazynet.experiment._reference import Limit
from lazynet.experiment._shared_inputs import prepare
from lazynet.experiment._spec import Training, as_snapshots
from lazynet.experiment._study import Study, study_of
from lazynet.kernels import start_covariance
from lazynet.losses import squared
from lazynet.measures import label_result
from lazynet.networks import Scale
from lazynet.training._keys import member_key
from lazynet.typing import Result


@DIVERGENCE
def line_ensemble(
    network: Any,
    data: Dataset,
    ends: Sequence[Any] | np.ndarray | jax.Array,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 100,
    steps: int = 1000,
    *,
    places: Sequence[float] | np.ndarray | None = None,
    snapshots: int | Sequence[int] = 4,
    learning_rate: Scale | None = None,
    dtype: str = "float32",
    progress: bool = True,
) -> Result:
    """Train networks from many starts and look at them on the line a x_1 + (1 - a) x_2, beside what kernels predict.

    Lee et al. 2019, Figure 2: in the limit of infinite width outputs at every time of full-batch descent are a Gaussian
    process, whose mean and standard deviation `lazynet.kernel_ensemble` gives. Where the network's own start is known,
    so is what the limit makes of it, and the gap to that is split over seeds: E gap^2 = bias^2 + variance.

    Args:
        network: the family; its own width is replaced by each of `widths`. With a symmetric start nothing is random in
            the limit.
        data: on what to train, by full-batch descent on the squared loss; its test rows play no part.
        ends: two inputs x_1 and x_2, (d,) each.
        widths: numbers of hidden units.
        seeds: a number of networks, at least 2, for seeds 0 .. seeds - 1, or a list of seeds.
        steps: number of steps.
        places: values of a; 51 from -2 to 3 when left out.
        snapshots: as in `lazynet.train`.
        learning_rate: as in `lazynet.sweep`.
        dtype: "float32" or "float64".
        progress: whether to show progress on a terminal.

    Returns:
        `xarray.Dataset` over width, seed, step, place and, where there are several, output: prediction; without seed
        mean and deviation; over step and place, and over width where the limit depends on it, kernel_mean and
        kernel_deviation, the latter without output. Over width and step, averaged over places: gap_squared and its two
        parts, gap_bias_squared and gap_variance, each an unbiased estimate over seeds, so that the former may be
        negative where it is small, with the standard error that the jackknife gives (gap_bias_squared_error,
        gap_variance_error; from three seeds on). What no kernel is known of is absent.

    Raises:
        ValueError: if an argument is not as described, before any work starts.

    Warns:
        UserWarning: if networks diverge, which makes what is said of all of them NaN.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=16, n_test=0)
    >>> network = lz.TwoLayer(width=64, symmetric=False)
    >>> result = lz.line_ensemble(network, data, data.x_train[:2], [64], seeds=10, steps=20)
    >>> dict(result.kernel_mean.sizes)
    {'step': 5, 'place': 51}
    """
    import xarray

    begun = time.time()
    line, at = _line(data, ends, np.linspace(-2, 3, 51) if places is None else places)
    training = Training(steps, as_snapshots(snapshots), squared(), "sgd", None, dtype, "auto")
    alone = dict.fromkeys(AXES) | {"learning_rate": learning_rate, "label_noise": 0.0}
    study = study_of(network, line, widths, seeds, training, alone)
    if len(study.seeds) < 2:
        raise ValueError("seeds names one network, but a mean and a deviation need at least two.")
    for job in sweep_jobs(study):
        job.check()
    point, limits = study.points[0], Limits()
    rates = limits.rates(point, study.widths)
    prepared = prepare(point.network, line, training)
    found: dict[int, list[dict[str, np.ndarray]]] = {width: [] for width in study.widths}
    packs = study.packs
    units = [units_of(study, pack) for pack in packs]
    with Progress(sum(units), len(packs), dtype, progress) as bar:
        for pack in packs:
            of_width, limit = point.network.clone(width=pack.width), limits.at(point, pack.width)
            limits.check_rate(point, pack.width, rates[pack.width])
            keys = [member_key(pack.width, seed) for seed in pack.seeds]
            told = bar.of_cell(pack.width, pack.width * line.n_train, None)
            trained = train_members(of_width, line, keys, training, rates[pack.width], prepared, told)
            found[pack.width].append(_members(line, trained, limit, rates[pack.width], training))
            losses = np.sum((trained.records["train_prediction"][:, -1] - line.y_train) ** 2 / 2, axis=-1)
            bar.finished(0, pack.width, pack.seeds, np.ravel(losses)[: len(keys)].tolist())
    outputs = ("output",) if line.y_train.ndim > 1 else ()
    coords = {"width": list(study.widths), "seed": list(study.seeds), "step": training.snapshot_steps, "place": at}
    result = xarray.Dataset(_table(found, outputs) | _bands(study, limits, rates, outputs), coords=coords)
    lost = (~np.isfinite(result.prediction.isel(step=-1))).any(["place", *outputs]).sum("seed")
    for width, count in zip(study.widths, lost.values.tolist(), strict=True):
        if count:
            warnings.warn(f"{count} of {len(study.seeds)} networks of width {width} diverged.", stacklevel=2)
    label_result(result, "line_ensemble")
    settings = study.settings(rates) | {"ends": np.asarray(ends, float).tolist()}
    result.attrs |= provenance(as_json(settings), dtype, begun)
    return result


def _line(data: Dataset, ends: Any, places: Any) -> tuple[Dataset, np.ndarray]:
    """The data with the inputs on the line as its test rows, and their places."""
    try:
        rows, places = np.asarray(ends, np.float64), np.asarray(places, np.float64)
    except ValueError:
        raise ValueError(f"ends and places must be numbers, but ends is {ends!r}, or places are none.") from None
    if rows.shape != (2, data.dim) or not np.isfinite(rows).all():
        raise ValueError(f"ends has shape {rows.shape}, but must be two finite inputs of {data.dim} features.")
    if places.ndim != 1 or not len(places) or not np.isfinite(places).all():
        raise ValueError("places must be a list of numbers.")
    inputs = places[:, None] * rows[0] + (1 - places[:, None]) * rows[1]
    zero = ~inputs.any(axis=1)
    if zero.any():
        raise ValueError(f"places has {places[zero][0]:g}, where the input is zero, of which there is no kernel.")
    # Nobody knows targets there, and nothing looks at them.
    return replace(data, x_test=inputs, y_test=np.zeros((len(places), *data.y_train.shape[1:]))), places


def _members(
    line: Dataset, trained: Trained, limit: Limit | None, rate: float, training: Training
) -> dict[str, np.ndarray]:
    """Predictions of networks, and their gap to what the limit makes of their starts, (members, step, place, ...)."""
    f = trained.records["test_prediction"]
    if limit is None:
        return {"prediction": f}
    # Members are so many outputs to the limit, which knows each of them by itself.
    f0, f0_test = (trained.records[f"{part}_prediction"][:, 0] for part in ("train", "test"))
    path = kernel_descent(
        limit.spectrum,
        np.stack([line.y_train] * len(f), axis=1).reshape(line.n_train, -1),
        learning_rate=rate,
        steps=training.snapshot_steps,
        f0=np.moveaxis(f0, 0, 1).reshape(line.n_train, -1),
        k_test=limit.test,
        f0_test=np.moveaxis(f0_test, 0, 1).reshape(line.n_test, -1),
    )
    predicted = np.asarray(path.test).reshape(*f.shape[1:3], len(f), *f.shape[3:])
    return {"prediction": f, "gap": f - np.moveaxis(predicted, 2, 0)}


def _table(found: dict[int, list[dict[str, np.ndarray]]], outputs: tuple[str, ...]) -> dict[str, tuple]:
    """Networks by width and seed, their distribution, and their gap to the limit split over seeds."""
    of_width = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in found.values()]
    one = {name: np.stack([members[name] for members in of_width]) for name in of_width[0]}
    f, over = one["prediction"], ("width", "step", "place", *outputs)
    table: dict[str, tuple] = {
        "prediction": (("width", "seed", "step", "place", *outputs), f),
        "mean": (over, f.mean(axis=1)),
        "deviation": (over, f.std(axis=1, ddof=1)),
    }
    if "gap" in one:
        gap = one["gap"].reshape(*f.shape[:3], -1)
        bias, variance = _split(gap)
        parts = {"gap_squared": bias + variance, "gap_bias_squared": bias, "gap_variance": variance}
        seeds = gap.shape[1]
        if seeds > 2:
            without = [_split(np.delete(gap, i, axis=1)) for i in range(seeds)]
            for name, values in zip(("gap_bias_squared", "gap_variance"), zip(*without, strict=True), strict=True):
                parts[f"{name}_error"] = np.sqrt((seeds - 1) * np.var(values, axis=0))
        table |= {name: (("width", "step"), values) for name, values in parts.items()}
    return table


def _split(gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared bias and variance over seeds of gaps (width, seed, step, place), means over places, without bias.

    The square of the mean over S seeds is too large by variance / S, the mean square is right.
    """
    variance = gap.var(axis=1, ddof=1).mean(axis=-1)
    return (gap**2).mean(axis=(1, 3)) - variance, variance


def _bands(study: Study, limits: Limits, rates: dict[int, float], outputs: tuple[str, ...]) -> dict[str, tuple]:
    """Mean and deviation in the limit, by width where they depend on it; nothing where no kernel is known."""
    point = study.points[0]
    line, bands = point.data, []
    for width in study.widths:
        limit, covariance = limits.at(point, width), start_covariance(point.network.clone(width=width))
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
        # Rounding may make a variance that is zero negative.
        variance = np.diagonal(np.asarray(band.test_covariance), axis1=1, axis2=2)
        bands.append((np.asarray(band.test_mean), np.sqrt(np.maximum(variance, 0))))
    means, deviations = (np.stack(part) for part in zip(*bands, strict=True))
    alike = all(np.array_equal(each, part[0]) for part in (means, deviations) for each in part)
    over = ("step", "place") if alike else ("width", "step", "place")
    if alike:
        means, deviations = means[0], deviations[0]
    return {"kernel_mean": ((*over, *outputs), means), "kernel_deviation": (over, deviations)}
