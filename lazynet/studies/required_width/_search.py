"""Which width to train next, given the regimes of the widths that have been trained."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, floor, inf, isfinite, log, log2
from typing import NamedTuple

from lazynet.studies.sweep._regime import WidthRegime
from lazynet.theory import Crossing
from lazynet.theory._crossings import NEAR

# The search ends when the required width is at most this factor times the next smaller trained width.
CLOSE = 1.3
# Range to which local exponents are clipped in extrapolations.
STEEPEST, FLATTEST = -1.5, -0.2
# Safety factor: when a width is chosen so that its interval lies within the tolerance, the half-width of the interval
# is multiplied by this factor.
RESERVE = 1.3
# Factor between the crossing and the first width trained below it, and the smallest step to a larger width.
BELOW = 1.12


class Goal(NamedTuple):
    """Target of a search for the required width.

    Attributes:
        tolerance: Largest gap at which networks count as lazy, as a fraction of the RMS of the targets.
        of: The prediction that networks should follow, "linearization" or "infinite_width".
        max_width: Largest width that may be trained.
    """

    tolerance: float
    of: str
    max_width: int


def first_lazy(rows: Sequence[WidthRegime]) -> int:
    """Return the index of the smallest width such that it and all larger ones are lazy, or len(rows) if none is.

    Args:
        rows: Regimes in ascending order of the width.
    """
    lazy = [row.status == "lazy" for row in rows]
    return len(rows) - (lazy[::-1].index(False) if False in lazy else len(rows))


def next_width(rows: Sequence[WidthRegime], predicted: Crossing, goal: Goal) -> int | None:
    """Return the next width to train, or None if training another width would not improve the answer.

    The goal is a required width close to the crossing, and trained widths on both sides of the crossing that are close
    enough to measure it.

    Args:
        rows: Regimes of the trained widths, in ascending order of the width.
        predicted: The predicted crossing.
        goal: Target of the search.
    """
    # Some network families allow only even widths.
    most, tolerance = goal.max_width - goal.max_width % 2, goal.tolerance
    widths, first = [row.width for row in rows], first_lazy(rows)
    at, slope = _estimate(rows, predicted, tolerance)
    if first == len(rows):
        # The upper end of the interval must also be within the tolerance.
        spread = log(rows[-1].high / rows[-1].supremum) if isfinite(rows[-1].supremum) else 0.0
        wanted = rounded(at * exp(RESERVE * spread / -slope))
        if wanted <= widths[-1]:
            wanted = max(rounded(BELOW * widths[-1]), widths[-1] + 2 - widths[-1] % 2)
        if wanted > most:
            wanted = most
        return wanted if at <= most and wanted > widths[-1] else None
    apart = _pair_around(rows, tolerance)
    if apart is not None and apart[1] > NEAR * apart[0]:
        candidate = rounded(max(at / BELOW, apart[1] / NEAR))
        candidate = rounded((apart[0] * apart[1]) ** 0.5) if candidate in widths else candidate
    elif first > 0 and widths[first] > CLOSE * widths[first - 1]:
        candidate = rounded((widths[first - 1] * widths[first]) ** 0.5)
    else:
        return None
    return None if candidate in widths else candidate


def rounded(width: float) -> int:
    """Round a width to an even number with about two significant digits; 4200 is rounded to a multiple of 128.

    Args:
        width: Positive number, possibly infinite. Values above 10^15 count as 10^15.
    """
    width = min(max(width, 2.0), 1e15)
    unit = 2 ** max(1, floor(log2(width)) - 5)
    return int(unit * max(1, round(width / unit)))


def _pair_around(rows: Sequence[WidthRegime], tolerance: float) -> tuple[int, int] | None:
    """Return the neighboring widths between which the mean falls to the tolerance for the last time, or None."""
    pairs = [(a.width, b.width) for a, b in pairwise(rows) if a.supremum > tolerance >= b.supremum]
    return pairs[-1] if pairs else None


def _estimate(rows: Sequence[WidthRegime], predicted: Crossing, tolerance: float) -> tuple[float, float]:
    """Return the estimated crossing and the local exponent of the gap there."""
    points = [(log(row.width), log(row.supremum / tolerance)) for row in rows if 0 < row.supremum < inf]
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in pairwise(points)]
    last = min(max(slopes[-1], STEEPEST), FLATTEST) if slopes else FLATTEST
    between = [i for i, ((_, a), (_, b)) in enumerate(pairwise(points)) if a > 0 >= b]
    if between:
        x, above = points[between[-1]]
        slope = slopes[between[-1]]
        return exp(x - above / slope), min(max(slope, STEEPEST), FLATTEST)
    if points and points[-1][1] > 0 and not rows[-1].width < predicted.width / CLOSE:
        # Widths near the predicted one have been trained, so extrapolate from the two largest.
        return exp(points[-1][0] - points[-1][1] / last), last
    return predicted.width, last
