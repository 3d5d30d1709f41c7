"""Which predictions of the lazy regime a sweep confirms, contradicts, or cannot decide."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lazynet.networks import LayerScaling, get_parametrization
from lazynet.studies.sweep._inequalities import Inequality, inequalities
from lazynet.studies.sweep._points import at_one_point, points, settings_of
from lazynet.studies.sweep._table import print_verdict
from lazynet.theory._corrections import Correction, fit_correction
from lazynet.theory._exponents import ROUNDING, Prediction, Relation, Scaling, predicted_exponents
from lazynet.theory._fits import Fit, Status, fit_exponent, judge
from lazynet.typing import DataArray, Result

BAND = 0.1
# Optimizers, by name, whose steps are proportional to the gradient.
PROPORTIONAL = ("sgd", "momentum", "nesterov", "flow")
LEVELS = (
    "activation_flips",
    "kernel_drift",
    "relative_displacement",
    "linearization_gap_train",
    "linearization_gap_test",
    "start_gap_train",
    "start_gap_test",
    "kernel_gap_train",
    "kernel_gap_test",
    "quadratic_gap_train",
    "quadratic_gap_test",
)


@dataclass(frozen=True)
class StepFit:
    """The fitted exponent at one snapshot."""

    step: int
    fitted: float
    low: float
    high: float
    status: Status


@dataclass(frozen=True)
class Row:
    """One predicted exponent beside the measured one.

    Attributes:
        quantity: variable of the result, with the layer in brackets where it is of one.
        relation: "equal", or "at most" for decay at least as fast.
        predicted: exponent of the width in theory.
        fitted: exponent over all widths, with its 95% interval low to high.
        local: exponent between the two largest widths.
        band: how far a measured exponent may lie from the predicted one.
        reduction: "maximum" over snapshots, "last" step, or "start".
        status: "holds", "fails" or "undecided".
        last_step_held: the last snapshot up to which the row holds at every snapshot; None if at none.
        by_step: the same fit at every snapshot.
    """

    quantity: str
    relation: Relation
    predicted: float
    fitted: float
    low: float
    high: float
    local: float
    band: float
    reduction: str
    status: Status
    last_step_held: int | None
    by_step: tuple[StepFit, ...]

    @property
    def note(self) -> str:
        """What a reader must know of an "at most" row that fails."""
        if self.relation == "equal" or self.status != "fails":
            return ""
        return f"not asymptotic at these widths (local {self.local:+.2f})"


@dataclass(frozen=True)
class Verdict:
    """Exponents, inequalities and levels of a sweep; `print(verdict)` shows them as a table.

    Attributes:
        rows: predicted exponents beside measured ones.
        inequalities: bounds of theory beside what they bound.
        levels: size at the largest width of what should vanish; gaps are over the RMS of the targets.
        band: half-width of the band around each predicted exponent.
        widths: of the sweep.
        seeds: how many.
        diverged: how many members diverged; a row that lost one of them is never said to hold.
        corrections: the exponent of each row at infinite width, fitted with a correction to scaling, where asked for.

    >>> import lazynet as lz
    >>> lz.Verdict(rows=(), inequalities=(), levels={}, band=0.1, widths=(64, 128), seeds=8).passed
    True
    """

    rows: tuple[Row, ...]
    inequalities: tuple[Inequality, ...]
    levels: dict[str, float]
    band: float
    widths: tuple[int, ...]
    seeds: int
    diverged: int = 0
    corrections: dict[str, Correction] | None = None

    @property
    def passed(self) -> bool:
        """Whether no "equal" row and no inequality fails."""
        equal = [row.status for row in self.rows if row.relation == "equal"]
        return "fails" not in equal + [inequality.status for inequality in self.inequalities]

    def row(self, quantity: str) -> Row:
        """The row of this quantity.

        Raises:
            KeyError: if theory predicts nothing for it.
        """
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"The verdict has no row {quantity!r}; it has {', '.join(row.quantity for row in self.rows)}.")

    def correction(self, quantity: str) -> Correction:
        """The exponent of this row at infinite width.

        Raises:
            KeyError: if theory predicts nothing for it, or no corrections were asked for.
        """
        if self.corrections is None or quantity not in self.corrections:
            raise KeyError(f"The verdict has no correction for {quantity!r}; verify takes corrections=True.")
        return self.corrections[quantity]

    def to_json(self) -> str:
        """The verdict as JSON, null for what could not be computed."""
        content = asdict(self) | {"passed": self.passed}
        if self.corrections is None:
            del content["corrections"]
        else:
            content["corrections"] = {name: found._asdict() for name, found in self.corrections.items()}
        return json.dumps(_without_nan(content), indent=2)

    def __str__(self) -> str:
        """The verdict as a table for people."""
        return print_verdict(self)


def verify(result: Result, band: float = BAND, *, corrections: bool = False) -> Verdict:
    """Compare a sweep with the theory of the lazy regime.

    Every exponent is fitted on the seed mean over all widths, with a 95% interval from a bootstrap over seeds, at every
    snapshot and on the maximum over snapshots. Gaps are judged on the maximum, because the theorems bound the supremum
    over time (Lee et al. 2019, Theorem 2.1), the rest at the last step. A row holds when its whole interval lies within
    the band around the prediction (for "at most": below its upper end), fails when all of it lies outside, and is
    undecided otherwise; so is a row that would hold where members diverged. To hold is to scale as theory says: levels
    tell whether a network is lazy.

    Args:
        result: of `lazynet.sweep`.
        band: how far a measured exponent may lie from the predicted one, positive.
        corrections: whether to fit a m^p (1 + b m^(-1/2)) to each row too, at its own reduction, for the exponent p at
            infinite width (`lazynet.theory.fit_correction`); it takes at least 4 widths. Statuses stay those of slopes.

    Returns:
        Verdict.

    Raises:
        ValueError: if the band is not positive and finite, or the result has other axes than width and seed.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, widths=[64, 256, 1024], seeds=4, steps=10)
    >>> lz.verify(result).row("relative_displacement").status
    'holds'
    """
    if not 0 < band < np.inf:
        raise ValueError(f"band is {band}, but must be positive and finite.")
    if "boundary" in result or "place" in result.dims:
        raise ValueError("A verdict is of the result of lazynet.sweep, which a map or an ensemble on a line is not.")
    result = at_one_point(result)
    rows = tuple(
        _row(result, prediction, band)
        for prediction in _predictions(result)
        if prediction.quantity.partition("[")[0] in result
    )
    levels = dict(_levels(result))
    widths = tuple(map(int, result.width.values))
    found = {row.quantity: _correction(result, row.quantity) for row in rows} if corrections else None
    diverged = int((result.status == 1).sum()) if "status" in result else 0
    return Verdict(rows, tuple(inequalities(result)), levels, band, widths, result.sizes["seed"], diverged, found)


def _correction(result: Result, quantity: str) -> Correction:
    values = reduce_steps(quantity_of(result, quantity)).transpose("width", "seed").values
    return fit_correction(result.width.values, values)


def quantity_of(result: Result, quantity: str) -> DataArray:
    """A variable of the result by its name in a row, where one layer's has the layer in brackets."""
    name, _, layer = quantity.partition("[")
    return result[name].sel(layer=layer.removesuffix("]")) if layer else result[name]


def verdicts_json(result: Result) -> str:
    """The verdict as JSON; where there are other axes than width and seed, a list "points", each with where it is."""
    found = [(labels, json.loads(verify(at).to_json())) for labels, at in points(result)]
    return json.dumps(
        found[0][1] if len(found) == 1 else {"points": [{"at": at, **said} for at, said in found]}, indent=2
    )


def _predictions(result: Result) -> list[Prediction]:
    scaling = scaling_of(result)
    return [] if scaling is None else predicted_exponents(scaling)


def scaling_of(result: Result) -> Scaling | None:
    """Exponents of the layers and of the scales at each width; None for a network without exponents of its layers."""
    settings = settings_of(result)
    widths, known = result.width.values, settings["traits"]["scaling"]
    if known is None:
        return None
    layers = LayerScaling(**known)

    def exponent(scale: str) -> float:
        if scale not in result.coords:
            return 0.0
        # One number where the scale was an axis of the sweep.
        values = np.broadcast_to(result[scale].values, widths.shape)
        return fit_exponent(widths, values[:, None]).exponent if len(widths) > 1 else 0.0

    init = exponent("init_scale")
    return Scaling(
        init,
        exponent("output_scale"),
        exponent("learning_rate"),
        settings["traits"]["starts_at_zero"],
        bool(layers.homogeneous) and not (layers.biased and abs(init) > ROUNDING),
        layers.train,
        settings["optimizer"] in PROPORTIONAL,
        get_parametrization(layers.parametrization),
        layers.depth,
        tuple(result.layer.values.tolist()) if layers.named_layers and "layer" in result.coords else (),
        "quadratic_gap_train" in result and layers.homogeneous is not None,
    )


def reduction_of(values: DataArray) -> str:
    """How snapshots become one number: the "maximum" for gaps, the "last" step for the rest, "start" for none."""
    if "step" not in values.dims:
        return "start"
    return "maximum" if is_gap(values.name) else "last"


def is_gap(quantity: Any) -> bool:
    """Whether a quantity is a gap between predictions, in units of the targets."""
    return "_gap_" in quantity


def _row(result: Result, prediction: Prediction, band: float) -> Row:
    values, widths = quantity_of(result, prediction.quantity), result.width.values

    def judged(values: DataArray) -> tuple[Fit, Status]:
        members = values.transpose("width", "seed").values
        fit = fit_exponent(widths, members)
        status = judge(fit, prediction.relation, prediction.exponent, band)
        # The members that are left after others diverged were not drawn at random.
        return fit, "undecided" if status == "holds" and np.isnan(members).any() else status

    by_step: list[StepFit] = []
    held = None
    if "step" in values.dims:
        for step in result.step.values[1:]:
            fit, status = judged(values.sel(step=step))
            by_step.append(StepFit(int(step), fit.exponent, fit.low, fit.high, status))
        for snapshot in by_step:
            if snapshot.status != "holds":
                break
            held = snapshot.step
    fit, status = judged(reduce_steps(values))
    return Row(
        prediction.quantity,
        prediction.relation,
        prediction.exponent,
        fit.exponent,
        fit.low,
        fit.high,
        fit.local,
        band,
        reduction_of(values),
        status,
        held,
        tuple(by_step),
    )


def reduce_steps(values: DataArray) -> DataArray:
    """A quantity without its snapshots, as its row of the verdict takes it."""
    if "step" not in values.dims:
        return values
    # A diverged member is NaN from some step on and must not count with what it was before.
    return values.max("step", skipna=False) if reduction_of(values) == "maximum" else values.isel(step=-1)


def _levels(result: Result) -> Iterator[tuple[str, float]]:
    """Seed means at the largest width, at each row's own reduction."""
    for quantity in LEVELS:
        if quantity in result:
            values = reduce_steps(result[quantity].isel(width=-1))
            scale = float(result.target_rms) if is_gap(quantity) else 1.0
            yield quantity, float(values.mean("seed")) / scale if scale else math.nan


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
