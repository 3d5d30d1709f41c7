"""Corrections to scaling: the exponent at infinite width from widths that are not asymptotic, and what it costs."""

from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.theory._fits import CONFIDENCE, RESAMPLES, Fit

# b m^(-q) at the smallest width: from nearly cancelling all of it to ten times as large.
SHARES = np.concatenate([-np.geomspace(0.95, 1e-3, 60), [0.0], np.geomspace(1e-3, 10, 120)])
POWERS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Correction(NamedTuple):
    """y = a m^p (1 + b m^(-q)) fitted to seed means, p with its 95% interval.

    Attributes:
        exponent: p, that at infinite width.
        low: lower end of its interval.
        high: upper end.
        amplitude: a.
        correction: b.
        power: q, one of POWERS.
    """

    exponent: float
    low: float
    high: float
    amplitude: float
    correction: float
    power: float

    def at(self, width: float) -> float:
        """The fitted value at a width; at infinity that is a where the exponent is zero."""
        return float(self.amplitude * width**self.exponent * (1 + self.correction * width**-self.power))


def fit_correction(
    widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"], power: float | None = 0.5
) -> Correction:
    """Fit an exponent with its leading correction, by least squares of logarithms of seed means.

    Finite networks scale as a m^p (1 + b m^(-q) + ...), so that a slope over widths at which the second term is not
    small is none of infinite width. For given b and q the rest is linear; both are searched on a grid. The interval is
    that of a bootstrap over seeds, which fits all of it anew; it is wider than that of a slope, for it knows less.

    Args:
        widths: (w,), ascending, at least 4, and 5 where the power is fitted too.
        values: (w, s) of w widths and s seeds, positive and without NaN.
        power: q, 1/2 for what the start's fluctuations cause; None to fit it.

    Returns:
        Correction; all NaN where there are too few widths or a mean is not positive, the interval with one seed.
    """
    widths = np.asarray(widths, float)
    if len(widths) < (5 if power is None else 4) or not np.all(values.mean(axis=1) > 0):
        return Correction(*[np.nan] * 6)
    powers = POWERS if power is None else (power,)
    found = _grid(widths, np.log(values.mean(axis=1))[:, None], powers)
    low = high = np.nan
    if values.shape[1] > 1:
        random = np.random.default_rng(0)
        seeds = random.integers(values.shape[1], size=(len(widths), RESAMPLES, values.shape[1]))
        drawn = np.take_along_axis(values[:, None, :], seeds, axis=2).mean(axis=2)
        tail = (1 - CONFIDENCE) / 2
        # A draw whose mean is not positive says nothing.
        kept = drawn[:, np.all(drawn > 0, axis=0)]
        low, high = np.quantile(_grid(widths, np.log(kept), powers)[:, 1], [tail, 1 - tail])
    constant, exponent, correction, q = found[0]
    return Correction(*map(float, (exponent, low, high, np.exp(constant), correction, q)))


def _grid(widths: np.ndarray, logs: np.ndarray, powers: tuple[float, ...]) -> np.ndarray:
    """log a, p, b and q of the best fit to each column of logarithms, (columns, 4)."""
    design = np.stack([np.ones(len(widths)), np.log(widths)], axis=1)
    inverse = np.linalg.pinv(design)
    best, chosen = np.full(logs.shape[1], np.inf), np.full((logs.shape[1], 4), np.nan)
    for q in powers:
        for share in SHARES:
            rest = logs - np.log1p(share * (widths / widths[0]) ** -q)[:, None]
            line = inverse @ rest
            left = np.sum((rest - design @ line) ** 2, axis=0)
            better = left < best
            best[better] = left[better]
            b = np.full(better.sum(), share * widths[0] ** q)
            chosen[better] = np.stack([*line[:, better], b, np.full_like(b, q)], axis=1)
    return chosen


def seeds_needed(fit: Fit | Correction, seeds: int, half_width: float) -> int:
    """How many seeds give an exponent an interval of +- half_width, as its width goes with 1 / sqrt(seeds).

    Args:
        fit: of `fit_exponent` or `fit_correction`, with an interval.
        seeds: how many it was fitted on, at least 2.
        half_width: what is wanted, positive.

    Raises:
        ValueError: if the fit has no interval, or half_width is not positive.

    >>> seeds_needed(Fit(-0.5, -0.55, -0.45, -0.5), seeds=4, half_width=0.01)
    100
    """
    if not half_width > 0:
        raise ValueError(f"half_width is {half_width}, but must be positive.")
    if np.isnan([fit.low, fit.high]).any():
        raise ValueError("The fit has no interval, which takes at least two seeds; nothing says what more would give.")
    return ceil(seeds * ((fit.high - fit.low) / 2 / half_width) ** 2 - 1e-9)
