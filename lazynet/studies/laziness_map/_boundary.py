"""The boundary of a laziness map, where networks stop being lazy, and the collapse of the kernel-change curves."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.theory._exponents import ROUNDING, Scaling, layer_exponents, predicted_exponents
from lazynet.theory._fits import Fit, half_width, slope_weights

# Number of values of the control parameter at which curves are compared.
COMPARED = 64


class Boundary(NamedTuple):
    """The boundary of a laziness map.

    Attributes:
        scale: Output scale at the boundary for each width, shape (w,), with NaN where there is no boundary.
        low: Lower ends of the 95% intervals, shape (w,).
        high: Upper ends of the 95% intervals, shape (w,).
        fit: Exponent of the power law fitted to the boundary as a function of the width.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    fit: Fit


def mean_of_most(changes: Float[np.ndarray, "... s"]) -> np.ndarray:
    """Return the mean of the finite values along the last axis, or NaN where fewer than half of the values are finite.

    Networks that do not fit their data have NaN values. If most networks do not fit, the mean is NaN, because the
    networks that do fit are not a random sample.
    """
    finite = np.isfinite(changes)
    count = finite.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, changes, 0).sum(axis=-1) / count
    return np.where(2 * count >= changes.shape[-1], mean, np.nan)


def bracket(scales: Num[np.ndarray, " a"], change: Float[np.ndarray, " a"], level: float) -> tuple[float, float] | None:
    """Return the two neighboring scales between which the change drops below `level` for the last time.

    Scales at which the change is NaN are ignored. The result is None if the change never drops below `level`, or if it
    is not below `level` at the largest scale.
    """
    finite = np.isfinite(change)
    scales, change = np.asarray(scales)[finite], change[finite]
    falls = [
        (float(a), float(b))
        for (a, above), (b, below) in pairwise(zip(scales, change, strict=True))
        if above >= level > below
    ]
    # At the largest scale, the change must still be below the level.
    return falls[-1] if falls and change[-1] < level else None


def fit_boundary(
    widths: Num[np.ndarray, " w"],
    scales: Sequence[Num[np.ndarray, " _"]],
    changes: Sequence[Float[np.ndarray, "_ s"]],
    level: float,
) -> Boundary:
    """Find the output scale at each width where the mean change equals a level, and fit a power law to these scales.

    The mean is taken over seeds. Each scale is found by linear interpolation of the log of the mean change as a
    function of the log of the output scale, and the power law is a function of the width. The 95% intervals are based
    on the spread over seeds, which is estimated separately at each width, as in `lazynet.theory.fit_exponent`.

    Args:
        widths: Widths in ascending order, shape (w,).
        scales: Output scales at each width, in ascending order.
        changes: Kernel change at each width, scale and seed, with NaN for missing values.
        level: Level of the change that defines the boundary, positive.
    """
    found = [_crossing(s, change, level) for s, change in zip(scales, changes, strict=True)]
    logs, variances, degrees = (np.array(column) for column in zip(*found, strict=True))
    half = np.array([half_width(np.ones(1), v[None], d[None]) for v, d in zip(variances, degrees, strict=True)])
    fit = _fit(np.asarray(widths, float), logs, variances, degrees)
    return Boundary(np.exp(logs), np.exp(logs - half), np.exp(logs + half), fit)


def collapse_spread(
    widths: Num[np.ndarray, " w"],
    scales: Num[np.ndarray, " a"],
    changes: Float[np.ndarray, "w a"],
    exponent: float,
) -> float:
    """Return the RMS deviation of the curves for all widths from their mean curve.

    Each curve is the log of the change as a function of the control parameter m^exponent * alpha. Curves are compared
    at values of the control parameter that lie in the range of every curve. The result is NaN if there are no such
    values or if there is only one width.

    Args:
        widths: Widths, shape (w,).
        scales: Output scales alpha in ascending order, shape (a,).
        changes: Mean change over seeds at each width and scale, with NaN for missing values.
        exponent: Exponent of the width in the control parameter.
    """
    curves = []
    for width, change in zip(widths, changes, strict=True):
        positive = np.isfinite(change) & (change > 0)
        curves.append((np.log(scales[positive]) + exponent * np.log(width), np.log(change[positive])))
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
    """Return the exponent within 1/2 of `near` that minimizes `collapse_spread`, or NaN if every spread is NaN."""
    candidates = near + np.linspace(-0.5, 0.5, 201)
    spreads = np.array([collapse_spread(widths, scales, changes, power) for power in candidates])
    return float(candidates[np.nanargmin(spreads)]) if np.isfinite(spreads).any() else np.nan


def boundary_exponent(scaling: Scaling | None) -> float:
    """Return the predicted exponent p of the output scale alpha ~ m^p at the boundary, or NaN if it is unknown.

    To first order, the relative change in the kernel scales as m^p / alpha, where p is the exponent of `kernel_drift`
    at fixed alpha. This change is of order one if alpha ~ m^p (Geiger et al. 2019, where p = -1/2). Higher-order terms
    dominate, and the exponent at the boundary is unknown, if the relative change in the readout has a larger exponent
    than the relative change in the kernel, as in the standard parametrization with one hidden layer.
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
    """Return the reason that a boundary is steeper than predicted, or an empty string if no reason is known.

    If only the hidden layer of a two-layer ReLU network is trained, the kernel is a sum over units of products of
    ReLU slopes, which are 0 or 1. The kernel changes only if slopes flip, and the fraction of slopes that flip is of
    order m^(-1/2) / alpha. The effect of random flips grows as the square root of their number, so the relative change
    is (m^(-1/2) / alpha / m)^(1/2) = m^(-3/4) alpha^(-1/2), which reaches a given level at alpha ~ m^(-3/2). This
    effect dominates when the change in the kernel is small.

    Args:
        settings: Settings of the sweep.
    """
    if not settings["traits"]["kernel_of_signs"]:
        return ""
    return (
        "if only the hidden layer is trained, the kernel changes only through flipped signs; random flips contribute a "
        "change of order m^(-3/4) alpha^(-1/2), for which the boundary falls as m^(-3/2); the boundary for small "
        "changes is therefore steeper than m^(-1/2), and its exponent approaches -1/2 as m grows"
    )


def _crossing(scales: np.ndarray, change: np.ndarray, level: float) -> tuple[float, float, float]:
    """Return the log of the scale at which the mean falls below the level, and its variance and degrees of freedom.

    The log of the scale is NaN if the mean never falls below the level. The variance is NaN if there are fewer than two
    seeds.

    Args:
        scales: Scales in ascending order, shape (a,).
        change: Change at each scale and seed, shape (a, s).
        level: Level of the change.
    """
    means = mean_of_most(change)
    between = bracket(scales, means, level)
    if between is None:
        return np.nan, np.nan, np.nan
    at = np.searchsorted(scales, between)
    values, finite = change[at], np.isfinite(change[at])
    # Zero has no logarithm, so replace zero changes with the smallest positive number.
    y = np.log(np.maximum(means[at], np.finfo(float).tiny))
    rise, run = y[0] - y[1], np.log(between[1] / between[0])
    log = np.log(between[0]) + run * (y[0] - np.log(level)) / rise
    # Use the delta method to compute each seed's contribution to the log of the scale from its changes at both ends of
    # the bracket.
    slopes = run * np.array([np.log(level) - y[1], y[0] - np.log(level)]) / rise**2
    relative = np.where(finite, values / np.exp(y)[:, None] - 1, 0) / finite.mean(axis=1, keepdims=True)
    contributions, count = slopes @ relative, min(finite.sum(axis=1))
    if count < 2:
        return float(log), np.nan, np.nan
    return float(log), float(np.sum(contributions**2) / len(contributions) / (count - 1)), float(count - 1)


def _fit(widths: np.ndarray, boundary: np.ndarray, variances: np.ndarray, degrees: np.ndarray) -> Fit:
    """Fit the slope of the log boundary against the log width.

    Args:
        widths: Widths, shape (w,).
        boundary: Log of the boundary at each width, or NaN, shape (w,).
        variances: Variance of each log boundary, or NaN, shape (w,).
        degrees: Degrees of freedom of each variance, or NaN, shape (w,).
    """
    finite = np.isfinite(boundary)
    if finite.sum() < 2:
        return Fit(np.nan, np.nan, np.nan, np.nan)
    weights = slope_weights(widths[finite])
    exponent = float(weights @ boundary[finite])
    local = float(slope_weights(widths[finite][-2:]) @ boundary[finite][-2:])
    half = float(half_width(weights, variances[finite], degrees[finite]))
    return Fit(exponent, exponent - half, exponent + half, local)
