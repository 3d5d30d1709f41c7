"""Gaussian expectations of an activation as functions that JAX can trace, batch and differentiate."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Float

from lazynet.arrays import floating_dtype, is_traced
from lazynet.kernels._closed_forms import closed_form_of
from lazynet.kernels._covariance import EQUAL, Dual, covariance_dual
from lazynet.kernels._dual import ReluParts
from lazynet.kernels._smooth import WideSeries, moment_signs, wide_series
from lazynet.kernels._tables import Part
from lazynet.networks import Function, get_activation
from lazynet.typing import AnyArray

# Number of terms of the power series of arcsinh(sqrt(t))^2, which is used for |t| below SMALL.
TERMS, SMALL = 12, 1e-2


def concrete() -> AbstractContextManager:
    """Return a context in which operations on concrete arrays give concrete arrays, even while JAX is tracing."""
    # Within jax.jit, operations on concrete arrays become part of the traced function.
    return nullcontext() if get_opaque_trace_state() == _outside() else jax.ensure_compile_time_eval()


@cache
def _outside() -> Any:
    """Return JAX's trace state outside any traced function, obtained from a new thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(get_opaque_trace_state).result()


def implementation(*arrays: AnyArray) -> tuple[Any, Callable[..., Dual]]:
    """Return the array module and the function that computes expectations: JAX's for traced arrays, else NumPy's.

    Args:
        *arrays: Arrays used in the computation.

    Returns:
        `jax.numpy` and `traced_dual` if any of the arrays is traced, and `numpy` and `covariance_dual` otherwise.
    """
    # The layers of a network share the series of their activation, which takes seconds to tabulate.
    return (jnp, partial(traced_dual, series_of=cache(wide_series))) if is_traced(*arrays) else (np, covariance_dual)


def traced_dtype(dtype: str | None, *arrays: AnyArray) -> str:
    """Return the dtype of a traced computation: the given dtype, or else the dtype of the arrays.

    Args:
        dtype: "float64", "float32" or None. None means float64 if JAX promotes the arrays to float64, and float32
            otherwise.
        *arrays: Arrays used in the computation. Integer arrays are treated as if they had JAX's default
            floating-point dtype.

    Raises:
        ValueError: If `dtype` is "float64", but JAX's 64-bit mode is off.
    """
    if dtype == "float64" and jax.dtypes.canonicalize_dtype(float) != np.float64:
        raise ValueError(
            "dtype must be 'float32' or None for traced arrays if JAX's 64-bit mode is off, got 'float64'. Enable it "
            "with jax.enable_x64(True)."
        )
    with jax.numpy_dtype_promotion("standard"):
        found = jnp.result_type(*(jax.dtypes.canonicalize_dtype(floating_dtype(array)) for array in arrays))
    return dtype or ("float64" if found == np.float64 else "float32")


def traced_dual(
    activation: str | Function,
    covariance: Array,
    variance1: Array,
    variance2: Array,
    series_of: Callable[[str | Function, str], WideSeries] = wide_series,
) -> Dual:
    """Compute the same expectations as `covariance_dual`, but in traced functions and in the dtype of the arguments.

    Activations without a closed form use the series of `smooth_series` for all standard deviations up to a limit of
    128 (less for a user-defined function whose series does not converge there). Beyond the limit, the results are NaN.
    Errors are below 1e-11 (1e-5 in float32) times the product of the factors in `WideSeries`, plus the effect of
    rounding errors in the correlations. Tabulating a series takes several seconds; the tables of named activations are
    cached.

    Where a variance is zero, the series gives only those derivatives of the expectations that are needed for the first
    derivatives of a kernel with respect to the rows. Second derivatives are NaN there.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        covariance: Covariances of u_i and v_j, shape (n1, n2).
        variance1: Variances of u_i, shape (n1,).
        variance2: Variances of v_j, shape (n2,).
        series_of: The function `wide_series`, or a version of it that caches its results.

    Raises:
        ValueError: If a user-defined activation is not smooth.
    """
    relu_parts, form = get_activation(activation).relu_parts, closed_form_of(activation)
    if relu_parts is not None:
        return _relu(relu_parts, covariance, variance1, variance2)
    if form is not None:
        return Dual(*form(covariance, variance1, variance2))
    return _smooth(partial(series_of, activation), covariance, variance1, variance2)


def _correlations(covariance: Array, variance1: Array, variance2: Array) -> tuple[Array, Array]:
    """Return the products of the standard deviations, and the correlations, which are 0 if a variance is 0."""
    deviation1, deviation2 = (_deviation(variance) for variance in (variance1, variance2))
    norms = deviation1[:, None] * deviation2[None, :]
    rho = jnp.where(norms > 0, covariance / jnp.where(norms > 0, norms, 1), 0)
    # Correlations that exceed 1 in absolute value because of rounding are clipped, but keep their derivatives.
    return norms, rho + jax.lax.stop_gradient(jnp.clip(rho, -1, 1) - rho)


def _deviation(variance: Array) -> Array:
    """Return the square root of a variance, with a derivative of zero at zero."""
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)


def _relu(relu_parts: ReluParts, covariance: Array, variance1: Array, variance2: Array) -> Dual:
    """Return the expectations in `Dual` for the activation a z + b relu(z)."""
    norms, cosine = _correlations(covariance, variance1, variance2)
    parallel = 1 - jnp.abs(cosine) < EQUAL * jnp.finfo(cosine.dtype).eps
    # The angle is not differentiable where rows are parallel. There, its derivative is taken to be zero.
    inside = jnp.where(parallel, 0, cosine)
    angle = jnp.where(parallel, jnp.where(cosine > 0, 0, np.pi), jnp.arccos(inside)).astype(cosine.dtype)
    sine = jnp.where(parallel, 0, jnp.sqrt((1 - inside) * (1 + inside)))
    # The derivative of relu at zero is zero, as in JAX.
    slope = jnp.where(norms > 0, (np.pi - angle) / (2 * np.pi), 0)
    value = norms * (sine / (2 * np.pi) + cosine * slope)
    a, b = relu_parts
    linear, square = a * (a + b), a * (a + b) + b**2 / 2
    return Dual(linear * norms * cosine + b**2 * value, linear + b**2 * slope, square * variance1, square * variance2)


def _smooth(series_of: Callable[[str], WideSeries], covariance: Array, variance1: Array, variance2: Array) -> Dual:
    """Return the expectations in `Dual` for an activation without a closed form."""
    norms, rho = _correlations(covariance, variance1, variance2)
    scales = [_deviation(variance) for variance in (variance1, variance2)]

    def expectations(part: str) -> tuple[Array, list[Array]]:
        series = series_of(part)
        value, moments = jnp.zeros_like(rho), [jnp.zeros_like(s) for s in scales]
        for kind, coefficients in series.parts:
            left, right = (
                series.factor(kind, s)[:, None] * _chebyshev(jnp.asarray(coefficients, rho.dtype), s, series.high)
                for s in scales
            )
            value = value + _series(kind, left, right * kind.signs.astype(rho.dtype)[None], rho)
            signs = moment_signs(kind).astype(rho.dtype)
            moments = [moment + rows**2 @ signs for moment, rows in zip(moments, (left, right), strict=True)]
        return value, moments

    (value, moments), (slope, _) = expectations("readout"), expectations("slope")
    # At a variance of zero, the derivative of the value with respect to the covariance is E[sigma' sigma'] (Price's
    # theorem). All other first derivatives are multiplied by zero in the derivatives of the kernel.
    value = value + _at_zero(norms, covariance, slope)
    slope = slope + _at_zero(norms, covariance, jnp.zeros_like(slope))
    moments = [
        jnp.maximum(moment, 0) + _at_zero(variance, variance, jnp.zeros_like(variance))
        for moment, variance in zip(moments, (variance1, variance2), strict=True)
    ]
    return Dual(value, slope, *moments)


def _at_zero(size: Array, x: Array, derivative: Array) -> Array:
    """Return zeros that, where `size` is zero, have the given first derivatives in x, and NaN as second derivatives."""
    zero = size <= 0
    # Elsewhere, the argument is 1, so that derivatives are finite before they are masked.
    change = jnp.where(zero, x - jax.lax.stop_gradient(x), 1)
    return jnp.where(zero, _differentiable_once(change, jax.lax.stop_gradient(derivative)), 0)


@jax.custom_jvp
def _differentiable_once(change: Array, derivative: Array) -> Array:
    return change * derivative


@_differentiable_once.defjvp
def _first_derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    change, derivative = primals
    # The square root has no derivative at zero.
    undefined = 0 * jnp.sqrt(jnp.abs(change))
    return _differentiable_once(change, derivative), tangents[0] * (derivative + undefined)


def _chebyshev(coefficients: Float[Array, "points total"], scales: Array, high: float) -> Float[Array, "n total"]:
    """Evaluate Chebyshev series in arcsinh(scale) for scales from 0 to `high`; beyond it, the result is NaN."""
    x = jnp.where(scales <= high, 2 * jnp.arcsinh(scales) / math.asinh(high) - 1, jnp.nan)

    def step(pair: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        last, current = pair
        return (current, 2 * x * current - last), last

    _, polynomials = jax.lax.scan(step, (jnp.ones_like(x), x), length=len(coefficients))
    return polynomials.T @ coefficients


def _series(part: Part, left: Float[Array, "n1 total"], right: Float[Array, "n2 total"], rho: Array) -> Array:
    """Sum the series of `lazynet.kernels._clenshaw.clenshaw` for one part."""
    # At rho = 0, the derivative of |rho| is taken to be 1, so that the product of a sign and a function of |rho| has
    # the right derivative there.
    sign = jnp.where(rho < 0, -1, 1).astype(rho.dtype)
    if part.focus is None:
        return (left @ right.T) * (rho if part.odd else 1)
    y = 2 * _squared_arcsinh((1 - sign * rho) / (2 * part.focus**2)) / math.asinh(0.5**0.5 / part.focus) ** 2 - 1
    # Terms are padded with zeros to the same number of features.
    index = np.full((len(part.ranks), max(part.ranks)), left.shape[1])
    ends = np.cumsum(part.ranks)
    for term, (count, end) in enumerate(zip(part.ranks, ends, strict=True)):
        index[term, :count] = np.arange(end - count, end)
    left, right = (jnp.moveaxis(jnp.pad(rows, ((0, 0), (0, 1)))[:, index], 1, 0) for rows in (left, right))

    def step(sums: tuple[Array, Array], features: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        first, second = sums
        return (features[0] @ features[1].T + 2 * y * first - second, first), None

    zeros = jnp.zeros_like(rho)
    (first, second), _ = jax.lax.scan(step, (zeros, zeros), (left, right))
    # The last step of Clenshaw's algorithm adds y b_1 - b_2 instead of 2 y b_1 - b_2.
    return (first - y * second) * (sign if part.odd else 1)


def _squared_arcsinh(t: Array) -> Array:
    """Return arcsinh(sqrt(t))^2, which is analytic at 0; t may be slightly negative because of rounding errors."""
    total, factor = jnp.zeros_like(t), 1.0
    coefficients = []
    for n in range(1, TERMS + 1):
        # The series is sum_n (-1)^(n - 1) (4 t)^n / (2 n^2 C(2 n, n)).
        factor *= 2 * (2 * n - 1) / n  # C(2 n, n)
        coefficients.append((-1) ** (n - 1) * 4.0**n / (2 * n**2 * factor))
    # Each formula is evaluated only where its result is used, because it may overflow or have no derivative elsewhere.
    small, large = jnp.where(t > SMALL, 0, t), jnp.where(t > SMALL, t, 1)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * small
    return jnp.where(t > SMALL, jnp.arcsinh(jnp.sqrt(large)) ** 2, total)
