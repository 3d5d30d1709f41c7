"""Corrections to scaling: asymptotic exponents from moderate widths, and the number of seeds needed to fit them."""

from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from lazynet.theory._fits import CONFIDENCE, RESAMPLES, Fit

# Values of b m^(-q) at the smallest width, ranging from near-cancellation of the leading term to ten times its size.
SHARES = np.concatenate([-np.geomspace(0.95, 1e-3, 60), [0.0], np.geomspace(1e-3, 10, 120)])
POWERS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Correction(NamedTuple):
    """Fit of y = a m^p (1 + b m^(-q)) to the means over seeds.

    Attributes:
        exponent: Asymptotic exponent p.
        low: Lower end of the 95% interval for p.
        high: Upper end of the 95% interval for p.
        amplitude: Amplitude a.
        correction: Coefficient b of the correction.
        power: Power q of the correction.
    """

    exponent: float
    low: float
    high: float
    amplitude: float
    correction: float
    power: float

    def at(self, width: float) -> float:
        """Evaluate the fit at a width.

        Args:
            width: Number of units m.

        Returns:
            The fitted value, in the units of the fitted quantity.
        """
        return float(self.amplitude * width**self.exponent * (1 + self.correction * width**-self.power))


def fit_correction(
    widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"], power: float | None = 0.5
) -> Correction:
    """Fit an exponent, with its leading correction, to the means over seeds.

    Means at width m behave like a m^p (1 + b m^(-q) + ...). At widths where the second term is not small, the fitted
    slope differs from the asymptotic exponent p. The logarithms are fitted by least squares: b and q are found by a
    grid search, and the fit is linear once b and q are fixed. The 95% interval comes from a bootstrap over seeds, in
    which the whole fit is repeated. This interval is wider than the interval from `fit_exponent`, because more
    parameters are fitted.

    Args:
        widths: Widths in ascending order, shape (w,). There must be at least 4, or 5 if the power is fitted.
        values: Positive values at w widths for s seeds, shape (w, s), without NaN.
        power: Power q: 1/2 if the correction comes from fluctuations at initialization, or None to fit the power.

    Returns:
        The fit. All fields are NaN if there are too few widths or a mean is not positive; the interval is NaN if there
        is only one seed.

    >>> import numpy as np
    >>> from lazynet.theory import fit_correction
    >>> widths = np.array([64, 256, 1024, 4096])
    >>> values = 2 * widths[:, None] ** -0.5 * (1 + 0.8 * widths[:, None] ** -0.5)
    >>> round(fit_correction(widths, values).exponent, 2)
    -0.5
    """
    widths = np.asarray(widths, float)
    if len(widths) < (5 if power is None else 4) or not np.all(values.mean(axis=1) > 0):
        return Correction(*[np.nan] * 6)
    powers = POWERS if power is None else (power,)
    best = _grid_fit(widths, np.log(values.mean(axis=1))[:, None], powers)
    low = high = np.nan
    if values.shape[1] > 1:
        random = np.random.default_rng(0)
        seeds = random.integers(values.shape[1], size=(len(widths), RESAMPLES, values.shape[1]))
        draws = np.take_along_axis(values[:, None, :], seeds, axis=2).mean(axis=2)
        tail = (1 - CONFIDENCE) / 2
        # The logarithm requires positive means.
        positive = draws[:, np.all(draws > 0, axis=0)]
        low, high = np.quantile(_grid_fit(widths, np.log(positive), powers)[:, 1], [tail, 1 - tail])
    constant, exponent, correction, q = best[0]
    return Correction(*map(float, (exponent, low, high, np.exp(constant), correction, q)))


def _grid_fit(widths: np.ndarray, logs: np.ndarray, powers: tuple[float, ...]) -> np.ndarray:
    """Return log a, p, b and q for the best fit to each column of logarithms, as an array of shape (columns, 4)."""
    design = np.stack([np.ones(len(widths)), np.log(widths)], axis=1)
    inverse = np.linalg.pinv(design)
    lowest, parameters = np.full(logs.shape[1], np.inf), np.full((logs.shape[1], 4), np.nan)
    for q in powers:
        for share in SHARES:
            rest = logs - np.log1p(share * (widths / widths[0]) ** -q)[:, None]
            line = inverse @ rest
            squares = np.sum((rest - design @ line) ** 2, axis=0)
            better = squares < lowest
            lowest[better] = squares[better]
            b = np.full(better.sum(), share * widths[0] ** q)
            parameters[better] = np.stack([*line[:, better], b, np.full_like(b, q)], axis=1)
    return parameters


def seeds_needed(fit: Fit | Correction, seeds: int, half_width: float) -> int:
    """Estimate the number of seeds needed to narrow the interval for an exponent to +- half_width.

    The estimate assumes that the width of the interval is proportional to 1 / sqrt(seeds).

    Args:
        fit: Result of `fit_exponent` or `fit_correction`, which must have an interval.
        seeds: Number of seeds in the fit, at least 2.
        half_width: Half the desired width of the interval, positive.

    Returns:
        Number of seeds, rounded up.

    Raises:
        ValueError: If the fit has no interval, or if `half_width` is not positive.

    >>> from lazynet.theory import Fit, seeds_needed
    >>> seeds_needed(Fit(-0.5, -0.55, -0.45, -0.5), seeds=4, half_width=0.01)
    100
    """
    if not half_width > 0:
        raise ValueError(f"half_width must be positive, got {half_width}.")
    if np.isnan([fit.low, fit.high]).any():
        raise ValueError(
            "fit must have a confidence interval, got NaN. To obtain an interval, use at least two seeds in the fit."
        )
    return ceil(seeds * ((fit.high - fit.low) / 2 / half_width) ** 2 - 1e-9)
