"""Width exponents fitted to means over seeds, with confidence intervals from the spread over seeds."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Num
from scipy.special import stdtrit

from lazynet.arguments import as_number, check_choice, check_number, described
from lazynet.arrays import float64_array
from lazynet.theory._exponents import Relation

CONFIDENCE = 0.95
# Largest width accepted in fits. The smallest is its reciprocal.
WIDEST = 1e15

Status = Literal["holds", "fails", "undecided"]


class Fit(NamedTuple):
    """A fitted exponent.

    Attributes:
        exponent: Width exponent; NaN if no fit is possible.
        low: Lower end of the 95% interval for the exponent; NaN if any width has fewer than two seeds.
        high: Upper end of the 95% interval for the exponent; NaN if any width has fewer than two seeds.
        local: Exponent between the two largest widths.
    """

    exponent: float
    low: float
    high: float
    local: float


def fit_exponent(widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"]) -> Fit:
    """Fit a power law in the width to the means over seeds.

    The exponent is the least-squares slope of log(mean over seeds) against log(width). The 95% interval is based on the
    spread over seeds, which is estimated separately at each width: the variance of the logarithm of a mean is
    s^2 / (n mean^2) for n seeds with standard deviation s. The interval uses the quantile of Student's t-distribution
    with Satterthwaite's degrees of freedom. For log-normal values whose logarithms have a standard deviation of up to
    0.5, it contains the true exponent in 92% to 98% of trials, even with two seeds or with noise that differs between
    widths. The means of more strongly skewed values approach a normal distribution only slowly: at a standard deviation
    of 1.5, an interval based on 8 seeds contains the true exponent in only 86% of trials. The interval is unbounded on
    one side if so many values at a width are zero that all of them could have been zero by chance.

    Args:
        widths: Widths, shape (w,).
        values: Values at w widths for s seeds, shape (w, s), with NaN or infinity for networks that diverged. These
            networks are ignored, as are widths at which all networks diverged.

    Returns:
        The fit. All fields are NaN if there are fewer than two widths or a mean is not positive.

    Raises:
        ValueError: If the widths are not distinct positive numbers, or if the values do not match the widths.

    >>> import numpy as np
    >>> from lazynet.theory import fit_exponent
    >>> widths = np.array([64, 256, 1024])
    >>> round(fit_exponent(widths, 3 * widths[:, None] ** -0.5).exponent, 6)
    -0.5
    """
    widths, rows = _usable(*check_widths_and_values(widths, values))
    means = np.array([row.mean() for row in rows])
    if len(widths) < 2 or (means <= 0).any():
        return Fit(np.nan, np.nan, np.nan, np.nan)
    exponent = _slope(widths, means)
    local = _slope(widths[-2:], means[-2:])
    if min(map(len, rows)) < 2:
        return Fit(exponent, np.nan, np.nan, local)
    weights = slope_weights(widths)
    half = float(half_width(weights, *log_mean_variances(rows)))
    # If a mean is not significantly above zero, the true mean may be arbitrarily close to zero, so its logarithm has no
    # lower bound.
    vanishing = weights[[np.mean(row == 0) ** len(row) > (1 - CONFIDENCE) / 2 for row in rows]]
    low = -np.inf if (vanishing > 0).any() else exponent - half
    high = np.inf if (vanishing < 0).any() else exponent + half
    return Fit(exponent, low, high, local)


def check_widths_and_values(widths: Any, values: Any) -> tuple[Float[np.ndarray, " w"], Float[np.ndarray, "w s"]]:
    """Check widths and values, and return them as float64 arrays.

    Args:
        widths: Widths, shape (w,).
        values: Values at w widths for s seeds, shape (w, s), possibly NaN.

    Raises:
        ValueError: If the widths are not distinct, positive and finite, or if the values do not match the widths.
    """
    found, of_seeds = float64_array("widths", widths), float64_array("values", values)
    if found.ndim != 1 or not ((found >= 1 / WIDEST) & (found <= WIDEST)).all():
        raise ValueError(
            f"widths must be a one-dimensional array of numbers between {1 / WIDEST:g} and {WIDEST:g}, got "
            f"{described(widths)}."
        )
    if (np.diff(np.log(np.sort(found))) < 1e-12).any():
        raise ValueError(f"widths must be distinct by more than rounding, got {found.tolist()}.")
    if of_seeds.ndim != 2 or len(of_seeds) != len(found) or not of_seeds.size:
        raise ValueError(
            f"values must be a nonempty array of shape ({len(found)}, seeds) to match widths, got {described(values)}."
        )
    return found, of_seeds


def bends_down(widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"]) -> bool:
    """Return whether the exponent is significantly lower between the two largest widths than between the two smallest.

    The difference must exceed half the width of its 95% interval, which is computed as in `fit_exponent`.

    Args:
        widths: Widths, shape (w,).
        values: Values at w widths for s seeds, shape (w, s), with NaN for networks that diverged.
    """
    widths, rows = _usable(widths, values)
    means = np.array([row.mean() for row in rows])
    if len(widths) < 3 or min(map(len, rows)) < 2 or (means <= 0).any():
        return False
    weights = np.zeros(len(widths))
    weights[-2:] += slope_weights(widths[-2:])
    weights[:2] -= slope_weights(widths[:2])
    return bool(weights @ np.log(means) < -half_width(weights, *log_mean_variances(rows)))


def _usable(widths: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the widths with finite values, in ascending order, and the finite values at each of them."""
    widths, values = np.asarray(widths, float), np.asarray(values, float)
    order = [i for i in np.argsort(widths) if np.isfinite(values[i]).any()]
    return widths[order], [values[i][np.isfinite(values[i])] for i in order]


def log_mean_variances(rows: Sequence[Float[np.ndarray, " _"]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the logarithm of each mean, computed by the delta method, and its degrees of freedom.

    Args:
        rows: Values for at least two seeds at each width, with positive means.
    """
    # Dividing by the mean first keeps the squares in range.
    variances = np.array([np.var(row / np.mean(row), ddof=1) / len(row) for row in rows])
    return variances, np.array([len(row) - 1.0 for row in rows])


def half_width(
    weights: Float[np.ndarray, "... w"], variances: Float[np.ndarray, " w"], degrees: Float[np.ndarray, " w"]
) -> Float[np.ndarray, "..."]:
    """Return half the width of the 95% interval for a weighted sum of independent estimates.

    The variances are themselves estimates, so the degrees of freedom of their weighted sum are approximated by
    Satterthwaite's formula (Satterthwaite 1946, equation 17).

    Args:
        weights: Weights of the estimates, shape (..., w).
        variances: Variance of each estimate, shape (w,).
        degrees: Degrees of freedom of each variance, shape (w,).
    """
    parts = weights**2 * variances
    total = np.sum(parts, axis=-1)
    # Dividing by the largest term keeps the squares of small variances from underflowing.
    largest = np.where(total > 0, np.max(parts, axis=-1), 1)
    shares = parts / largest[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.sum(shares, axis=-1) ** 2 / np.sum(shares**2 / degrees, axis=-1)
    quantile = stdtrit(np.where(total > 0, freedom, 1), (1 + CONFIDENCE) / 2)
    return np.asarray(quantile * np.sqrt(total))


def judge(fit: Fit, relation: Relation, predicted: float, band: float) -> Status:
    """Compare the interval for a fitted exponent with a prediction.

    Args:
        fit: Fitted exponent.
        relation: "equal" if the exponent should equal the prediction, or "at most" if it may also be smaller.
        predicted: Predicted exponent.
        band: Tolerance for the exponent.

    Returns:
        "holds" if the whole interval agrees with the prediction to within the band, "fails" if the whole interval
        contradicts it, and "undecided" otherwise, including when there is no interval.

    Raises:
        ValueError: If `fit` is not a `Fit`, if `relation` is neither "equal" nor "at most", if `predicted` is not a
            finite number, or if `band` is negative.

    >>> from lazynet.theory import Fit, judge
    >>> judge(Fit(-0.5, -0.55, -0.45, -0.5), "equal", predicted=-0.5, band=0.1)
    'holds'
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"fit must be a lazynet.theory.Fit, got {described(fit)}.")
    check_choice("relation", relation, get_args(Relation))
    number = as_number(predicted)
    if number is None or not np.isfinite(number):
        raise ValueError(f"predicted must be a finite number, got {described(predicted)}.")
    band = check_number("band", band)
    low, high = check_ends(fit)
    if np.isnan([low, high]).any():
        return "undecided"
    if relation == "at most":
        return "holds" if high <= number + band else "fails" if low > number + band else "undecided"
    if number - band <= low and high <= number + band:
        return "holds"
    return "fails" if high < number - band or low > number + band else "undecided"


def check_ends(fit: Any) -> tuple[float, float]:
    """Return the ends of the interval of a `Fit` or `Correction`.

    Raises:
        ValueError: If an end is not a number, or if the ends are in descending order. NaN and infinity are allowed.
    """
    low, high = as_number(fit.low), as_number(fit.high)
    if low is None or high is None:
        raise ValueError(f"fit.low and fit.high must be numbers, got {described(fit.low)} and {described(fit.high)}.")
    if low > high:
        raise ValueError(f"fit.low must be at most fit.high, got {low} and {high}.")
    return low, high


def slope_weights(widths: Num[np.ndarray, " w"]) -> Float[np.ndarray, " w"]:
    """Return weights such that weights @ values is the least-squares slope of the values against log(width)."""
    logs = np.log(widths) - np.mean(np.log(widths))
    return np.asarray(logs / np.sum(logs**2))


def _slope(widths: np.ndarray, means: np.ndarray) -> float:
    """Return the least-squares slope of log(means) against log(widths)."""
    return float(slope_weights(widths) @ np.log(means))
