"""Functions that fit asymptotic exponents and leading corrections, and estimate the number of seeds needed."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
import scipy  # SciPy imports its submodules on first use
from jaxtyping import Float, Num

from lazynet.arguments import check_count, check_number, described
from lazynet.theory._fits import Fit, check_ends, check_widths_and_values, half_width, log_mean_variances

# Grid of values of t, the logarithm of 1 + b m^(-q) at the smallest width m. At the ends of the grid, the leading term
# a m^p is about 10^5 times larger or smaller than the mean at this width. Outside the grid, the fitted means at the
# other widths hardly change relative to one another as t changes.
LOGS = np.linspace(-12.0, 12.0, 2401)
# Smallest and largest possible values of q, the power of the correction, if q is fitted.
POWERS = (0.25, 2.0)
# Smallest and largest power of the correction accepted by `fit_correction`, and the number of seeds at or above
# which `seeds_needed` raises an error.
LEAST_POWER, MOST_POWER = 0.01, 10.0
MOST_SEEDS = 10**15
# Sums of squares that differ by less than this amount are considered equal, to allow for rounding errors.
ROUNDING = 1e-26


class Correction(NamedTuple):
    """Fit of y = a m^p (1 + b m^(-q)) to the means over seeds.

    Attributes:
        exponent: Asymptotic exponent p.
        low: Lower end of the 95% interval for p, or -inf if the means do not determine p.
        high: Upper end of the 95% interval for p, or inf if the means do not determine p.
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
            width: Number of units, m.

        Returns:
            The fitted value, in the units of the fitted quantity.

        Raises:
            ValueError: If the width is not a finite positive number.
        """
        width = check_number("width", width, positive=True)
        return float(self.amplitude * width**self.exponent * (1 + self.correction * width**-self.power))


def fit_correction(
    widths: Num[np.ndarray, " w"], values: Float[np.ndarray, "w s"], power: float | None = 0.5
) -> Correction:
    """Fit an asymptotic exponent and its leading correction to the means over seeds.

    The mean at width m is assumed to behave like a m^p (1 + b m^(-q) + ...), with an amplitude a, an asymptotic
    exponent p and a leading correction b m^(-q). At widths where the correction is not small, the slope that
    `fit_exponent` finds differs from p. The logarithms of the means are fitted by least squares. The fitted parameters
    are log a, p and b, and also q if `power` is None.

    The 95% interval for p is a profile interval: it contains every p for which the residuals of the best fit with that
    p are consistent with the spread over seeds. As in `fit_exponent`, consistency is judged by Student's
    t-distribution. The interval need not be symmetric. If the means are consistent with a correction b m^(-q) that is
    so large or so close to -1 that the smallest width provides no information about the leading term, the means do not
    determine p, and the interval is unbounded. The interval is wider than that of `fit_exponent`, because more
    parameters are fitted.

    Args:
        widths: Widths, shape (w,). At least 4 are needed, or 5 if the power is fitted.
        values: Positive values at w widths for s seeds, shape (w, s), without NaN.
        power: Power q of the correction, or None to fit q. Corrections that come from fluctuations at initialization
            have q = 1/2.

    Returns:
        The fit. All fields are NaN if there are too few widths or a mean is not positive. `low` and `high` are NaN if
        there is only one seed, unless the means do not determine p.

    Raises:
        ValueError: If the widths are not distinct positive numbers, if the values do not match the widths, or if the
            power is not between 0.01 and 10.

    >>> import numpy as np
    >>> from lazynet.theory import fit_correction
    >>> widths = np.array([64, 256, 1024, 4096])
    >>> values = 2 * widths[:, None] ** -0.5 * (1 + 0.8 * widths[:, None] ** -0.5)
    >>> round(fit_correction(widths, values).exponent, 2)
    -0.5
    """
    if power is not None:
        power = check_number("power", power, positive=True, maximum=MOST_POWER)
        if power < LEAST_POWER:
            raise ValueError(f"power must be between {LEAST_POWER} and {MOST_POWER:g}, got {power}.")
    widths, values = check_widths_and_values(widths, values)
    order = np.argsort(widths)
    widths, values = widths[order], values[order]
    means = values.mean(axis=1)
    if len(widths) < (5 if power is None else 4) or not np.all((means > 0) & np.isfinite(means)):
        return Correction(*[np.nan] * 6)
    profile = _fitted_power(widths, np.log(means)) if power is None else _Profile(widths, np.log(means), power)
    several = values.shape[1] > 1
    spread = log_mean_variances(list(values)) if several else (np.zeros(len(widths)), np.ones(len(widths)))
    t, exponent, constant, _ = profile.best(spread[0])
    if abs(t) == LOGS[-1] or (power is None and not POWERS[0] < profile.power < POWERS[1]):
        low, high = -np.inf, np.inf
    else:
        low, high = profile.interval(t, spread[0], spread[1], power is None) if several else (np.nan, np.nan)
    correction = np.expm1(t) * widths[0] ** profile.power
    return Correction(*map(float, (exponent, low, high, np.exp(constant), correction, profile.power)))


class _Profile:
    """The best fits of log y = log a + p log m + log(1 + b m^(-q)) for a fixed power q.

    The correction is parametrized by t, the logarithm of 1 + b m^(-q) at the smallest width. For each t, there is one
    p for which this t is optimal, so the best fits for all p form a curve parametrized by t.
    """

    def __init__(self, widths: np.ndarray, logs: np.ndarray, power: float) -> None:
        """Prepare to fit the logarithms of the means at the given widths with the given power q of the correction."""
        self.power = power
        self._x = np.log(widths) - np.mean(np.log(widths))
        self._mean_log_width = np.mean(np.log(widths))
        self._logs = logs
        self._decay = np.log(widths[0] / widths)

    def correction(self, t: np.ndarray | float) -> np.ndarray:
        """Return log(1 + b m^(-q)) at each width for the given t, as an array of shape (..., w)."""
        return np.log1p(np.expm1(np.asarray(t))[..., None] * np.exp(self.power * self._decay))

    def slopes(self, t: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives of log(1 + b m^(-q)) with respect to t and q, each of shape (..., w)."""
        t, u = np.asarray(t)[..., None], np.exp(self.power * self._decay)
        inverse = 1 / (1 + np.expm1(t) * u)
        return np.exp(t) * u * inverse, np.expm1(t) * u * self._decay * inverse

    def fit(self, t: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the best p and log a for given t, each of shape (...), and the residuals, of shape (..., w)."""
        rest = self._logs - self.correction(t)
        exponent, middle = rest @ self._x / np.sum(self._x**2), rest.mean(axis=-1)
        residuals = rest - middle[..., None] - exponent[..., None] * self._x
        return np.asarray(exponent), np.asarray(middle - exponent * self._mean_log_width), residuals

    def gradient(self, t: np.ndarray | float) -> np.ndarray:
        """Return the negative derivative, with respect to t, of half the sum of squared residuals."""
        return np.asarray(np.sum(self.fit(t)[2] * self.slopes(t)[0], axis=-1))

    def best(self, variances: np.ndarray) -> tuple[float, float, float, float]:
        """Return t, p and log a of the best fit, and its sum of squared residuals.

        A pure power law can also be described as a huge correction to another power law. Among fits that agree equally
        well with the means, up to rounding and the spread over seeds, the one with the smallest correction is chosen.

        Args:
            variances: Variances of the logarithms of the means.
        """
        values = self.gradient(LOGS)
        # At a minimum, the derivative of the sum of squares changes from negative to positive. `values` has the
        # opposite sign, so it changes from positive to negative.
        minima = [
            _root(self.gradient, LOGS[i], LOGS[i + 1]) for i in np.flatnonzero((values[:-1] >= 0) & (values[1:] < 0))
        ]
        fits = [(t, *self.fit(t)) for t in (*minima, LOGS[0], LOGS[-1])]
        squares = np.array([np.sum(residuals**2) for *_, residuals in fits])
        equal = np.flatnonzero(squares <= squares.min() + ROUNDING + 4 * np.mean(variances))
        t, exponent, constant, residuals = fits[min(equal, key=lambda i: abs(fits[i][0]))]
        return float(t), float(exponent), float(constant), float(np.sum(residuals**2))

    def interval(self, t: float, variances: np.ndarray, degrees: np.ndarray, power_fitted: bool) -> tuple[float, float]:
        """Return the endpoints of the 95% interval for p, given the value of t at the best fit."""

        def excess(at: np.ndarray | float) -> np.ndarray:
            """Return how far p at the given t lies outside its 95% interval; the value is negative if p lies inside."""
            by_t, by_power = self.slopes(at)
            others = [np.ones_like(by_t), by_t, *([by_power] if power_fitted else [])]
            weights = _weights_beside(self._x, np.stack(others, axis=-1))
            off = np.sum(weights * (self._logs - self.correction(at)), axis=-1) - self.restricted(at)
            return np.asarray(np.abs(off) - half_width(weights, variances, degrees))

        grid = np.sort(np.append(LOGS, t))
        outside = excess(grid) > 0
        at = int(np.searchsorted(grid, t))
        before, after = np.flatnonzero(outside[:at]), at + 1 + np.flatnonzero(outside[at + 1 :])
        if not (len(before) and len(after)):
            return -np.inf, np.inf
        first, last = int(before[-1]), int(after[0])
        inner = grid[first + 1 : last]
        if excess(t) < 0:
            ends = [_root(excess, *pair) for pair in ((grid[first], inner[0]), (inner[-1], grid[last]))]
            inner = np.append(inner, ends)
        found = self.restricted(inner)
        return float(found.min()), float(found.max())

    def restricted(self, t: np.ndarray | float) -> np.ndarray:
        """Return the p for which the given t is optimal.

        For this p, the residuals are orthogonal to the derivative of the fit with respect to t.
        """
        by_t = self.slopes(t)[0]
        centered = by_t - by_t.mean(axis=-1, keepdims=True)
        return np.asarray(np.sum(centered * (self._logs - self.correction(t)), axis=-1) / (centered @ self._x))


def _root(function: Callable[[float], np.ndarray], low: float, high: float) -> float:
    """Return a root of a function between two points at which its values have opposite signs.

    If rounding errors give both values the same sign, the point whose value is closer to zero is returned.
    """
    at_low, at_high = float(function(low)), float(function(high))
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    return float(scipy.optimize.brentq(function, low, high, xtol=1e-14))


def _weights_beside(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return weights such that weights @ values is the least-squares coefficient of x in a fit with other columns.

    Args:
        x: Column, shape (w,).
        others: Other columns, shape (..., w, columns).

    Returns:
        Weights, shape (..., w).
    """
    orthonormal = np.linalg.qr(others)[0]
    rest = x - np.einsum("...wc,...vc,v->...w", orthonormal, orthonormal, x)
    return np.asarray(rest / np.sum(rest**2, axis=-1, keepdims=True))


def _fitted_power(widths: np.ndarray, logs: np.ndarray) -> _Profile:
    """Return the `_Profile` of the best-fitting power q."""

    def squares(power: float) -> float:
        return _Profile(widths, logs, power).best(np.zeros(len(widths)))[3]

    coarse = np.linspace(*POWERS, 15)
    at = int(np.argmin([squares(power) for power in coarse]))
    ends = coarse[max(at - 1, 0)], coarse[min(at + 1, len(coarse) - 1)]
    found = scipy.optimize.minimize_scalar(squares, bounds=ends, method="bounded", options={"xatol": 1e-9})
    return _Profile(widths, logs, float(found.x))


def seeds_needed(fit: Fit | Correction, seeds: int, half_width: float) -> int:
    """Estimate the number of seeds needed to narrow the interval for an exponent to +- half_width.

    The estimate assumes that the width of the interval is proportional to 1 / sqrt(seeds).

    Args:
        fit: Result of `fit_exponent` or `fit_correction`, with a bounded interval.
        seeds: Number of seeds in the fit, at least 2.
        half_width: Half the desired width of the interval, positive.

    Returns:
        Number of seeds, rounded up to an integer and never less than 2.

    Raises:
        ValueError: If `fit` is not a `Fit` or `Correction` with a bounded interval, if `seeds` is not an integer
            between 2 and 10^15, or if `half_width` is not positive or is so small that 10^15 or more seeds are needed.

    >>> from lazynet.theory import Fit, seeds_needed
    >>> seeds_needed(Fit(-0.5, -0.55, -0.45, -0.5), seeds=4, half_width=0.01)
    100
    """
    half_width = check_number("half_width", half_width, positive=True)
    seeds = check_count("seeds", seeds, 2, MOST_SEEDS)
    if not isinstance(fit, Fit | Correction):
        raise ValueError(f"fit must be a lazynet.theory.Fit or lazynet.theory.Correction, got {described(fit)}.")
    low, high = check_ends(fit)
    if not np.isfinite([low, high]).all():
        raise ValueError(
            f"fit must have a bounded confidence interval, got [{fit.low}, {fit.high}]. Use at least two "
            "seeds, and choose widths at which the correction is small."
        )
    needed = seeds * np.square((high - low) / 2 / half_width) - 1e-9
    if not needed < MOST_SEEDS:
        raise ValueError(f"half_width must be large enough that fewer than 10^15 seeds are needed, got {half_width}.")
    # A single seed gives no interval.
    return max(2, ceil(needed))
