"""The width at which a quantity falls to a level: measured between trained widths, or predicted from narrower ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.arguments import check_number
from lazynet.theory._corrections import LOGS, _Profile
from lazynet.theory._fits import CONFIDENCE, check_widths_and_values, half_width, log_mean_variances, slope_weights

# Largest ratio of the widths from which a crossing is measured.
NEAR = 1.6
# Number of widths, counted from the largest, to which predictions are fitted, and the smallest number needed.
FITTED, FEWEST = 5, 4
# Prior standard deviation of the curvature b_2 in log y = b_0 + b_1 x + b_2 x^2, where x = log(m). A standard deviation
# of 0.1 allows the local exponent to change by 0.14 when the width doubles.
CURVATURE = 0.1
# Assumed relative error of the parabola at all but the two largest widths, in addition to the spread over seeds.
MODEL_ERROR = 0.03
# Power q of the correction in the family a m^p (1 + b m^(-q)).
POWER = 0.5
# Smallest variance of the logarithm of a mean, so that fits to values without noise are well conditioned.
SMALLEST_VARIANCE = 1e-12
# Numbers of random draws for the parabola and for the corrected power law, and the smallest number of parabolas that
# must bend downward.
DRAWS, CORRECTED_DRAWS, FEWEST_DRAWS = 20_000, 400, 100
# Largest ratio of a predicted width to the largest width in the fit. Larger predictions count as infinite.
FARTHEST = 1e6


class Crossing(NamedTuple):
    """The width at which the mean of a quantity over seeds falls to a level. All fields are NaN if it is unknown.

    Attributes:
        width: The width, not rounded to an integer; infinite if the quantity does not fall to the level.
        low: Lower end of the 95% interval for the width, possibly 0; NaN if there is only one seed.
        high: Upper end of the 95% interval for the width, possibly infinite; NaN if there is only one seed.
    """

    width: float
    low: float
    high: float


def crossing(widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"], level: float) -> Crossing:
    """Measure the width at which the mean over seeds falls to a level.

    The crossing is interpolated between the two neighboring widths between which the mean falls to the level for the
    last time. The nearest further width is also used if all three lie within a factor of 1.6. A straight line is fitted
    by least squares to the logarithms of the means against the logarithms of these widths; the crossing is where the
    line meets the level. The 95% interval contains all widths at which the interval of the line contains the level
    (Fieller 1954). The interval of the line uses Student's t-distribution with Satterthwaite's degrees of freedom. An
    end that lies more than a factor of 2 beyond these widths is 0 or infinite.

    Args:
        widths: Widths, shape (w,).
        values: Positive values, shape (w, s), for s seeds. NaN counts as infinite.
        level: The level, positive, in the units of the values.

    Returns:
        The crossing. All fields are NaN if the mean does not fall to the level between two neighboring widths that are
        within a factor of 1.6. `low` and `high` are NaN if there is only one seed.

    Raises:
        ValueError: If the widths are not distinct positive numbers, if the values do not match the widths, or if the
            level is not positive.

    >>> import numpy as np
    >>> from lazynet.theory import crossing
    >>> widths = np.array([3500, 4500])
    >>> round(crossing(widths, 40 / widths[:, None], level=0.01).width)
    4000
    """
    level = check_number("level", level, positive=True)
    widths, values = _ascending(widths, values)
    means = values.mean(axis=1)
    falls = np.flatnonzero((means[:-1] > level) & (means[1:] <= level))
    nowhere = Crossing(np.nan, np.nan, np.nan)
    if not len(falls) or not (means[falls[-1] : falls[-1] + 2] > 0).all():
        return nowhere
    first, last = int(falls[-1]), int(falls[-1]) + 1
    if widths[last] > NEAR * widths[first] or not np.isfinite(means[first]):
        return nowhere
    further = [
        (widths[high] / widths[low], low, high)
        for low, high in ((first - 1, last), (first, last + 1))
        if low >= 0 and high < len(widths) and widths[high] <= NEAR * widths[low] and _usable(means[low : high + 1])
    ]
    if further:
        _, first, last = min(further)
    used = slice(first, last + 1)
    return _on_line(widths[used], values[used], level, reach=2.0)


def predict_crossing(widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"], level: float) -> Crossing:
    """Predict the width at which the mean over seeds falls to a level, from narrower widths.

    Gaps between networks and their kernels are not power laws at the widths that can be trained, and a width predicted
    by a power law can be wrong by a factor of up to 2. Therefore, two families are fitted to the five largest widths: a
    m^p (1 + b m^(-1/2)), as in `lazynet.theory.fit_correction`; and a parabola in the logarithms whose curvature is at
    most zero and has a half-normal prior. Random errors of the means, drawn according to the spread over seeds, give a
    distribution of crossings for each family. The prediction is the geometric mean of the two medians, and the interval
    covers both 95% intervals.

    Args:
        widths: Widths, shape (w,). With two or three widths, a power law is fitted instead.
        values: Positive values, shape (w, s), for s seeds. NaN counts as infinite.
        level: The level, positive, in the units of the values. The mean may already reach it at one of the widths.

    Returns:
        The predicted crossing, infinite if it is more than 10^6 times the largest width. All fields are NaN if there
        are fewer than two widths, or if a mean is not positive and finite. `low` and `high` are NaN if there is only
        one seed.

    Raises:
        ValueError: If the widths are not distinct positive numbers, if the values do not match the widths, or if the
            level is not positive.

    >>> import numpy as np
    >>> from lazynet.theory import predict_crossing
    >>> widths = np.array([64, 128, 256, 512, 1024])
    >>> values = 2 * widths[:, None] ** -0.5 * np.array([0.98, 1.02])
    >>> predicted = predict_crossing(widths, values, level=0.05)  # the power law crosses the level at 1600
    >>> predicted.low < 1600 < predicted.high
    True
    """
    level = check_number("level", level, positive=True)
    widths, values = (array[-FITTED:] for array in _ascending(widths, values))
    means = values.mean(axis=1)
    if len(widths) < 2 or not _usable(means):
        return Crossing(np.nan, np.nan, np.nan)
    if len(widths) < FEWEST:
        return _on_line(widths, values, level, reach=FARTHEST)
    logs = np.log(means / level)
    several = values.shape[1] > 1
    variances = np.maximum(log_mean_variances(list(values))[0] if several else 0.0, SMALLEST_VARIANCE)
    variances = np.broadcast_to(variances, len(widths))
    random = np.random.default_rng(0)
    families = [family(widths, logs, variances, values.shape[1] - 1, random) for family in (_parabola, _corrected)]
    medians = np.array([np.median(draws) for draws in families])
    # One family may cross the level below all widths, and the other one nowhere.
    middle = np.inf if np.isinf(medians).any() else np.sqrt(np.prod(medians))
    if not several:
        return Crossing(float(middle), np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    ends = [np.quantile(draws, (tail, 1 - tail), method="nearest") for draws in families]
    return Crossing(float(middle), float(min(low for low, _ in ends)), float(max(high for _, high in ends)))


def _on_line(widths: np.ndarray, values: np.ndarray, level: float, reach: float) -> Crossing:
    """Return the crossing of a straight line through the logarithms of the means, and its 95% interval.

    Args:
        widths: At least two widths in ascending order.
        values: Values at w widths for s seeds, with positive and finite means.
        level: The level.
        reach: Factor by which the search for the interval extends beyond the widths.
    """
    x, logs = np.log(widths), np.log(values.mean(axis=1) / level)
    center = x.mean()
    slopes = slope_weights(widths)
    slope = float(slopes @ logs)
    at = np.inf if slope >= 0 else center - float(logs.mean()) / slope
    width = float(np.exp(at)) if at < x[-1] + np.log(FARTHEST) else np.inf
    if values.shape[1] < 2:
        return Crossing(width, np.nan, np.nan)
    variances, degrees = log_mean_variances(list(values))
    grid = np.linspace(x[0] - np.log(reach), x[-1] + np.log(reach), 4001)
    if grid[0] < at < grid[-1]:
        # The interval may be shorter than the spacing of the grid.
        grid = np.sort(np.append(grid, at))
    weights = 1 / len(x) + (grid[:, None] - center) * slopes
    # The interval consists of the widths at which the interval of the line contains the level.
    outside = np.abs(weights @ logs) - half_width(weights, variances, degrees)
    inside = np.flatnonzero(outside <= 0)
    if not len(inside):
        return Crossing(width, width, width)
    first, last = int(inside[0]), int(inside[-1])
    low = 0.0 if first == 0 else np.exp(_zero_between(grid, outside, first - 1))
    high = np.inf if last == len(grid) - 1 else np.exp(_zero_between(grid, outside, last))
    return Crossing(width, min(float(low), width), max(float(high), width))


def _zero_between(grid: np.ndarray, values: np.ndarray, index: int) -> float:
    """Return the zero, by linear interpolation, between two neighboring points of a grid."""
    (x0, x1), (y0, y1) = grid[index : index + 2], values[index : index + 2]
    return float(x0 - y0 * (x1 - x0) / (y1 - y0))


def _parabola(
    widths: np.ndarray, logs: np.ndarray, variances: np.ndarray, degrees: int, random: np.random.Generator
) -> np.ndarray:
    """Return random draws, from the posterior distribution, of the width at which a parabola in log(m) crosses zero."""
    x = np.log(widths / widths[-1])
    columns = np.stack([np.ones_like(x), x, x**2], axis=-1)
    errors = variances + MODEL_ERROR**2 * (np.arange(len(x)) < len(x) - 2)
    precision = columns.T @ (columns / errors[:, None]) + np.diag([0, 0, CURVATURE**-2])
    covariance = np.linalg.inv(precision)
    center = covariance @ columns.T @ (logs / errors)
    draws = random.multivariate_normal(np.zeros(3), covariance, DRAWS, method="cholesky")
    if degrees:
        # The variances are estimates, so the errors follow Student's t-distribution.
        draws *= np.sqrt(degrees / random.chisquare(degrees, DRAWS))[:, None]
    b0, b1, b2 = (center + draws).T
    bends_down = b2 <= 0
    if bends_down.sum() < FEWEST_DRAWS:
        # The means clearly bend upward. Condition the posterior distribution on a curvature of zero.
        b0, b1 = (b - covariance[i, 2] / covariance[2, 2] * b2 for i, b in enumerate((b0, b1)))
        b2 = np.zeros_like(b2)
    else:
        b0, b1, b2 = b0[bends_down], b1[bends_down], b2[bends_down]
    with np.errstate(invalid="ignore", divide="ignore"):
        at = 2 * b0 / (-b1 + np.sqrt(b1**2 - 4 * b2 * b0))
    # There is no root if the whole parabola lies below the level.
    at = np.where(np.isnan(at), -np.inf, at)
    return widths[-1] * np.exp(np.where(at > np.log(FARTHEST), np.inf, at))


def _corrected(
    widths: np.ndarray, logs: np.ndarray, variances: np.ndarray, degrees: int, random: np.random.Generator
) -> np.ndarray:
    """Return random draws of the width at which a m^p (1 + b m^(-1/2)) equals the level.

    Among fits that agree about equally well with the means, the one with the smallest correction is chosen, as in
    `fit_correction`.
    """
    noise = random.standard_normal((CORRECTED_DRAWS, len(widths)))
    if degrees:
        noise *= np.sqrt(degrees / random.chisquare(degrees, noise.shape))
    draws = logs + noise * np.sqrt(variances)
    corrections = _Profile(widths, logs, POWER).correction(LOGS)
    # For each draw and each correction, fit the rest by a power law. Only the residuals depend on both.
    x = np.log(widths)
    columns = np.stack([np.ones_like(x), x], axis=-1)
    orthonormal = np.linalg.qr(columns)[0]
    residuals = np.eye(len(x)) - orthonormal @ orthonormal.T
    draw_residuals, correction_residuals = draws @ residuals, corrections @ residuals
    squares = np.sum(correction_residuals**2, axis=1) - 2 * draw_residuals @ correction_residuals.T
    squares += np.sum(draw_residuals**2, axis=1)[:, None]
    edges = np.pad(squares, ((0, 0), (1, 1)), constant_values=np.inf)
    lowest = (squares <= edges[:, :-2]) & (squares <= edges[:, 2:])
    close = squares <= squares.min(axis=1, keepdims=True) + 4 * np.mean(variances)
    chosen = np.argmin(np.where(lowest & close, np.abs(LOGS), np.inf), axis=1)
    constant, exponent = np.linalg.lstsq(columns, (draws - corrections[chosen]).T, rcond=None)[0][..., None]
    grid = np.linspace(x[0] - np.log(8), x[-1] + np.log(FARTHEST), 4000)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Below the fitted widths, 1 + b m^(-1/2) may be negative.
        factors = np.log1p(np.expm1(LOGS[chosen])[:, None] * np.exp(POWER * (x[0] - grid)))
    above = constant + exponent * grid + factors > 0
    last = len(grid) - 1 - np.argmax(above[:, ::-1], axis=1)
    crossings = np.where(above.any(axis=1), np.exp(grid[last]), 0.0)
    return np.where(above[:, -1], np.inf, crossings)


def _ascending(widths: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check widths and values, and return them in ascending order of the width, with infinity for NaN."""
    widths, values = check_widths_and_values(widths, values)
    order = np.argsort(widths)
    return widths[order], np.where(np.isnan(values), np.inf, values)[order]


def _usable(means: np.ndarray) -> bool:
    return bool(np.all((means > 0) & np.isfinite(means)))
