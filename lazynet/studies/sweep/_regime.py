"""The regime of each width: whether its networks follow a prediction to a tolerance, and until which step."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from lazynet.arguments import check_number
from lazynet.experiment import MemberStatus
from lazynet.studies.sweep._points import while_training
from lazynet.theory._fits import CONFIDENCE
from lazynet.typing import Result

Regime = Literal["lazy", "not lazy", "undecided"]

# Largest gap at which networks count as lazy, if no other tolerance is given.
TOLERANCE = 0.05


class Followed(NamedTuple):
    """A prediction that networks may follow.

    Attributes:
        gap: Prefix of the names of its gaps in a result.
        words: How a sentence names the prediction.
    """

    gap: str
    words: str


# The coordinate with the RMS of the targets of each part of the data.
TARGETS = {"train": "target_rms", "test": "test_target_rms"}
PREDICTIONS = {
    "linearization": Followed("linearization_gap", "its linearization"),
    "infinite_width": Followed("kernel_gap", "the infinite-width kernel"),
}


@dataclass(frozen=True)
class WidthRegime:
    """How closely the networks of one width follow a prediction.

    The supremum of a network is the maximum of its gap over snapshots, on the training set and the test set, each
    divided by the RMS of the targets of that set. It is infinite for a network that diverged, and for one whose
    linearization or prediction diverged.

    Attributes:
        prediction: "linearization" (each network's own, at its initial weights) or "infinite_width" (the prediction of
            the analytic kernel from the network's own initial outputs).
        width: Width of the networks.
        supremum: Mean of the suprema over seeds.
        low: Lower end of the 95% interval of the mean, or NaN if there is only one seed or the mean is infinite.
        high: Upper end of the 95% interval of the mean, or NaN if there is only one seed or the mean is infinite.
        worst: Largest supremum of any seed.
        until: Last snapshot up to which the running maximum of the gap, averaged over seeds, is within the tolerance.
        until_low: Last snapshot at which the upper end of the 95% interval of this average is within the tolerance, or
            None if there is only one seed.
        until_high: Last snapshot at which the lower end of the 95% interval of this average is within the tolerance, or
            None if there is only one seed.
        last: The last snapshot at which a network of this width was still training.
        stopped: Whether a network of this width met a criterion to stop before the last step of the sweep. Its gap
            counts only until it stopped.
        status: "lazy" if the whole interval of the mean is within the tolerance, "not lazy" if it is beyond the
            tolerance or if a network diverged, and "undecided" otherwise.
    """

    prediction: str
    width: int
    supremum: float
    low: float
    high: float
    worst: float
    until: int
    until_low: int | None
    until_high: int | None
    last: int
    stopped: bool
    status: Regime


def check_tolerance(tolerance: float) -> float:
    """Check a tolerance for gaps, and return it as a float.

    Args:
        tolerance: Largest gap at which networks count as lazy, as a fraction of the RMS of the targets.

    Returns:
        The tolerance.

    Raises:
        ValueError: If the tolerance is not a positive number below 1.
    """
    return check_number("tolerance", tolerance, positive=True, below=1.0)


def regimes(result: Result, tolerance: float) -> tuple[WidthRegime, ...]:
    """Return the regime of each width for each prediction that a result contains.

    Args:
        result: Result of a sweep at a single point, with its coordinates in ascending order.
        tolerance: Largest gap at which networks count as lazy, as a fraction of the RMS of the targets.

    Returns:
        The regimes, grouped by prediction and in ascending order of the width within each. Predictions whose gaps are
        missing are left out.
    """
    found = []
    for prediction in PREDICTIONS:
        gaps = running_gaps(result, prediction)
        if gaps is None:
            continue
        for width, of_width, counted in zip(result.width.values, *gaps, strict=True):
            seen = counted.any(axis=0)
            steps = result.step.values[seen]
            found.append(_regime(prediction, int(width), of_width[:, seen], steps, not counted.all(), tolerance))
    return tuple(found)


def suprema(result: Result, prediction: str) -> Float[np.ndarray, "w s"]:
    """Return the supremum of each network's gap, as in `WidthRegime`, shape (w, s).

    Args:
        result: Result of a sweep at a single point, with its coordinates in ascending order.
        prediction: "linearization" or "infinite_width", whose gaps the result must contain.
    """
    gaps = running_gaps(result, prediction)
    assert gaps is not None
    return gaps[0][..., -1]


def running_gaps(
    result: Result, prediction: str
) -> tuple[Float[np.ndarray, "w s t"], Bool[np.ndarray, "w s t"]] | None:
    """Return the running maximum of each network's gap, and whether each snapshot counts, both of shape (w, s, t).

    Gaps are fractions of the RMS of the targets, and infinite from the step at which a network or its prediction
    diverged. A snapshot counts if the network was still training or had diverged. The result is None if the gaps to the
    prediction are missing.
    """
    import xarray as xr

    gap = PREDICTIONS[prediction].gap
    parts = [result[f"{gap}_{part}"] / result[scale] for part, scale in TARGETS.items() if f"{gap}_{part}" in result]
    if not parts:
        return None
    training = while_training(result)
    largest = xr.concat(parts, "part").max("part", skipna=False).transpose("width", "seed", "step")
    lost = largest.isnull()
    if "status" in result:
        # After a network has stopped, its prediction keeps changing, so the gaps at later snapshots do not count.
        diverged = result.status == MemberStatus.DIVERGED
        lost = (lost & training) | (diverged & (result.step >= result.stopped_step))
    counts = (training | lost).transpose("width", "seed", "step").values
    gaps = xr.where(lost, np.inf, largest).transpose("width", "seed", "step").values
    return np.maximum.accumulate(np.where(counts, gaps, 0.0), axis=2), counts


def coarse_snapshots(steps: Int[np.ndarray, " s"]) -> tuple[int, int] | None:
    """Return the two successive snapshots with the largest ratio, or None if all are as close as by default.

    By default, successive snapshots differ by a factor of at most 1.5, up to rounding to integers.

    Args:
        steps: Steps of the snapshots, in ascending order. Step 0 counts as a snapshot.
    """
    pairs = [(int(a), int(b)) for a, b in pairwise([0, *steps]) if b > 1.5 * a + 1]
    return max(pairs, key=lambda pair: pair[1] / max(pair[0], 1)) if pairs else None


def why_no_regimes(result: Result) -> str:
    """Return why a result has no regimes, or an empty string if it has regimes."""
    parts = [part for part in TARGETS if any(f"{followed.gap}_{part}" in result for followed in PREDICTIONS.values())]
    if not parts:
        return "the result has no predictions"
    for name in (TARGETS[part] for part in parts):
        if name not in result.coords:
            return f"the result lacks the coordinate {name}, which earlier versions did not store"
        if not (result[name] > 0).all():
            return f"{name} is {float(result[name].min()):g}"
    return ""


def _regime(
    prediction: str,
    width: int,
    running: Float[np.ndarray, "seeds steps"],
    steps: Int[np.ndarray, " steps"],
    stopped: bool,
    tolerance: float,
) -> WidthRegime:
    seeds = len(running)
    if not len(steps):
        # All networks stopped before the first snapshot in the result.
        running, steps = np.full((seeds, 1), np.nan), np.zeros(1, int)
    with np.errstate(invalid="ignore"):
        mean = running.mean(axis=0)
        error = running.std(axis=0, ddof=1) / seeds**0.5 if seeds > 1 else np.full_like(mean, np.nan)
        # If a network diverged, there is no interval, and the mean is infinite.
        half = np.where(np.isfinite(mean), stdtrit(max(seeds - 1, 1), (1 + CONFIDENCE) / 2) * error, 0)
    low, high = np.maximum(mean - half, 0), mean + half

    def last_within(curve: np.ndarray) -> int:
        # The gap is zero at step 0, even if the result does not contain this step.
        return max((int(step) for step in steps[curve <= tolerance]), default=0)

    status: Regime = "undecided"
    if np.isinf(mean[-1]) or (seeds > 1 and low[-1] > tolerance):
        status = "not lazy"
    elif seeds > 1 and high[-1] <= tolerance:
        status = "lazy"
    return WidthRegime(
        prediction=prediction,
        width=width,
        supremum=float(mean[-1]),
        low=float(low[-1]) if seeds > 1 and np.isfinite(mean[-1]) else np.nan,
        high=float(high[-1]) if seeds > 1 and np.isfinite(mean[-1]) else np.nan,
        worst=float(running[:, -1].max()),
        until=last_within(mean),
        until_low=last_within(high) if seeds > 1 else None,
        until_high=last_within(low) if seeds > 1 else None,
        last=int(steps[-1]),
        stopped=stopped,
        status=status,
    )


def answer_text(found: tuple[WidthRegime, ...], tolerance: float, steps: Int[np.ndarray, " s"]) -> str:
    """Return the answer of a verdict: from which width on networks follow each prediction, and how closely.

    Args:
        found: Regimes of all widths, in ascending order, for each prediction. There must be at least one.
        tolerance: The tolerance for which the regimes were determined.
        steps: Steps of the snapshots, in ascending order.
    """
    last = max(row.last for row in found)
    stopped = any(row.stopped for row in found)
    when = f"Over up to {last} steps, until training stopped," if stopped else f"Over {steps[-1]} steps"
    sentences: list[str] = []
    for prediction, followed in PREDICTIONS.items():
        rows = [row for row in found if row.prediction == prediction]
        if not rows:
            continue
        subject = f"{when} the network" if not sentences else "It"
        sentences.append(_sentence(subject, followed.words, rows, tolerance, details=not sentences))
    coarse = coarse_snapshots(steps[steps <= last])
    if coarse is not None:
        sentences.append(f"Snapshots are coarse: there is none between steps {coarse[0]} and {coarse[1]}.")
    return " ".join(sentences)


def _sentence(subject: str, words: str, rows: list[WidthRegime], tolerance: float, details: bool) -> str:
    lazy = [row.status == "lazy" for row in rows]
    # The smallest width such that it and all larger widths are lazy.
    first = len(rows) - (lazy[::-1].index(False) if False in lazy else len(rows))
    widest, to = rows[-1], f"to {100 * tolerance:g}%"
    at_widest = f"at width {widest.width}"
    if first < len(rows):
        where = f"from width {rows[first].width} on" if len(rows) > 1 else at_widest
        claim, level = f"follows {words} {to} {where}", f"{at_widest} to {_level(widest)}"
    elif widest.status == "undecided":
        claim, level = f"may or may not follow {words} {to} {at_widest}", f"the largest gap there is {_level(widest)}"
    else:
        all_fail = len(rows) > 1 and all(row.status == "not lazy" for row in rows)
        where = "at any of these widths" if all_fail else at_widest
        claim, level = f"does not follow {words} {to} {where}", f"the largest gap {at_widest} is {_level(widest)}"
    others = rows[:first] if widest.status == "not lazy" else rows[: min(first, len(rows) - 1)]
    return f"{subject} {claim}{_until(others) if details else ''}; {level}."


def _level(row: WidthRegime) -> str:
    if np.isinf(row.supremum):
        return "unbounded, because a network or its prediction diverged"
    return f"{two_digits(100 * row.supremum)}%{interval_text(row)}"


def _until(rows: list[WidthRegime]) -> str:
    """Describe the widths from the largest down to the first that is not lazy, in parentheses."""
    if rows and all(row.status == "undecided" for row in rows):
        return f" (width {rows[0].width}: undecided)" if len(rows) == 1 else " (narrower widths: undecided)"
    said = []
    for row in reversed(rows):
        if row.status == "not lazy":
            said.append(f"{row.width}: until step {row.until}")
            break
        said.append(f"{row.width}: {row.status}")
    return f" (width {', '.join(said)})" if said else ""


def interval_text(row: WidthRegime) -> str:
    """Return the interval of a supremum in percent, or an empty string if there is only one seed."""
    return "" if np.isnan(row.low) else f" [{two_digits(100 * row.low)}, {two_digits(100 * row.high)}]"


def two_digits(value: float) -> str:
    """Return a number with two significant digits, or without decimals if it is at least 10."""
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"
