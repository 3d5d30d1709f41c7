"""Gaussian expectations of smooth activations, computed from series in the angle between two rows.

For independent standard normal z and z', let u = s z and v = s' (rho z + sqrt(1 - rho^2) z'), so that u and v have
standard deviations (scales) s and s' and correlation rho. In polar coordinates, (z, z') = r (cos phi, sin phi). Then
E[sigma(u) sigma(v)] is the average over r of a circular correlation. If rho = cos(theta) and c_m(t) are the Fourier
coefficients of sigma(t cos phi) as a function of phi,

    E[sigma(u) sigma(v)] = sum_m C_m(s, s') cos(m theta),  C_m(s, s') = E[c_m(s r) c_m(s' r)] (1 if m = 0 else 1/2).

Terms with even m come from the even part of sigma, and terms with odd m come from its odd part. The number of terms
grows only linearly with the scale, whereas the Hermite series needs a number of terms that grows with the square of the
scale. Still, the sum is too long to evaluate for every pair of rows. As a function of h = sin(theta / 2), the sum
over even or odd m varies over distances on the order of 1 / s near h = 0. The substitution h = focus sinh(w) stretches
this region, so that a Chebyshev series in w needs only a few dozen terms at any scale. Its coefficients are smooth
functions of the two scales. Each coefficient is interpolated between Chebyshev points in arcsinh(s) and written as a
sum of a few terms of the form f(s) f(s') or -f(s) f(s').
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from lazynet.kernels._clenshaw import Series, clenshaw
from lazynet.kernels._tables import (
    WITH_PRODUCTS,
    NotConvergedError,
    Part,
    Table,
    chebyshev_coefficients,
    scales_at,
    table_of,
)
from lazynet.kernels._threads import narrow_products
from lazynet.networks import Activation, Function, get_activation
from lazynet.precision import host_float64

# For named activations, the range of scales in a table is extended to powers of 2^(1 / GRID), so that the table can be
# reused for other scales.
GRID = 8
# Upper limits to try for tables that cover all scales from 0 to the limit.
WIDEST = (128.0, 32.0, 8.0, 2.0)


@narrow_products()
def smooth_series(
    activation: str | Function, scales: Float[np.ndarray, " n"], part: str, init_scale: float = 1.0
) -> tuple[list[Part], list[Float[np.ndarray, "n _"]]]:
    """Expand a kernel as a series in the angle between two rows, for all pairs of scales.

    Call this function inside `lazynet.precision.float64()`.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        scales: Nonnegative scales s, shape (n,).
        part: "readout" for E[sigma(u) sigma(v)], "slope" for E[sigma'(u) sigma'(v)], "hidden" for
            x.x' E[sigma'(u) sigma'(v)] with x.x' = s s' rho / init_scale^2, or "both" for the sum of "readout" and
            "hidden". The factor x.x' is expanded along with the rest, because multiplying the series by it would also
            multiply the errors. Evaluating the sum as one series takes half as long as evaluating two series.
        init_scale: Scale of the weights, used only if `part` is "hidden" or "both".

    Returns:
        The even and odd parts of the series, and one array of features for each part, with one row for each scale.

    Raises:
        ValueError: If the activation is not smooth or grows too fast, or if a scale is too large.
    """
    distinct, index = np.unique(scales, return_inverse=True)
    low, high = float(distinct[0]), float(distinct[-1])
    if high - low <= 1e-14 * high:
        distinct, low = distinct[-1:], high
        index = np.zeros_like(index)
    entry = get_activation(activation)
    init_scale = init_scale if part in WITH_PRODUCTS else 1.0
    if entry.is_named and low < high:
        low = 0.0 if low == 0 else 2 ** (math.floor(GRID * math.log2(low)) / GRID)
        high = 2 ** (math.ceil(GRID * math.log2(high)) / GRID)
    try:
        table = (_named_table if entry.is_named else table_of)(activation, part, low, high, init_scale)
    except NotConvergedError:
        raise _refusal(entry, high) from None
    features = []
    for _, at_points in table.parts:
        features.append((_interpolation(table, len(at_points), distinct) @ at_points)[index])
    return [part for part, _ in table.parts], features


class WideSeries(NamedTuple):
    """A series in the angle between two rows that is valid for all scales s from 0 to a limit.

    Each feature of a part is the product of a common factor and a Chebyshev series in arcsinh(s). The factor grows like
    the features, so that rounding errors of the series are small compared with the features at every scale.

    Attributes:
        high: Largest scale. The argument of the Chebyshev polynomials is 1 at this scale and -1 at scale 0.
        power: Exponent p such that the features grow like the scale to the power p; 0 if the expectations are bounded.
        parts: Parts of the series, with the Chebyshev coefficients of their features.
    """

    high: float
    power: int
    parts: list[tuple[Part, Float[np.ndarray, "points total"]]]

    def factor(self, part: Part, scales: Any) -> Any:
        """Return the factor of the features of a part: s (1 + s^2)^((power - 1) / 2) or (1 + s^2)^(power / 2).

        Args:
            part: Part of the series. The features of an odd part are odd functions of s, and so is their factor.
            scales: Scales s, an array of NumPy or JAX.
        """
        return scales * (1 + scales**2) ** ((self.power - 1) / 2) if part.odd else (1 + scales**2) ** (self.power / 2)


@narrow_products()
def wide_series(activation: str | Function, part: str) -> WideSeries:
    """Expand a kernel as a series in the angle that is valid for all scales up to a limit.

    This function may be called while JAX is tracing.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        part: "readout" or "slope"; see `smooth_series`.

    Raises:
        ValueError: If the activation is not smooth or grows too fast.
    """
    entry = get_activation(activation)
    with jax.ensure_compile_time_eval(), host_float64():
        for high in WIDEST:
            try:
                table = (_named_table if entry.is_named else table_of)(activation, part, 0.0, high, 1.0)
            except NotConvergedError:
                continue
            return _with_factor(table)
    raise _refusal(entry, WIDEST[-1])


def _with_factor(table: Table) -> WideSeries:
    """Return the series of a table whose smallest scale is 0."""
    count = max((len(at_points) for _, at_points in table.parts), default=1)
    scales = scales_at(0.0, table.high, count)
    squares = sum((at_points**2 @ moment_signs(kind) for kind, at_points in table.parts), np.zeros(count))
    # The scales are in decreasing order. Expectations grow like a power of the scale, and each of the two rows
    # contributes half of the exponent.
    middle = count // 2
    growth = 0.0
    if squares[0] > 0 and squares[middle] > 0:
        growth = math.log(squares[0] / squares[middle]) / (2 * math.log(scales[0] / scales[middle]))
    result = WideSeries(table.high, max(0, round(growth)), [])
    for kind, rows in table.parts:
        result.parts.append((kind, chebyshev_coefficients(rows / result.factor(kind, scales)[:, None], 0)))
    return result


def smooth_dual(
    parts: list[Part],
    left: list[Float[np.ndarray, "n1 _"]],
    right: list[Float[np.ndarray, "n2 _"]],
    rho: Float[np.ndarray, "n1 n2"],
) -> Float[np.ndarray, "n1 n2"]:
    """Compute the kernel for rows with correlations `rho` from the parts and features returned by `smooth_series`."""
    series = zip(parts, left, right, strict=True)
    return clenshaw(rho, [Series(p.odd, p.focus, p.ranks, rows1, rows2 * p.signs) for p, rows1, rows2 in series])


def second_moment(parts: list[Part], features: list[Float[np.ndarray, "n _"]]) -> Float[np.ndarray, " n"] | float:
    """Return the kernel of each row with itself, or 0.0 if there are no parts; see `smooth_series`."""
    total: np.ndarray | float = 0.0
    for part, rows in zip(parts, features, strict=True):
        total = total + rows**2 @ moment_signs(part)
    # If sigma(0) = 0, the sum at scale 0 should be zero, but rounding errors can make it slightly negative.
    return np.maximum(total, 0.0)


def moment_signs(part: Part) -> Float[np.ndarray, " total"]:
    """Return the signs for which the signed sum of the squared features is the kernel of a row with itself."""
    # At rho = 1, the Chebyshev polynomial of degree k equals (-1)^k.
    degree = np.repeat(np.arange(len(part.ranks))[::-1], part.ranks)
    return part.signs * (-1.0) ** degree


def _interpolation(table: Table, count: int, scales: np.ndarray) -> Float[np.ndarray, "n points"]:
    """Return the matrix that interpolates from the Chebyshev points of a table to the given scales."""
    if count == 1:
        return np.ones((len(scales), 1))
    first, last = math.asinh(table.low), math.asinh(table.high)
    x = np.clip((2 * np.arcsinh(scales) - first - last) / (last - first), -1, 1)
    return np.cos(np.arange(count) * np.arccos(x)[:, None]) @ chebyshev_coefficients(np.eye(count), 0)


@functools.lru_cache(maxsize=64)
def _named_table(name: str, part: str, low: float, high: float, init_scale: float) -> Table:
    return table_of(name, part, low, high, init_scale)


def _refusal(activation: Activation, scale: float) -> ValueError:
    """Return the error to raise for an activation whose series does not converge at the given scale."""
    if activation.is_named:
        return ValueError(
            "init_scale times the largest row norm must be small enough for the series of "
            f"{activation.name} to converge, got {scale:.3g}. Scale the rows to unit norm, or reduce init_scale."
        )
    return ValueError(
        "activation must be smooth and finite for its infinite-width kernel to be computed, got "
        f"{activation.name}, whose series does not converge when init_scale times the largest row norm is {scale:.3g}. "
        "Scale the rows to unit norm, or train without the kernel: pass learning_rate and "
        "measure=Measure(predictions=False)."
    )
