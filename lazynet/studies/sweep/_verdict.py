"""The verdict on a sweep: which predictions for the lazy regime hold, fail or remain undecided."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from lazynet.arguments import check_choice, check_flag, check_number
from lazynet.experiment import MemberStatus
from lazynet.measures import Quantity, catalog, registered
from lazynet.networks import LayerScaling
from lazynet.studies.sweep._forecasts import ForecastRow, forecast_rows
from lazynet.studies.sweep._inequalities import Inequality, inequalities
from lazynet.studies.sweep._points import at_one_point, points, settings_of, while_training
from lazynet.studies.sweep._regime import TOLERANCE, WidthRegime, answer_text, check_tolerance, regimes, why_no_regimes
from lazynet.studies.sweep._rows import Row, StepFit
from lazynet.studies.sweep._table import (
    corrections_text,
    exponents_text,
    forecasts_text,
    inequalities_text,
    levels_text,
    regimes_text,
)
from lazynet.theory import (
    Correction,
    Fit,
    Prediction,
    Scaling,
    fit_correction,
    fit_exponent,
    judge,
    predicted_exponents,
)
from lazynet.theory._exponents import ROUNDING
from lazynet.theory._fits import Status, bends_down
from lazynet.typing import DataArray, Result

BAND = 0.1
# Quantities that vanish as the width grows if, and only if, wide networks are lazy.
MOVING = ("kernel_drift", "relative_displacement")
# The index of the snapshot that each reduction selects.
STEPS = {"start": 0, "last": -1}


@dataclass(frozen=True)
class Verdict:
    """Exponents, inequalities and levels for a sweep; `print(verdict)` shows them as tables.

    Attributes:
        rows: Predicted and fitted exponents.
        inequalities: Measured values and their bounds from theory.
        levels: Quantities that vanish in the lazy limit, averaged over seeds at the largest width. Gaps are divided by
            the RMS of the targets.
        band: Half-width of the band around each predicted exponent.
        widths: Widths of the sweep, in ascending order.
        seeds: Number of seeds.
        diverged: Width and seed of each member that diverged. A row whose value for such a member is NaN never has the
            status "holds".
        corrections: For each quantity, the fit that gives its exponent at infinite width, or None if corrections were
            not requested.
        regimes: How closely the networks of each width follow each prediction, grouped by prediction and in ascending
            order of the width within each.
        tolerance: The tolerance for the regimes, as a fraction of the RMS of the targets.
        steps: Number of training steps.
        verified: For a required width, whether a width was verified; otherwise None.
        forecasts: Forecasts made from initial weights alone, and the measurements with which they are compared.
        answer: From which width on the networks follow each prediction to within the tolerance, in words, or the reason
            why there is no answer.

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
    diverged: tuple[tuple[int, int], ...] = ()
    corrections: dict[str, Correction] | None = None
    regimes: tuple[WidthRegime, ...] = ()
    tolerance: float = TOLERANCE
    steps: int = 0
    verified: bool | None = None
    forecasts: tuple[ForecastRow, ...] = ()
    answer: str = "No answer: the result has no predictions."

    @property
    def passed(self) -> bool:
        """True unless an "equal" row or an inequality fails, a member diverged, or no required width was verified."""
        statuses = [row.status for row in self.rows if row.relation == "equal"]
        statuses += [inequality.status for inequality in self.inequalities]
        return not self.diverged and self.verified is not False and "fails" not in statuses

    @property
    def lazy(self) -> bool:
        """True if the largest width is lazy, for every prediction that the result contains."""
        widest = [row.status for row in self.regimes if row.width == self.widths[-1]]
        return bool(widest) and all(status == "lazy" for status in widest)

    @property
    def lazy_limit(self) -> bool:
        """True if theory predicts that wide networks are lazy: their movement vanishes as the width grows."""
        moving = [row.predicted for row in self.rows if row.quantity in MOVING]
        return all(exponent < -ROUNDING for exponent in moving)

    def row(self, quantity: str) -> Row:
        """Return the row for a quantity.

        Args:
            quantity: Name of a variable in the result, optionally followed by the name of a layer in brackets to select
                that layer.

        Returns:
            The row.

        Raises:
            ValueError: If no exponent is predicted for the quantity.
        """
        rows = {row.quantity: row for row in self.rows}
        check_choice("quantity", quantity, rows)
        return rows[quantity]

    def correction(self, quantity: str) -> Correction:
        """Return the fit that gives a quantity's exponent at infinite width.

        Args:
            quantity: Name of a variable in the result, optionally followed by the name of a layer in brackets to select
                that layer.

        Returns:
            The fit.

        Raises:
            ValueError: If no exponent is predicted for the quantity, or if corrections were not requested.
        """
        if self.corrections is None:
            raise ValueError("The verdict has no corrections. To get them, call verify with corrections=True.")
        check_choice("quantity", quantity, self.corrections)
        return self.corrections[quantity]

    def __repr__(self) -> str:
        """Return the answer. The string of a verdict also contains the tables."""
        return f"Verdict: {self.answer}"

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: the answer, followed by the tables as preformatted text."""
        tables = str(self).removeprefix(self.answer)
        return f"<p><strong>{escape(self.answer)}</strong></p><pre>{escape(tables.strip())}</pre>"

    def to_json(self) -> str:
        """Convert the verdict to JSON.

        Returns:
            A JSON string in which non-finite numbers are null.
        """
        content = asdict(self) | {"passed": self.passed}
        if self.corrections is None:
            del content["corrections"]
        else:
            content["corrections"] = {name: fit._asdict() for name, fit in self.corrections.items()}
        return json.dumps(_without_nan(content), indent=2)

    def __str__(self) -> str:
        """Return the answer and the tables of regimes, levels, exponents and inequalities."""
        lines = [self.answer, *regimes_text(self.regimes, self.tolerance)]
        if not (self.rows or self.levels or self.inequalities):
            # A result of `lazynet.required_width` has only regimes.
            return "\n".join(lines)
        lines += levels_text(self.levels, self.widths[-1])
        lines += ["", *exponents_text(self.rows, self.widths, self.seeds, self.band, self.diverged, self.lazy_limit)]
        lines += corrections_text(self.corrections or {}, self.seeds, self.band)
        lines += inequalities_text(self.inequalities)
        lines += forecasts_text(self.forecasts, self.widths[-1])
        return "\n".join(lines)


def verify_sweep(
    result: Result, tolerance: float | None = None, *, band: float = BAND, corrections: bool = False
) -> Verdict:
    """Compare a sweep with the theory of the lazy regime; see `lazynet.verify`."""
    given = tolerance is not None
    tolerance = TOLERANCE if tolerance is None else check_tolerance(tolerance)
    band = check_number("band", band, positive=True)
    check_flag("corrections", corrections)
    result = at_one_point(result)
    training = while_training(result)
    lacking = [name for name in ("width", "seed") if name not in training.dims]
    training = training.expand_dims(lacking).transpose("step", "width", "seed")
    # Exponents cannot be fitted to a single width.
    rows = tuple(
        _row(result, prediction, band, training.values)
        for prediction in (_predictions(result) if result.sizes["width"] > 1 else [])
        if prediction.quantity.partition("[")[0] in result
    )
    levels = dict(_levels(result))
    widths = tuple(map(int, result.width.values))
    fits = {row.quantity: _correction(result, row.quantity) for row in rows} if corrections else None
    diverged: tuple[tuple[int, int], ...] = ()
    if "status" in result:
        lost = np.argwhere((result.status == MemberStatus.DIVERGED).transpose("width", "seed").values)
        diverged = tuple((widths[i], int(result.seed.values[j])) for i, j in lost)
    reason = why_no_regimes(result)
    if given and reason:
        raise ValueError(f"tolerance must be omitted, because {reason}.")
    found = () if reason else regimes(result, tolerance)
    answer = f"No answer: {reason}." if reason else answer_text(found, tolerance, result.step.values)
    if result.attrs.get("kind") == "forecast" and not reason:
        answer = f"Forecast, without training: {answer[0].lower()}{answer[1:]}"
    return Verdict(
        rows=rows,
        inequalities=tuple(inequalities(result)),
        levels=levels,
        band=band,
        widths=widths,
        seeds=result.sizes["seed"],
        diverged=diverged,
        corrections=fits,
        regimes=found,
        tolerance=tolerance,
        steps=int(result.step[-1]),
        forecasts=tuple(forecast_rows(result)),
        answer=answer,
    )


def _correction(result: Result, quantity: str) -> Correction:
    values = reduce_steps(quantity_of(result, quantity)).transpose("width", "seed").values
    return fit_correction(result.width.values, values)


def quantity_of(result: Result, quantity: str) -> DataArray:
    """Return the variable for a row's quantity. Brackets in the quantity's name select a single layer."""
    name, _, layer = quantity.partition("[")
    return result[name].sel(layer=layer.removesuffix("]")) if layer else result[name]


def verdicts_json(result: Result, tolerance: float | None = None) -> str:
    """Return the verdict on a sweep as JSON.

    Args:
        result: Result of a sweep.
        tolerance: Largest gap at which networks count as lazy; see `lazynet.verify`.

    Returns:
        A JSON object with the verdict. If there are axes besides width and seed, the object has a list "points" that
        contains the axis values and the verdict at each point.

    Raises:
        ValueError: If a scale is set by a function and the result contains only the function's name.
    """
    verdicts = [(labels, json.loads(verify_sweep(at, tolerance).to_json())) for labels, at in points(result)]
    if len(verdicts) == 1:
        return json.dumps(verdicts[0][1], indent=2)
    return json.dumps({"points": [{"at": labels, **verdict} for labels, verdict in verdicts]}, indent=2)


def _predictions(result: Result) -> list[Prediction]:
    """Return the exponents predicted by theory, and the exponents declared for registered quantities."""
    scaling = scaling_of(result)
    predictions = [] if scaling is None else predicted_exponents(scaling)
    for quantity in registered():
        if quantity.predicted is not None:
            relation, exponent = quantity.predicted
            predictions.append(Prediction(quantity.name, relation, float(exponent)))
    return predictions


def scaling_of(result: Result) -> Scaling | None:
    """Return the width exponents of a sweep's layers and scales.

    Args:
        result: Result of a sweep at a single point.

    Returns:
        A `Scaling`, or None if the exponents of the layers are unknown.

    Raises:
        ValueError: If a scale is set by a function and the result contains only the function's name.
    """
    settings, widths = settings_of(result), result.width.values
    record = settings["traits"]["scaling"]
    if record is None:
        return None
    layers = LayerScaling.from_json(record)

    def exponent(scale: str) -> float:
        if scale not in result.coords:
            return 0.0
        try:
            # If the scale is an axis of the sweep, `result` contains only one of its values. This value is a label if
            # any value on the axis is a function.
            values = np.broadcast_to(result[scale].values.astype(float), widths.shape)
        except ValueError:
            raise ValueError(
                f"result must contain the value of {scale} at each width, but contains only a function's label, "
                f"{result[scale].item()!r}. To obtain a verdict, pass the function itself as {scale} rather than as a "
                "value in axes."
            ) from None
        return fit_exponent(widths, values[:, None]).exponent if len(widths) > 1 else 0.0

    init = exponent("init_scale")
    named = result.layer.values.tolist() if layers.named_layers and "layer" in result.coords else []
    # Biases that start at zero have no relative displacement.
    named = [name for name in named if layers.biased or not name.startswith("bias_")]
    return Scaling(
        init,
        exponent("output_scale"),
        exponent("learning_rate"),
        settings["traits"]["starts_at_zero"],
        bool(layers.homogeneous) and not ((layers.biased or layers.train_bias) and abs(init) > ROUNDING),
        layers.train,
        # If weight decay is an axis, `proportional` reflects only its first value. A ridge changes the learned fraction
        # of each mode, in a way that depends on the width if the kernel and hence the learning rate do.
        settings["proportional"]
        and not settings.get("weight_decay")
        and not (settings.get("ridge") and abs(exponent("learning_rate")) > ROUNDING),
        layers.parametrization,
        layers.depth,
        tuple(named),
        "quadratic_gap_train" in result and layers.homogeneous is not None,
        layers.train_bias,
        layers.biased,
    )


def entry_of(quantity: str) -> Quantity:
    """Return the catalog entry for a row's quantity."""
    return catalog()[quantity.partition("[")[0]]


def _row(result: Result, prediction: Prediction, band: float, training: np.ndarray) -> Row:
    """Fit a quantity's exponent at every snapshot and after reduction over snapshots, then judge the prediction.

    Args:
        result: Result of a sweep at a single point.
        prediction: Predicted exponent of a quantity.
        band: Tolerance for the exponent.
        training: Whether each member was still training at each snapshot, broadcastable to (steps, widths, seeds).
    """
    values, widths = quantity_of(result, prediction.quantity), result.width.values

    def judged(members: np.ndarray) -> tuple[Fit, Status]:
        fit = fit_exponent(widths, members)
        status = judge(fit, prediction.relation, prediction.exponent, band)
        # If members diverged, no prediction is confirmed, because the remaining members are not a random sample.
        return fit, "undecided" if status == "holds" and np.isnan(members).any() else status

    by_step: list[StepFit] = []
    held = None
    if "step" in values.dims:
        # A member that has stopped carries no information about later steps.
        trained = np.where(training, values.transpose("step", "width", "seed").values, np.nan)
        # At step 0, nothing has moved.
        later = result.step.values > 0
        for step, members in zip(result.step.values[later], trained[later], strict=True):
            fit, status = judged(members)
            by_step.append(StepFit(int(step), fit.exponent, fit.low, fit.high, status))
        for snapshot in by_step:
            if snapshot.status != "holds":
                break
            held = snapshot.step
    reduced = reduce_steps(values).transpose("width", "seed").values
    fit, status = judged(reduced)
    return Row(
        prediction.quantity,
        prediction.relation,
        prediction.exponent,
        fit.exponent,
        fit.low,
        fit.high,
        fit.local,
        band,
        entry_of(prediction.quantity).reduction,
        status,
        held,
        tuple(by_step),
        bends_down(widths, reduced),
    )


def reduce_steps(values: DataArray) -> DataArray:
    """Reduce a quantity over snapshots as specified in the catalog."""
    if "step" not in values.dims:
        return values
    reduction = entry_of(str(values.name)).reduction
    # The values of a diverged member are NaN from some step onward. Keep the NaN instead of using the maximum of the
    # earlier values.
    return values.max("step", skipna=False) if reduction == "maximum" else values.isel(step=STEPS[reduction])


def _levels(result: Result) -> Iterator[tuple[str, float]]:
    """Yield each level's name and value, reduced over snapshots and averaged over seeds at the largest width."""
    for name, quantity in catalog().items():
        if quantity.level and name in result:
            values = reduce_steps(result[name].isel(width=-1))
            scale = float(result.target_rms) if quantity.gap else 1.0
            yield name, float(values.mean("seed")) / scale if scale else math.nan


def _without_nan(value: Any) -> Any:
    """Recursively replace non-finite numbers with None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
