"""Tables of the series in `lazynet.kernels._smooth`, computed from values of an activation at many arguments."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import scipy  # SciPy loads its submodules on first use
from jaxtyping import Float, Int

from lazynet.networks import Function, value_and_slope

# Step sizes to try for the average over r, and the smallest and largest r. The average is a trapezoidal sum in log(r).
# Its error is about exp(-pi^2 / (2 step)) for the density of r alone, but oscillating functions need smaller steps.
STEPS, SMALLEST, LARGEST = (1 / 8, 1 / 16, 1 / 32, 1 / 64), 1e-8, 13.0
# Smallest and largest tolerances for the relative error caused by truncating series and sums of products. Rounding
# errors make tolerances below BEST unattainable; ENOUGH is sufficient if all expectations are of order 1.
BEST, ENOUGH = 5e-15, 1e-12
# A Fourier series is resolved if the squares of the upper half of its coefficients make up at most this fraction of the
# sum of all squares.
ROUNDING = 1e-30
MOST_ANGLES = 2**18
POINTS = (4, 6, 9, 13, 19, 28, 40, 60, 90, 130, 190, 280)  # numbers of interpolation points to try
# Values of the argument `part` of `smooth_series` for which a term of the kernel has the factor x.x'.
WITH_PRODUCTS = ("hidden", "both")
TERMS = (32, 64, 128, 256, 512, 1024)
# Spacings to try between the arguments at which an activation is evaluated. Features of the activation that are
# narrower than the first spacing may be missed.
SPACINGS = 0.25 * 0.5 ** np.arange(8)
MOST_NUMBERS = 2**25  # maximum number of entries in an array of function values; a few such arrays exist at a time
MOST_PRODUCTS = 4 * 10**7  # maximum number of entries in an array of coefficients C_m
MANY_ORDERS = 256  # number of orders m whose coefficients are computed at a time
CHUNK = 2**15  # number of arguments per call to an activation, fixed so that JAX compiles only one program


class Part(NamedTuple):
    """Series for the even or odd part of an activation, excluding the features of the rows.

    Attributes:
        odd: Whether the series belongs to the odd part.
        focus: Constant in the substitution h = focus sinh(w), where h = sin(theta / 2) and cos(theta) = |rho|. The
            constant is roughly the width of the region near h = 0 that the substitution stretches. If the expectation
            is constant or proportional to the correlation rho, no substitution is needed, and the constant is None.
        ranks: Number of features for each term of the series, in order of decreasing degree.
        signs: +1 or -1 for each feature. Each feature contributes its sign times the product of its values for the
            two rows.
    """

    odd: bool
    focus: float | None
    ranks: Int[np.ndarray, " terms"]
    signs: Float[np.ndarray, " total"]


class Table(NamedTuple):
    """Parts of a series, with their features at interpolation points (the Chebyshev points in arcsinh(scale))."""

    low: float
    high: float
    parts: list[tuple[Part, Float[np.ndarray, "points total"]]]


def _chebyshev_points(count: int) -> np.ndarray:
    return np.cos((np.arange(count) + 0.5) * np.pi / count)


def chebyshev_coefficients(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the Chebyshev coefficients of a function with the given values at the Chebyshev points.

    Args:
        values: Values at the points cos((j + 1/2) pi / n), in order of increasing j.
        axis: Axis that indexes the points; in the result, the same axis indexes the coefficients.
    """
    values = np.moveaxis(values, axis, 0)
    result = scipy.fft.dct(values, type=2, axis=0)
    result /= len(values)
    result[0] /= 2
    return np.moveaxis(result, 0, axis)


def scales_at(low: float, high: float, count: int) -> np.ndarray:
    """Return `count` scales between two scales, at the Chebyshev points in arcsinh(scale), in decreasing order."""
    first, last = math.asinh(low), math.asinh(high)
    return np.sinh((first + last) / 2 + (last - first) / 2 * _chebyshev_points(count))


class NotConvergedError(Exception):
    """Raised if a series does not converge."""


def table_of(activation: str | Function, part: str, low: float, high: float, init_scale: float) -> Table:
    """Tabulate a series at the smallest number of scales from which it can be interpolated accurately.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        part: Term or terms of the kernel, as in `lazynet.kernels._smooth.smooth_series`.
        low: Smallest scale.
        high: Largest scale.
        init_scale: Scale of the weights, used only if `part` is "hidden" or "both".

    Raises:
        NotConvergedError: If the series cannot be computed accurately.
    """
    # Lower bound on the number of interpolation points; fewer points rarely suffice.
    least = 1 if low == high else min(5 + 8 * (math.asinh(high) - math.asinh(low)), POINTS[-1])
    # The derivative comes first, because its series is multiplied by cos(theta) before the series for sigma is added.
    derivatives = {"readout": [False], "slope": [True], "hidden": [True], "both": [True, False]}[part]
    has_products = part in WITH_PRODUCTS
    functions = [_on_host(activation, derivative) for derivative in derivatives]
    for count in (1,) if low == high else (points for points in POINTS if points >= least):
        scales = scales_at(low, high, count)
        ones = np.ones_like(scales)
        factors = [scales / init_scale if has_products and derivative else ones for derivative in derivatives]
        found = [_squares(function, scales) for function in functions]
        squares = sum(factor**2 * of_function for factor, (of_function, _) in zip(factors, found, strict=True))
        if not squares.any():
            return Table(low, high, [])
        unit = min(1.0, squares.max())
        weights = np.sqrt(unit + squares)
        # An entry with the factor x.x' is about as large as the product of the weights of its two scales, unless the
        # rows are nearly orthogonal. The error relative to this product can therefore be larger than without the
        # factor. Absolute errors stay below 1e-10 for rows with norms up to 100.
        tolerance = 5 * ENOUGH / weights.max() if has_products else ENOUGH / weights.max() ** 2
        error = min(max(unit * tolerance, BEST), ENOUGH)
        for step in STEPS:
            products = np.zeros((1, count, count))
            for function, factor, (_, spacing) in zip(functions, factors, found, strict=True):
                products = _times_cosine(products)
                products = _products(products, function, scales, factor / weights, spacing, step, error)
            if part == "hidden":
                products = _times_cosine(products)
            if np.all(np.abs(np.einsum("mpp->p", products) - squares / weights**2) <= 10 * ENOUGH):
                break
        else:
            raise NotConvergedError
        parts = []
        for odd in (False, True):
            focus, series = _series(products[int(odd) :: 2], odd, error, high)
            # The last two coefficients show whether there are enough points to resolve the dependence on the scales.
            if low < high and np.abs(chebyshev_coefficients(series, 1)[:, -2:]).max(initial=0) > 10 * error:
                break
            parts.append(_as_products(odd, focus, series, error, weights))
        else:
            return Table(low, high, [(part, features) for part, features in parts if features.size])
    raise NotConvergedError


def _as_products(
    odd: bool, focus: float | None, series: Float[np.ndarray, "terms points points"], error: float, weights: np.ndarray
) -> tuple[Part, np.ndarray]:
    """Write each coefficient as a sum of a few products +-f(s) f(s') with functions f of a single scale."""
    features, ranks, signs = [], [], []
    for coefficient in series[::-1]:
        values, vectors = np.linalg.eigh((coefficient + coefficient.T) / 2)
        kept = np.abs(values) > error / 10
        features.append(weights[:, None] * vectors[:, kept] * np.sqrt(np.abs(values[kept])))
        ranks.append(int(kept.sum()))
        signs.append(np.sign(values[kept]))
    empty = np.zeros((len(weights), 0))
    part = Part(odd, focus, np.array(ranks, int), np.concatenate([*signs, np.zeros(0)]))
    return part, np.concatenate([*features, empty], axis=1)


def _series(
    products: Float[np.ndarray, "orders points points"],
    odd: bool,
    error: float,
    largest: float,
) -> tuple[float | None, Float[np.ndarray, "terms points points"]]:
    """Convert a series in cos(m theta), with only even or only odd m, to a short Chebyshev series.

    Returns:
        The focus, or None if a single term suffices, and the coefficients in order of increasing degree.
    """
    power = np.einsum("mpp->mp", products)
    tail = np.cumsum(np.abs(power[::-1]), axis=0)[::-1].max(axis=1, initial=0)
    products = products[: np.count_nonzero(tail > error / 10)]
    if len(products) <= 1:
        return None, products
    power, orders = np.einsum("mpp->mp", products), 2 * np.arange(len(products)) + odd
    foci = sorted({min(1.0, 2.0 ** (-j / 2) * 2 / largest) for j in range(14)}, reverse=True)
    for terms in TERMS:
        lengths = []
        for focus in foci:
            coefficients = chebyshev_coefficients(np.cos(_angles(focus, terms)[:, None] * orders) @ power, 0)
            lengths.append(1 + np.nonzero(np.abs(coefficients).max(axis=1) > error)[0].max(initial=0))
        length = min(lengths)
        if length <= 0.8 * terms:
            break
    else:
        raise NotConvergedError
    focus = foci[lengths.index(length)]
    angles = _angles(focus, terms)
    values = np.cos(angles[:, None] * orders) @ products.reshape(len(products), -1)
    series = chebyshev_coefficients(values, 0).reshape(terms, *products.shape[1:])
    return focus, series[: 1 + np.nonzero(np.abs(series).max(axis=(1, 2)) > error / 10)[0].max(initial=0)]


def _angles(focus: float, terms: int) -> np.ndarray:
    """Return the angles theta at the Chebyshev points of a series with the given number of terms; see `clenshaw`."""
    w = math.asinh(math.sqrt(0.5) / focus) * np.sqrt((1 + _chebyshev_points(terms)) / 2)
    return 2 * np.arcsin(np.minimum(focus * np.sinh(w), math.sqrt(0.5)))


def _products(
    total: Float[np.ndarray, "_ points points"],
    function: Callable[[np.ndarray], np.ndarray],
    scales: Float[np.ndarray, " points"],
    factors: Float[np.ndarray, " points"],
    spacing: float,
    step: float,
    error: float,
) -> Float[np.ndarray, "orders points points"]:
    """Add the coefficients C_m(s, s') of cos(m theta), multiplied by the factors of the two scales, to `total`."""
    # The step is a power of two, so that its multiples are exact. Otherwise, rounding errors in log(r) would change the
    # sums.
    r = np.exp(step * np.arange(math.floor(math.log(SMALLEST) / step), math.ceil(math.log(LARGEST) / step)))
    density = step * r**2 * np.exp(-(r**2) / 2)
    for radii, part in _octaves(r * scales.max(), r, density):
        # Scales in the same octave need about the same number of angles.
        found = [_resolved(function, s, f, radii, part, spacing, error) for s, f in _octaves(scales, scales, factors)]
        # Orders whose squared Fourier coefficients are negligible at every scale are omitted. Squares are used because
        # the expectations are quadratic in the coefficients.
        orders = max(count for _, count in found)
        if orders * len(scales) ** 2 > MOST_PRODUCTS:
            raise NotConvergedError
        coefficients = np.zeros((orders, len(scales), len(radii)))
        first = 0
        for by_row, _ in found:
            by_order = np.moveaxis(by_row, 2, 0)[: len(coefficients)]
            last = first + len(by_row)
            coefficients[: len(by_order), first:last] = by_order
            first = last
        coefficients[1:] *= math.sqrt(0.5)
        if len(total) < orders:
            total = np.concatenate([total, np.zeros((orders - len(total), *total.shape[1:]))])
        for start in range(0, orders, MANY_ORDERS):
            some = coefficients[start : start + MANY_ORDERS]
            total[start : start + len(some)] += some @ some.swapaxes(1, 2)
    return total


def _times_cosine(products: Float[np.ndarray, "orders points points"]) -> Float[np.ndarray, "orders+1 points points"]:
    """Multiply a series in cos(m theta) by cos(theta); the input is overwritten, and the result is a new array."""
    products[1:] /= 2
    result = np.concatenate([np.zeros_like(products[:1]), products])
    result[:-2] += products[1:]
    return result


def _squares(
    function: Callable[[np.ndarray], np.ndarray], scales: Float[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " points"], float]:
    """Return E[sigma(s z)^2] for each scale s, and the largest spacing of arguments for which sums are accurate."""

    def with_spacing(spacing: float) -> np.ndarray:
        count = int(2 * LARGEST / spacing * max(scales.max(), 1))
        if count * len(scales) > MOST_NUMBERS:
            raise NotConvergedError
        z = np.linspace(-LARGEST, LARGEST, count)
        with np.errstate(over="ignore", invalid="ignore"):
            values = function(scales[:, None] * z)
            return values**2 @ np.exp(-(z**2) / 2) * ((z[1] - z[0]) / math.sqrt(2 * math.pi))

    squares = with_spacing(SPACINGS[0])
    for spacing in SPACINGS[1:]:
        finer = with_spacing(spacing)
        if not np.isfinite(finer).all():
            break
        if np.all(np.abs(finer - squares) <= ENOUGH * (min(1.0, finer.max()) + finer)):
            return finer, 2 * spacing
        squares = finer
    raise NotConvergedError


def _octaves(size: np.ndarray, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Split arrays wherever the sorted `size` crosses a power of two; all sizes below two stay together."""
    octave = np.floor(np.log2(np.maximum(size, 1)))
    ends = np.nonzero(np.diff(octave))[0] + 1
    return zip(*(np.split(array, ends) for array in arrays), strict=True)


def _resolved(
    function: Callable[[np.ndarray], np.ndarray],
    scales: Float[np.ndarray, " points"],
    factors: Float[np.ndarray, " points"],
    radii: Float[np.ndarray, " radii"],
    density: Float[np.ndarray, " radii"],
    spacing: float,
    error: float,
) -> tuple[Float[np.ndarray, "points radii orders"], int]:
    """Compute the Fourier coefficients of sigma(s r cos phi) from values at enough angles phi to resolve them.

    Returns:
        The coefficients, multiplied by the factors and the square root of the density, and the number of orders that
        are not negligible.
    """
    t = scales[:, None] * radii
    # Radii above 6 have so little weight that they do not require additional angles.
    angles = 2 ** math.ceil(math.log2(max(32, math.pi * scales.max() * min(radii.max(), 6) / spacing)))
    factor = np.sqrt(density) * factors[:, None]
    while angles <= MOST_ANGLES:
        if t.size * angles > MOST_NUMBERS:
            break
        # This is cos(phi) at phi = (j + 1/2) pi / angles, computed as a sine to keep relative errors small near zero.
        cosine = np.sin((angles - 1 - 2 * np.arange(angles)) * (np.pi / (2 * angles)))
        values = function(t[..., None] * cosine)
        if not np.isfinite(values).all():
            break
        values *= factor[..., None]
        coefficients = chebyshev_coefficients(values, 2)
        del values
        tail = np.cumsum(coefficients[..., ::-1] ** 2, axis=2)[..., ::-1]
        if np.all(tail[..., angles // 2] <= ROUNDING * np.maximum(tail[..., 0], 1)):
            return coefficients[..., : angles // 2], 1 + int(np.count_nonzero((tail > error / 100).any(axis=(0, 1))))
        angles *= 2
    raise NotConvergedError


def _on_host(activation: str | Function, derivative: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Wrap the activation or its derivative as a function that takes NumPy arrays and compiles only one program."""
    compiled = jax.jit(lambda z: value_and_slope(activation, z)[derivative])

    def function(z: np.ndarray) -> np.ndarray:
        flat = z.ravel()
        values = [
            np.asarray(compiled(np.resize(flat[start : start + CHUNK], CHUNK))) for start in range(0, z.size, CHUNK)
        ]
        return np.concatenate(values)[: z.size].reshape(z.shape)

    return function
