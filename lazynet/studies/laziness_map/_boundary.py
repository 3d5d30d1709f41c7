"""Where kernels stop being lazy: the boundary over output scales, its exponent in the width, and the collapse."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.theory._exponents import ROUNDING, Scaling, layer_exponents, predicted_exponents
from lazynet.theory._fits import RESAMPLES, Fit, interval

# Places between the smallest and the largest common value at which curves are compared.
COMPARED = 64


class Boundary(NamedTuple):
    """The output scale of each width with its 95% interval, (w,), and the fit of its exponent in the width.

    NaN where a width has none.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    fit: Fit


def mean_of_most(changes: Float[np.ndarray, "... s"]) -> np.ndarray:
    """Means over the last axis of those that have a value, NaN where fewer than half have one.

    A few survivors are no sample of all.
    """
    known = np.isfinite(changes)
    count = known.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, changes, 0).sum(axis=-1) / count
    return np.where(2 * count >= changes.shape[-1], mean, np.nan)


def bracket(scales: Num[np.ndarray, " a"], change: Float[np.ndarray, " a"], level: float) -> tuple[float, float] | None:
    """The two neighboring scales, ascending, between which the change falls below a level for the last time.

    A scale without a value (NaN) is left out; None where the change is not above the level and then below it.
    """
    known = np.isfinite(change)
    scales, change = np.asarray(scales)[known], change[known]
    found = [
        (float(a), float(b))
        for (a, above), (b, below) in pairwise(zip(scales, change, strict=True))
        if above >= level > below
    ]
    # Above its last fall the change stays below the level.
    return found[-1] if found and change[-1] < level else None


def fit_boundary(
    widths: Num[np.ndarray, " w"],
    scales: Sequence[Num[np.ndarray, " a"]],
    changes: Sequence[Float[np.ndarray, "a s"]],
    level: float,
) -> Boundary:
    """Scales at which the mean change over seeds is at a level, and the least-squares slope of their logs.

    Between two scales the log of the mean is interpolated over the log of the scale. Intervals are the 2.5 and 97.5
    percentile over draws of seeds with replacement, for each width on its own.

    Args:
        widths: (w,), ascending.
        scales: of each width its scales, ascending.
        changes: of each width the change at each scale and seed; NaN where there is none.
        level: of the change, positive.
    """
    random = np.random.default_rng(0)
    place = np.array(
        [_crossing(s, mean_of_most(change[:, None, :]), level)[0] for s, change in zip(scales, changes, strict=True)]
    )
    drawn = np.stack(
        [
            _crossing(
                s, mean_of_most(change[:, random.integers(change.shape[1], size=(RESAMPLES, change.shape[1]))]), level
            )
            for s, change in zip(scales, changes, strict=True)
        ]
    )
    lows, highs = interval(drawn)
    one_seed = np.array([change.shape[1] < 2 for change in changes])
    lows, highs = (np.where(np.isnan(place) | one_seed, np.nan, end) for end in (lows, highs))
    return Boundary(np.exp(place), np.exp(lows), np.exp(highs), _fit(np.asarray(widths, float), place, drawn, one_seed))


def collapse_spread(
    widths: Num[np.ndarray, " w"],
    scales: Num[np.ndarray, " a"],
    changes: Float[np.ndarray, "w a"],
    exponent: float,
) -> float:
    """How far curves of the change over m^exponent alpha lie apart: RMS over widths of the log about their mean.

    Compared where all widths have values; NaN where there is no such place, and of one width.

    Args:
        widths: (w,).
        scales: (a,), ascending.
        changes: mean over seeds at each width and scale, NaN where there is none.
        exponent: of the width in the control parameter.
    """
    curves = []
    for width, change in zip(widths, changes, strict=True):
        known = np.isfinite(change) & (change > 0)
        curves.append((np.log(scales[known]) + exponent * np.log(width), np.log(change[known])))
    if len(curves) < 2 or any(len(at) < 2 for at, _ in curves):
        return np.nan
    first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    if not first < last:
        return np.nan
    common = np.linspace(first, last, COMPARED)
    values = np.stack([np.interp(common, at, value) for at, value in curves])
    return float(np.sqrt(np.mean((values - values.mean(axis=0)) ** 2)))


def sharpest_collapse(
    widths: Num[np.ndarray, " w"],
    scales: Num[np.ndarray, " a"],
    changes: Float[np.ndarray, "w a"],
    near: float,
) -> float:
    """The exponent p within 1/2 of `near` at which curves over m^p alpha lie closest together, NaN where none do."""
    candidates = near + np.linspace(-0.5, 0.5, 201)
    spreads = np.array([collapse_spread(widths, scales, changes, power) for power in candidates])
    return float(candidates[np.nanargmin(spreads)]) if np.isfinite(spreads).any() else np.nan


def boundary_exponent(scaling: Scaling | None) -> float:
    """The exponent in the width of the output scale at which the kernel changes by a given share; NaN if unknown.

    To first order the relative change is m^p / alpha, with p that of `kernel_drift` at a fixed alpha, and is of order
    one at alpha ~ m^p (Geiger et al. 2019, where p = -1/2). Further orders would come first where the readout moves by
    more of itself than the kernel does, as in the standard parametrization with one hidden layer.
    """
    rows = [] if scaling is None else predicted_exponents(scaling)
    change = next((row.exponent for row in rows if row.quantity == "kernel_drift"), np.nan)
    if scaling is None or np.isnan(change):
        return np.nan
    if scaling.train == "both":
        readout = layer_exponents(scaling)[2]["readout"]
        if scaling.learning_rate + readout.gradient - readout.start > change + ROUNDING:
            return np.nan
    return change


def why_steeper(settings: dict[str, Any]) -> str:
    """Why a boundary is steeper than predicted, from the settings of a sweep; nothing where one does not know.

    With the hidden layer of two alone trained, the kernel of relu is a sum over units of products of slopes, 0 or 1,
    and changes where they flip. A share of order m^(-1/2) / alpha of them does. What flips at random adds up as its
    square root, (m^(-1/2) / alpha / m)^(1/2) = m^(-3/4) alpha^(-1/2) of the kernel, which is at a level where alpha ~
    m^(-3/2). It is the larger part where the change is small.
    """
    two_layers = settings.get("network", "TwoLayer") == "TwoLayer"
    if not two_layers or settings.get("train") != "hidden" or settings.get("activation") != "relu":
        return ""
    return (
        "with the hidden layer alone trained a relu kernel changes by flipped signs alone; those that flip at random "
        "add m^(-3/4) alpha^(-1/2), whose own boundary goes as m^(-3/2), so that at small changes the boundary is "
        "steeper than m^(-1/2), to which it comes back as m grows"
    )


def _crossing(scales: np.ndarray, means: np.ndarray, level: float) -> np.ndarray:
    """The log of the scale where each column of means (a, draws) is at the level, NaN where none is."""
    found = np.full(means.shape[1], np.nan)
    # Draws of networks all of which fit are done at once: there are thousands of them.
    whole = np.isfinite(means).all(axis=0)
    falls = (means[:-1] >= level) & (means[1:] < level) & whole & (means[-1] < level)
    at = np.flatnonzero(falls.any(axis=0))
    lower = len(scales) - 2 - np.argmax(falls[::-1, at], axis=0)
    x, y = np.log(scales), np.log(np.where(means > 0, means, np.finfo(float).tiny))
    share = (y[lower, at] - np.log(level)) / (y[lower, at] - y[lower + 1, at])
    found[at] = x[lower] + share * (x[lower + 1] - x[lower])
    for i in np.flatnonzero(~whole):
        between = bracket(scales, means[:, i], level)
        if between is not None:
            ends = np.searchsorted(scales, between)
            # Descending in the change, as np.interp wants it ascending.
            found[i] = np.interp(-np.log(level), -y[ends, i], np.log(between))
    return found


def _fit(widths: np.ndarray, place: np.ndarray, drawn: np.ndarray, one_seed: np.ndarray) -> Fit:
    known = np.isfinite(place)
    if known.sum() < 2:
        return Fit(np.nan, np.nan, np.nan, np.nan)
    logs = np.log(widths[known])
    x = (logs - logs.mean()) / np.sum((logs - logs.mean()) ** 2)
    local = (place[known][-1] - place[known][-2]) / (logs[-1] - logs[-2])
    low, high = (np.nan, np.nan) if one_seed.any() else interval(x @ drawn[known])
    return Fit(float(x @ place[known]), float(low), float(high), float(local))
