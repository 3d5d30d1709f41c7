"""Exponents in the width, fitted on seed means, with intervals from a bootstrap over seeds."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.theory._exponents import Relation

RESAMPLES = 2000
CONFIDENCE = 0.95

Status = Literal["holds", "fails", "undecided"]


class Fit(NamedTuple):
    """A fitted exponent with its 95% interval, and the local exponent between the two largest widths.

    The interval is NaN with fewer than two seeds, everything is NaN where nothing can be fitted.
    """

    exponent: float
    low: float
    high: float
    local: float


def fit_exponent(widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"]) -> Fit:
    """Least squares of log(seed mean) on log(width) over all widths.

    The interval is the 2.5 and 97.5 percentile of the same fit on seeds drawn with replacement, for each width on its
    own, because a seed has another start at another width. Members that are NaN (diverged) are left out, as is a width
    without any other; a mean that is not positive has no logarithm and gives NaN.

    With few seeds such an interval is too narrow: on log-normal draws at 7 widths it covered the true exponent in 92%
    of 400 trials with 8 seeds, 88% with 4 and 79% with 2.

    Args:
        widths: (w,), ascending.
        values: (w, s) of w widths and s seeds.
    """
    usable = np.isfinite(values).any(axis=1)
    widths, values = np.asarray(widths, float)[usable], values[usable]
    means = np.array([np.mean(row[np.isfinite(row)]) for row in values])
    if len(widths) < 2 or (means <= 0).any():
        return Fit(np.nan, np.nan, np.nan, np.nan)
    exponent = _slope(widths, means)
    local = _slope(widths[-2:], means[-2:])
    rows = [row[np.isfinite(row)] for row in values]
    if min(len(row) for row in rows) < 2:
        return Fit(float(exponent), np.nan, np.nan, float(local))
    random = np.random.default_rng(0)
    drawn = np.stack([row[random.integers(len(row), size=(RESAMPLES, len(row)))].mean(axis=1) for row in rows])
    # All seeds of a draw may be zero: its exponent is infinite or unknown.
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = interval(_slope(widths, drawn))
    return Fit(float(exponent), float(low), float(high), float(local))


def interval(draws: Float[np.ndarray, "... r"]) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5 and 97.5 percentile of bootstrap draws along the last axis; one that is NaN widens it without bound."""
    tail, unknown = (1 - CONFIDENCE) / 2, np.isnan(draws)
    low = np.quantile(np.where(unknown, -np.inf, draws), tail, axis=-1, method="nearest")
    high = np.quantile(np.where(unknown, np.inf, draws), 1 - tail, axis=-1, method="nearest")
    return np.asarray(low), np.asarray(high)


def judge(fit: Fit, relation: Relation, predicted: float, band: float) -> Status:
    """Holds where the whole interval agrees with the prediction to the band, fails where all of it does not."""
    if np.isnan([fit.low, fit.high]).any():
        return "undecided"
    if relation == "at most":
        return "holds" if fit.high <= predicted + band else "fails" if fit.low > predicted + band else "undecided"
    if predicted - band <= fit.low and fit.high <= predicted + band:
        return "holds"
    return "fails" if fit.high < predicted - band or fit.low > predicted + band else "undecided"


def _slope(widths: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The least-squares slope of log(means) on log(widths), along the first axis."""
    logs = np.log(widths) - np.mean(np.log(widths))
    return np.asarray(np.tensordot(logs, np.log(means), axes=1) / np.sum(logs**2))
