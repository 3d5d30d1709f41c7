"""The answer to the question how wide a network must be: in words, as a verdict, and as a dictionary."""

import json
from math import isfinite, isnan
from typing import Any

from lazynet.arguments import check_number, described
from lazynet.studies.sweep import Verdict
from lazynet.studies.sweep._points import ordered
from lazynet.studies.sweep._regime import PREDICTIONS, TARGETS, WidthRegime, interval_text, regimes, two_digits
from lazynet.studies.sweep._verdict import BAND
from lazynet.theory import Crossing
from lazynet.training import snapshot_steps
from lazynet.typing import Result

# The scalar variables of a result, and the variable that tells pilots from other widths.
NUMBERS = (
    "required_width",
    "predicted_width",
    "predicted_width_low",
    "predicted_width_high",
    "crossing",
    "crossing_low",
    "crossing_high",
    "pilot",
)


def regimes_of(result: Result) -> tuple[WidthRegime, ...]:
    """Return the regime of each trained width for the prediction in the attribute `of`, in ascending order."""
    return tuple(row for row in regimes(result, result.attrs["tolerance"]) if row.prediction == result.attrs["of"])


def checked(result: Result) -> Result:
    """Return a result of `lazynet.required_width` with its coordinates in ascending order.

    Raises:
        ValueError: If the result is incomplete, because the answer describes the whole search.
    """
    lacking = [name for name in ("tolerance", "of", "reason", "settings") if name not in result.attrs]
    lacking += [name for name in NUMBERS if name not in result.variables]
    gap = PREDICTIONS[result.attrs["of"]].gap if "of" in result.attrs else "linearization_gap"
    lacking += [] if any(f"{gap}_{part}" in result for part in TARGETS) else [f"{gap}_train"]
    if lacking:
        raise ValueError(f"result must be a whole result of lazynet.required_width, but {lacking[0]} is missing.")
    result = ordered(result)
    settings = json.loads(result.attrs["settings"])
    steps = snapshot_steps(settings["steps"], settings["snapshots"])
    for name, whole in (("width", settings["widths"]), ("seed", sorted(settings["seeds"])), ("step", steps)):
        if result[name].values.tolist() != list(whole):
            raise ValueError(
                f"result must be a whole result of lazynet.required_width, but its coordinate {name} has "
                f"{result.sizes[name]} of {len(whole)} values."
            )
    return result


def verify_required_width(
    result: Result, tolerance: float | None = None, *, band: float = BAND, corrections: bool = False
) -> Verdict:
    """Return the answer and the regime of each trained width; see `lazynet.verify`."""
    for name, value, default in (("tolerance", tolerance, None), ("corrections", corrections, False)):
        if value is not default:
            raise ValueError(
                f"{name} must be omitted for a result of lazynet.required_width, whose tolerance is "
                f"{result.attrs['tolerance']:g}, got {described(value)}."
            )
    check_number("band", band, positive=True)
    result = checked(result)
    rows = regimes_of(result)
    return Verdict(
        rows=(),
        inequalities=(),
        levels={},
        band=band,
        widths=tuple(row.width for row in rows),
        seeds=result.sizes["seed"],
        regimes=rows,
        tolerance=result.attrs["tolerance"],
        steps=int(result.step.max()),
        verified=not isnan(float(result.required_width)),
        answer=answer_of(result),
    )


def width_record(result: Result) -> dict[str, Any]:
    """Return the main numbers of a result of `lazynet.required_width`.

    Args:
        result: Result of `lazynet.required_width`.

    Returns:
        A dictionary with `width`, the required width (None if no width was verified); `predicted`, `low` and `high`,
        the predicted crossing and the ends of its 95% interval; `verified`; `gap`, the mean over seeds of the largest
        gap at the required width; `crossing`, `crossing_low` and `crossing_high`; `tolerance`, `of`, `steps` and
        `answer`. Numbers that are undefined or infinite are None.
    """

    def number(name: str) -> float | None:
        value = float(result[name])
        return value if isfinite(value) else None

    width = number("required_width")
    gaps = [row.supremum for row in regimes_of(result) if row.width == width]
    return {
        "width": None if width is None else int(width),
        "low": number("predicted_width_low"),
        "high": number("predicted_width_high"),
        "predicted": number("predicted_width"),
        "verified": width is not None,
        "gap": gaps[0] if gaps else None,
        "crossing": number("crossing"),
        "crossing_low": number("crossing_low"),
        "crossing_high": number("crossing_high"),
        "tolerance": result.attrs["tolerance"],
        "of": result.attrs["of"],
        "steps": int(result.step.max()),
        "answer": answer_of(result),
    }


def answer_of(result: Result) -> str:
    """Return the answer in words."""
    rows, reason = regimes_of(result), result.attrs["reason"]
    words, steps = PREDICTIONS[result.attrs["of"]].words, int(result.step.max())
    to = f"{words} to {100 * result.attrs['tolerance']:g}%"
    predicted = Crossing(*(float(result[f"predicted_width{end}"]) for end in ("", "_low", "_high")))
    pilots = result.width.values[result.pilot.values == 1]
    if not isnan(float(result.required_width)):
        row = next(row for row in rows if row.width == int(result.required_width))
        level = f"{two_digits(100 * row.supremum)}%{interval_text(row)}"
        widest = f" (verified up to width {rows[-1].width})" if rows[-1].width > row.width else ""
        sentences = [
            f"Over {steps} steps the network follows {to} from width {row.width} on{widest}; at width {row.width} to "
            f"{level}."
        ]
        if isfinite(crossing := float(result.crossing)):
            ends = float(result.crossing_low), float(result.crossing_high)
            sentences.append(f"The mean gap equals the tolerance at width {crossing_text(Crossing(crossing, *ends))}.")
        if isfinite(predicted.width):
            sentences.append(f"From widths up to {pilots[-1]}, {crossing_text(predicted)} was predicted.")
        elif row is rows[0]:
            sentences.append("No narrower width was trained.")
        return " ".join(sentences)
    if not isnan(predicted.width):
        claim = (
            f"Over {steps} steps the network is predicted to follow {to} from about width {crossing_text(predicted)} on"
        )
        return f"{claim}. This is not verified, because {reason}."
    return f"No width is predicted for which the network follows {to} over {steps} steps, because {reason}."


def crossing_text(crossing: Crossing) -> str:
    """Return a width and its interval as text, with three significant digits."""
    width, low, high = (str(int(float(f"{value:.3g}"))) if isfinite(value) else f"{value:g}" for value in crossing)
    return f"{width} [{low}, {high}]"
