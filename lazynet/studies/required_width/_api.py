"""`lazynet.required_width`: how wide a network must be to follow a prediction to a tolerance."""

import json
import math
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.arguments import check_choice, check_count
from lazynet.data import Dataset
from lazynet.execution import RunFolder, Store, as_run_folder, open_store, result_files, run, write_file
from lazynet.experiment import (
    Measure,
    References,
    Spec,
    Training,
    check_inputs,
    check_memory_of,
    check_seeds,
    check_widths,
    make_spec,
    make_training,
    relative_rates,
)
from lazynet.hosts import agreed, is_first, together
from lazynet.kernels import FACTORED, analytic_kernel
from lazynet.losses import Loss
from lazynet.measures import label_result
from lazynet.networks import GivenNetwork, Scale, at_width, check_scale
from lazynet.programs import entry
from lazynet.studies._parts import Parts
from lazynet.studies.required_width._answer import crossing_text, regimes_of
from lazynet.studies.required_width._quantities import COORDINATES, MEASURED
from lazynet.studies.required_width._search import Goal, first_lazy, next_width
from lazynet.studies.sweep import SweepStudy, check_tolerance, scaling_of
from lazynet.studies.sweep._points import ordered
from lazynet.studies.sweep._regime import PREDICTIONS, WidthRegime, suprema
from lazynet.theory import Crossing, crossing, fit_exponent, predict_crossing, predicted_exponents
from lazynet.training import AnyOptimizer
from lazynet.typing import MaybeNone, Result

KIND = "required_width"
TOLERANCE = 0.01
PILOTS = (64, 128, 256, 512, 1024, 2048)
MAX_WIDTH = 16384
# Largest number of widths that are trained after the prediction.
MOST_TRAINED = 8
# The gap counts as falling if the exponent fitted to the RECENT widest pilots is below FALLING.
FALLING, RECENT = -0.1, 3


@dataclass(frozen=True)
class Search:
    """The settings of a search for the required width.

    Attributes:
        goal: Tolerance, prediction and largest width of the search.
        network: The family of networks.
        data: The data.
        seeds: The seeds.
        training: How networks are trained and measured.
        pilots: The widths from which the crossing is predicted, in ascending order.
        learning_rate: The learning rate, or None for the default.
        parts: Folder of the search, with one subfolder for each width.
        progress: Whether to show progress on a terminal.
        references: Kernels and inputs shared by all sweeps.
    """

    goal: Goal
    network: GivenNetwork
    data: Dataset
    seeds: tuple[int, ...]
    training: Training
    pilots: tuple[int, ...]
    learning_rate: Scale | None
    parts: Parts
    progress: bool
    references: References

    def spec(self, widths: Sequence[int], rate: Scale | None) -> Spec:
        """Return the specification of the sweep over the given widths."""
        return make_spec(self.network, self.data, widths, self.seeds, self.training, rate)

    @cached_property
    def pilot_spec(self) -> Spec:
        """The specification of a sweep over all pilot widths, which also identifies the search."""
        return self.spec(self.pilots, self.learning_rate)

    def base_rate(self) -> float:
        """Return the learning rate at the largest pilot width."""
        return self.references.rates(self.pilot_spec.points[0], self.pilots)[self.pilots[-1]]

    def rate(self, base: float, width: int) -> float:
        """Return the learning rate at a width.

        Args:
            base: The learning rate at the largest pilot width.
            width: Number of hidden units.
        """
        if self.learning_rate is not None:
            return at_width(self.learning_rate, width)
        relative = relative_rates(self.network, (self.pilots[-1], width))
        return base * relative[width] / relative[self.pilots[-1]]

    def train(self, width: int, rate: float) -> Result | None:
        """Train networks of one width, and return their measurements, or None in all processes but the first.

        Args:
            width: Number of hidden units.
            rate: The learning rate.
        """
        study = SweepStudy(self.spec([width], rate), self.references)
        result = run(study, self.parts.subfolder(f"width-{width:06d}"), self.progress)
        if result is None:
            return None
        return result[[name for name in (*MEASURED, *COORDINATES) if name in result.variables]]

    def why_too_large(self, width: int, rate: float) -> str:
        """Return why networks of a width cannot be trained, or an empty string if they fit in memory."""
        try:
            check_memory_of(self.spec([width], rate))
        except ValueError as error:
            return f"width {width} does not fit in memory: {error}".removesuffix(".")
        return ""


@entry
def required_width(
    network: GivenNetwork,
    data: Dataset,
    tolerance: float = TOLERANCE,
    of: str = "linearization",
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    pilots: Sequence[int] | None = None,
    max_width: int = MAX_WIDTH,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Find the width at which networks begin to follow a prediction to within a tolerance: predict it, then verify it.

    First, the pilots are trained: networks with the widths in `pilots`, in ascending order, up to the first width that
    is lazy in the sense of `lazynet.verify`. From the pilots, the crossing is predicted, the width at which the mean
    over seeds of the largest gap equals the tolerance, with a 95% interval (see `lazynet.theory.predict_crossing`). The
    prediction is stored before wider networks are trained. Then, networks near the predicted width are trained, up to
    `max_width` and at most eight more widths, to find the required width: the smallest trained width such that it and
    all larger trained widths are lazy. The crossing is also measured between trained widths (see
    `lazynet.theory.crossing`). The required width is at least the crossing, because the whole interval of the mean must
    lie within the tolerance.

    By default, all networks are trained with the same learning rate, or with rates that scale with the width as the
    parametrization prescribes. Gaps can grow with further training, so the required width holds only for the given
    number of steps.

    Args:
        network: The family of networks; its own width is replaced.
        data: The training and test examples.
        tolerance: Largest gap at which networks count as lazy, as a fraction of the RMS of the targets.
        of: "linearization" for the gap between each network and its own linearization, or "infinite_width" for the gap
            to the prediction of the analytic kernel.
        seeds: A list of at least two seeds, or an integer s for the seeds 0, ..., s - 1.
        steps: Number of training steps.
        pilots: Pilot widths, at most `max_width`. The prediction uses the five largest, and a power law if there are
            fewer than four. Defaults to 64, 128, 256, 512, 1024 and 2048, as far as they are at most `max_width`.
        max_width: Largest width that may be trained. If the predicted width is larger, it is not verified.
        learning_rate: Learning rate eta, either a number that applies to all widths or a function of the width. By
            default, the rate that `lazynet.sweep` chooses for the widths in `pilots`.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: The name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an
            optax optimizer.
        batch_size: Number of examples per batch; defaults to the full batch.
        dtype: Dtype used for training, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder`. The folder contains settings.json, result.nc, the prediction, and a
            subfolder for the sweep at each width. A search in the same folder with a different `tolerance`, `of` or
            `max_width` reuses the trained networks and replaces the result. `out.shard` must be None, because the
            widths to train depend on earlier results.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`, or None on a host other than the first. It contains the measurements of a sweep, with the
        dimensions width, seed and step; `pilot`, with the dimension width, which is 1 for pilots and 0 for widths
        trained later; and, as numbers of hidden units, `required_width` (NaN if no width was verified),
        `predicted_width`, which is the predicted crossing, and `crossing`, with `_low` and `_high` for the ends of
        their 95% intervals. Its attributes include `tolerance`, `of` and `reason`, the reason why no width was
        predicted or verified (empty if one was verified). `lazynet.verify(result).answer` states the outcome in words.

    Raises:
        ValueError: If an argument is invalid, if `out` contains a different study, or if another process is using
            `out`. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the search can be resumed.

    Warns:
        UserWarning: If the learning rate is above the stability limit, or if a stored prediction is damaged.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.required_width(lz.TwoLayer(width=2), data, tolerance=0.1, seeds=4, steps=10, pilots=[16, 64, 256])
    >>> int(result.required_width) in result.width.values
    True
    """
    with together():
        search = make_search(
            network,
            data,
            tolerance,
            of,
            seeds,
            steps,
            pilots=pilots,
            max_width=max_width,
            learning_rate=learning_rate,
            loss=loss,
            optimizer=optimizer,
            batch_size=batch_size,
            dtype=dtype,
            folder=as_run_folder(out),
            progress=progress,
        )
    return run_search(search)


def make_search(
    network: GivenNetwork,
    data: Dataset,
    tolerance: float,
    of: str,
    seeds: int | Sequence[int],
    steps: int,
    *,
    pilots: Sequence[int] | None,
    max_width: int,
    learning_rate: Scale | None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    dtype: str,
    folder: RunFolder | None,
    progress: bool,
) -> Search:
    """Check the arguments of `required_width` and return the settings of the search.

    Args:
        network: As in `required_width`.
        data: As in `required_width`.
        tolerance: As in `required_width`.
        of: As in `required_width`.
        seeds: As in `required_width`.
        steps: As in `required_width`.
        pilots: As in `required_width`.
        max_width: As in `required_width`.
        learning_rate: As in `required_width`.
        loss: As in `required_width`.
        optimizer: As in `required_width`.
        batch_size: As in `required_width`.
        dtype: As in `required_width`.
        folder: The folder in which to store the search, or None to store nothing.
        progress: As in `required_width`.

    Returns:
        The settings.

    Raises:
        ValueError: If an argument is invalid.
    """
    training = make_training(
        steps,
        loss=loss,
        optimizer=optimizer,
        batch_size=batch_size,
        snapshots=None,
        measure=Measure(kernel_drift=False),
        dtype=dtype,
    )
    data = check_inputs(network, data)
    if training.is_flow:
        raise ValueError("optimizer must not be 'flow', because gradient flow has no predictions to follow.")
    check_choice("of", of, PREDICTIONS)
    goal = Goal(check_tolerance(tolerance), of, check_count("max_width", max_width))
    members = check_seeds(seeds)
    if len(members) < 2:
        raise ValueError(f"seeds must contain at least two seeds, got {len(members)}. A single seed gives no interval.")
    if pilots is None:
        pilots = [width for width in PILOTS if width <= goal.max_width]
        if not pilots:
            raise ValueError(f"max_width must be at least {PILOTS[0]} unless pilots are given, got {goal.max_width}.")
    ordered = check_widths(pilots, network, learning_rate, "pilots")
    if ordered[-1] > goal.max_width:
        raise ValueError(f"max_width must be at least {ordered[-1]}, the largest pilot width, got {goal.max_width}.")
    if learning_rate is not None:
        check_scale("learning_rate", learning_rate, goal.max_width)
    if folder is not None and folder.shard is not None:
        raise ValueError(f"out.shard must be None, got {folder.shard}. The widths to train depend on earlier results.")
    parts = Parts.starting_now(folder)
    search = Search(goal, network, data, members, training, ordered, learning_rate, parts, progress, References())
    if of == "infinite_width":
        if analytic_kernel(network) is None:
            raise ValueError(
                "of must be 'linearization' for a network without an analytic kernel, got 'infinite_width'."
            )
        if not training.predicts_limit(data.n_train):
            raise ValueError(
                "of must be 'linearization' unless the optimizer is 'sgd' without a schedule and, if "
                f"kernel descent has no closed form, there are at most {FACTORED} examples, got 'infinite_width'."
            )
    return search


def run_search(search: Search) -> Result | None:
    """Search for the required width.

    Args:
        search: The settings of the search.

    Returns:
        The result, or None on a host other than the first.

    Raises:
        ValueError: If the folder contains a different study, if another process is using it, or if the pilots do not
            fit in memory.
        TimeoutError: If the time limit expires.
    """
    folder = search.parts.folder
    with together():
        if folder is not None and is_first():
            folder.check()
        check_memory_of(search.pilot_spec)
    with ExitStack() as stack:
        store = None
        with together():
            if folder is not None and is_first():
                store = stack.enter_context(open_store(folder, KIND, search.pilot_spec.request()))
        with together():
            base = (store and store.record.get("learning_rate")) or search.base_rate()
            if store is not None:
                store.begin({"learning_rate": base}, [])
        return _search_widths(search, agreed(base), store)


def _search_widths(search: Search, base: float, store: Store | None) -> Result | None:
    """Train widths until the required width is known, and return the result."""
    goal = search.goal
    found: list[Result] = []

    def train(width: int) -> None:
        trained = search.train(width, search.rate(base, width))
        if trained is not None:
            trained.attrs |= {"tolerance": goal.tolerance, "of": goal.of}
            found.append(trained)
            found.sort(key=lambda each: int(each.width[0]))

    pilots = 0
    for width in search.pilots:
        train(width)
        pilots += 1
        with together():
            lazy = agreed(bool(found) and regimes_of(found[-1])[0].status == "lazy")
        if lazy:
            break
    predicted, reason = Crossing(np.nan, np.nan, np.nan), ""
    with together():
        if found:
            predicted, reason = _predicted(_joined(found))
            predicted = _stored(store, predicted, goal, [int(each.width[0]) for each in found])
            _show(search.progress, predicted, goal.tolerance)
    for _ in range(MOST_TRAINED):
        with together():
            wanted = None
            if found and not reason:
                wanted = next_width(regimes_of(_joined(found)), predicted, goal)
            width = agreed(wanted)
            reason = agreed(reason if width is None else search.why_too_large(width, search.rate(base, width)))
        if width is None or reason:
            break
        train(width)
    with together():
        if not found:
            return None
        result = _labeled(_joined(found), search, base, pilots, predicted, reason)
        if store is not None:
            store.finish(result_files(result))
    return result


def _joined(found: list[Result]) -> Result:
    """Join the results at all trained widths along the width."""
    import xarray

    options: Any = {"coords": "minimal", "compat": "override", "join": "exact", "combine_attrs": "override"}
    return xarray.concat(found, "width", data_vars="all", **options)


def _predicted(result: Result) -> tuple[Crossing, str]:
    """Return the predicted crossing, and the reason if no crossing can be predicted (otherwise an empty string)."""
    rows, values = regimes_of(result), suprema(result, result.attrs["of"])
    unknown = Crossing(np.nan, np.nan, np.nan)
    if rows[0].status == "lazy":
        return unknown, ""
    widths = result.width.values
    diverged = [i for i, row in enumerate(rows) if math.isinf(row.supremum)]
    first = diverged[-1] + 1 if diverged else 0
    widths, values = widths[first:], values[first:]
    if not len(widths):
        return unknown, f"networks of width {rows[-1].width} or their predictions diverged"
    if len(widths) < 2:
        return unknown, f"only one pilot, of width {widths[0]}, can be used, and a prediction needs at least two"
    predicted, lazy = predict_crossing(widths, values, result.attrs["tolerance"]), rows[-1].status == "lazy"
    fit, recent = fit_exponent(widths[-RECENT:], values[-RECENT:]), widths[-RECENT:]
    interval = f"{fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
    level = f"between widths {recent[0]} and {recent[-1]}, its width exponent is {interval}"
    in_theory = _exponent_in_theory(result)
    if not lazy and in_theory is not None and in_theory > FALLING:
        return unknown, f"theory predicts that the gap does not fall with the width; {level}"
    if not lazy and not fit.exponent < FALLING:
        return unknown, f"the gap does not fall with the width: {level}"
    if not lazy and math.isinf(predicted.high) and not fit.high < 0:
        return unknown, f"the pilots do not show that the gap falls with the width: {level}"
    if math.isinf(predicted.width):
        return unknown, f"the gap falls too slowly to reach the tolerance: {level}"
    return predicted, ""


def _exponent_in_theory(result: Result) -> float | None:
    """Return the predicted width exponent of the gap, or None if theory predicts none."""
    scaling = scaling_of(ordered(result))
    gap = f"{PREDICTIONS[result.attrs['of']].gap}_train"
    predictions = [] if scaling is None else predicted_exponents(scaling)
    return next((prediction.exponent for prediction in predictions if prediction.quantity == gap), None)


def _stored(store: Store | None, predicted: Crossing, goal: Goal, widths: list[int]) -> Crossing:
    """Store a prediction, and return the stored one if an earlier run has already stored one."""
    if store is None:
        return predicted
    file = store.path / f"prediction-{goal.of}-{goal.tolerance!r}.json"
    if file.exists():
        try:
            stored = Crossing(*(float(json.loads(file.read_text())[name]) for name in Crossing._fields))
            if np.isnan(stored).all() or 0 <= stored.low <= stored.width <= stored.high:
                return stored
        except (ValueError, KeyError, TypeError):
            pass
        warnings.warn(f"{file.name} in {str(store.path)!r} is damaged and will be replaced.", stacklevel=4)
    # JSON has no NaN or infinity, so they are stored as text.
    numbers = {name: value if math.isfinite(value) else str(value) for name, value in predicted._asdict().items()}
    content = {"tolerance": goal.tolerance, "of": goal.of, "pilots": widths, **numbers}
    write_file(file, (json.dumps(content) + "\n").encode())
    return predicted


def _show(progress: bool, predicted: Crossing, tolerance: float) -> None:
    """Print the predicted width to stderr if progress is shown on a terminal."""
    if progress and sys.stderr.isatty() and math.isfinite(predicted.width):
        width = crossing_text(predicted)
        print(f"The mean gap is predicted to fall to {100 * tolerance:g}% at width {width}.", file=sys.stderr)


def _labeled(result: Result, search: Search, base: float, pilots: int, predicted: Crossing, reason: str) -> Result:
    """Return the result with the required width, the prediction and the crossing."""
    goal = search.goal
    rows = regimes_of(result)
    first = first_lazy(rows)
    measured = crossing(result.width.values, suprema(result, goal.of), goal.tolerance)
    required = rows[first].width if first < len(rows) else np.nan
    widths = result.width.values.tolist()
    numbers = {
        "required_width": required,
        **dict(zip(("predicted_width", "predicted_width_low", "predicted_width_high"), predicted, strict=True)),
        **dict(zip(("crossing", "crossing_low", "crossing_high"), measured, strict=True)),
    }
    is_pilot = np.isin(result.width.values, search.pilots[:pilots]).astype(np.int8)
    result = result.assign(numbers | {"pilot": ("width", is_pilot)})
    if first == len(rows) and not reason:
        reason = _why_not_verified(rows[-1], predicted, goal.max_width)
    settings = json.loads(result.attrs["settings"]) | {
        "widths": widths,
        "learning_rate": {str(width): search.rate(base, width) for width in widths},
        "pilots": list(search.pilots),
        **goal._asdict(),
    }
    result.attrs |= {"settings": json.dumps(settings), "reason": reason if first == len(rows) else ""}
    label_result(result, KIND)
    return result


def _why_not_verified(widest: WidthRegime, predicted: Crossing, max_width: int) -> str:
    if predicted.width > max_width:
        return f"the predicted width exceeds max_width = {max_width}"
    place = "contains" if widest.status == "undecided" else "is above"
    return f"the 95% interval of the mean gap at width {widest.width}, the largest one trained, {place} the tolerance"
