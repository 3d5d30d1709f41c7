"""Train pilots, predict the crossing, and train wider networks until the required width is known."""

import json
import math
import sys
import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np

from lazynet.execution import Store, open_store, result_files, write_file
from lazynet.experiment import check_memory_of
from lazynet.hosts import agreed, is_first, together
from lazynet.measures import label_result
from lazynet.studies.required_width._answer import crossing_text, regimes_of
from lazynet.studies.required_width._search import Goal, first_lazy, next_width
from lazynet.studies.required_width._settings import Search
from lazynet.studies.sweep import scaling_of
from lazynet.studies.sweep._points import ordered
from lazynet.studies.sweep._regime import PREDICTIONS, WidthRegime, suprema
from lazynet.theory import Crossing, crossing, fit_exponent, predict_crossing, predicted_exponents
from lazynet.typing import Result

KIND = "required_width"
# Largest number of widths that are trained after the prediction.
MOST_TRAINED = 8
# The gap counts as falling if the exponent fitted to the RECENT widest pilots is below FALLING.
FALLING, RECENT = -0.1, 3


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
    predicted = predict_crossing(widths, values, result.attrs["tolerance"])
    recent = widths[-RECENT:]
    fit = fit_exponent(recent, values[-RECENT:])
    interval = f"{fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
    level = f"between widths {recent[0]} and {recent[-1]}, its width exponent is {interval}"
    if rows[-1].status != "lazy":
        in_theory = _exponent_in_theory(result)
        if in_theory is not None and in_theory > FALLING:
            return unknown, f"theory predicts that the gap does not fall with the width; {level}"
        if not fit.exponent < FALLING:
            return unknown, f"the gap does not fall with the width: {level}"
        if math.isinf(predicted.high) and not fit.high < 0:
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
