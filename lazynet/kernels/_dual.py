"""Gaussian expectations of an activation and its derivative, which determine the kernels of two-layer networks."""

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._closed_forms import ClosedForm, check_scale_of_closed_form, closed_form_of
from lazynet.kernels._smooth import smooth_dual, smooth_series
from lazynet.kernels._tables import Part
from lazynet.kernels._threads import in_threads, narrow_products
from lazynet.networks import Function, get_activation
from lazynet.plan import check_memory
from lazynet.precision import host_float64

BLOCK = 1024  # rows per block; temporary arrays for a block have about 10 BLOCK^2 entries in total
SMALL_BLOCK = 256  # rows per block if a series is used; small blocks waste less work on the diagonal of a kernel
TASKS = 4  # number of parallel tasks that share the matrix product for a block if a series is used
PAIRS = 2**22  # maximum number of entries in each temporary array used to compare nearly parallel rows
# If |cosine| is within this distance of 1, the angle is computed from the rows; see `_correct_nearly_parallel`.
NEARLY_PARALLEL = {"float64": 1e-4, "float32": 1e-2}
# If the largest scale exceeds this value, inner products of unit rows are not accurate enough for series in the angle,
# so the correlations of nearly parallel rows are recomputed.
STEEP = 10

Rows = tuple[np.ndarray, ...]
Waitable = Callable[[], np.ndarray]
Either = TypeVar("Either", np.ndarray, Array)
# Coefficients (a, b) of the activation a z + b relu(z).
ReluParts = tuple[float, float]


def gaussian_dual(
    activation: str | Function,
    x1: Float[np.ndarray, "n1 d"],
    x2: Float[np.ndarray, "n2 d"] | None = None,
    init_scale: float = 1.0,
    derivative: bool = False,
) -> Float[np.ndarray, "n1 n2"]:
    """Compute E[sigma(w.x) sigma(w.x')] for w ~ N(0, init_scale^2 I).

    Closed forms are used for relu, leaky_relu, abs, erf, gelu and sin (Cho and Saul 2009; Williams 1997; Tsuchida et
    al. 2021, arXiv:2002.08517), and series in the angle between the rows are used for all other activations. At a zero
    row, the derivative of relu, leaky_relu or abs is taken to be the mean of its left and right derivatives.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        x1: Rows x in float64, shape (n1, d).
        x2: Rows x', shape (n2, d). If omitted, `x1` is used, and the result is exactly symmetric.
        init_scale: Positive scale kappa of the weights.
        derivative: Whether to replace sigma with its derivative.

    Returns:
        A NumPy float64 array of shape (n1, n2). The error in each entry is below 1e-11 times the larger of 1 and the
        absolute value of the entry. For erf, gelu and sin, if `init_scale * norm(x)` exceeds 100, the relative error in
        the entries for nearly parallel rows can reach 2 (init_scale * norm(x))^2 eps, where eps = 2e-16.

    Raises:
        ValueError: If `init_scale * norm(x)` exceeds 10^4 for erf, gelu or sin; if, for an activation without a closed
            form, it is so large that the series does not converge (values up to 200 are accepted for all named
            activations); or if a user-defined activation is not smooth.

    Example:
        >>> gaussian_dual("relu", np.eye(2))[0, 0]
        np.float64(0.5)
    """
    return tangent_dual("slope" if derivative else "readout", activation, x1, x2, init_scale)


def tangent_dual(
    part: str,
    activation: str | Function,
    x1: Float[np.ndarray, "n1 d"],
    x2: Float[np.ndarray, "n2 d"] | None = None,
    init_scale: float = 1.0,
) -> Float[np.ndarray, "n1 n2"]:
    """Compute part of the infinite-width tangent kernel of a two-layer network, in the dtype of the rows.

    No temporary array is as large as the result. In float32, the error is about 2e-7 times the product of the two rows'
    norms.

    Args:
        part: "hidden" for x.x' E[sigma' sigma'], "readout" for E[sigma sigma], "both" for their sum, or "slope" for
            E[sigma' sigma'] without the factor x.x'.
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        x1: Rows x in float64 or float32, shape (n1, d).
        x2: Rows x', shape (n2, d). If omitted, `x1` is used, and the result is exactly symmetric.
        init_scale: Positive scale kappa of the weights.

    Raises:
        ValueError: If `init_scale * norm(x)` is so large that the series does not converge, or if a user-defined
            activation is not smooth.
    """
    with host_float64():
        sides = [x1] if x2 is None else [x1, x2]
        entry, form = get_activation(activation), closed_form_of(activation)
        block: Callable[..., Waitable]
        if entry.relu_parts is not None:
            block = functools.partial(_relu_block, part, entry.relu_parts, init_scale)
            rows: list[Rows] = [(x,) for x in sides]
        elif form is not None:
            largest = max(np.linalg.norm(x.astype(np.float64, copy=False), axis=1).max(initial=0) for x in sides)
            check_scale_of_closed_form(activation, init_scale * largest)
            block = functools.partial(_closed_form_block, form, part, init_scale)
            rows = [(x,) for x in sides]
        else:
            # The series is evaluated in float64, and only the result is rounded to the dtype of the rows.
            sides = [x.astype(np.float64, copy=False) for x in sides]
            norms = [np.linalg.norm(x, axis=1) for x in sides]
            # A zero row has scale 0, so its correlations with other rows do not matter.
            rows = [(x / np.where(norm > 0, norm, 1)[:, None],) for x, norm in zip(sides, norms, strict=True)]
            # The rows of both inputs are expanded in a single call, so that all features belong to the same series.
            scales = init_scale * np.concatenate(norms)
            parts, features = smooth_series(activation, scales, part, init_scale)
            for of_part in features:
                split = np.split(of_part, [len(x1)])
                rows = [(*side, of_rows) for side, of_rows in zip(rows, split, strict=False)]
            largest = scales.max()
            block = functools.partial(_series_block, parts, 4 / largest**2 if largest > STEEP else 0.0)
            return _in_blocks(block, *rows, dtype=x1.dtype, size=SMALL_BLOCK)
        return _in_blocks(block, *rows, dtype=x1.dtype, size=BLOCK)


def _in_blocks(
    block: Callable[..., Waitable], rows1: Rows, rows2: Rows | None = None, *, dtype: np.dtype, size: int
) -> np.ndarray:
    """Compute a matrix block by block; if `rows2` is None, compute the upper triangle and mirror it.

    `size` is the number of rows and columns of a block. `block` starts the computation of a block and returns a
    function that waits for the result, so that the device computes one block while the host stores the previous one.
    """
    symmetric = rows2 is None
    rows2 = rows1 if rows2 is None else rows2
    shape = len(rows1[0]), len(rows2[0])
    check_memory(f"A kernel of {shape[0]} x {shape[1]} entries in {dtype}", dtype.itemsize * shape[0] * shape[1])
    result = np.empty(shape, dtype)
    started: list[tuple[tuple[slice, slice], Waitable]] = []

    def store_oldest() -> None:
        location, wait = started.pop(0)
        entries = wait()
        if symmetric and location[0] == location[1]:
            # A block on the diagonal is symmetric only up to rounding.
            entries = np.triu(entries) + np.triu(entries, 1).T
        result[location] = entries
        if symmetric and location[0] != location[1]:
            result[location[::-1]] = entries.T

    for i in range(0, result.shape[0], size):
        for j in range(i if symmetric else 0, result.shape[1], size):
            location = np.s_[i : i + size, j : j + size]
            wait = block(*(part[location[0]] for part in rows1), *(part[location[1]] for part in rows2))
            started.append((location, wait))
            if len(started) == 2:
                store_oldest()
    store_oldest()
    return result


def _series_block(parts: list[Part], near: float, *rows: np.ndarray) -> Waitable:
    return lambda: _series_dual(parts, near, *rows)


def _series_dual(parts: list[Part], near: float, *rows: np.ndarray) -> np.ndarray:
    half = len(rows) // 2
    (unit1, *first), (unit2, *second) = rows[:half], rows[half:]
    with narrow_products():
        # BLAS uses only one thread, because additional BLAS threads would keep spinning while the series are evaluated.
        rho = np.concatenate(in_threads(lambda rows: rows @ unit2.T, np.array_split(unit1, TASKS)))
    _correct_correlations(rho, near, unit1, unit2)
    return smooth_dual(parts, first, second, rho)


def _correct_correlations(rho: np.ndarray, near: float, unit1: np.ndarray, unit2: np.ndarray) -> None:
    """Recompute the correlations rho of unit rows with |rho| > 1 - near, in place.

    An error of eps in rho causes a relative error of up to 2 s^2 eps in a kernel at scale s, or 2e-12 at s = 100. The
    correlations are therefore computed from 1 - rho = |u - u'|^2 / 2, or from 1 + rho = |u + u'|^2 / 2 if rho is
    negative. The right-hand sides have a relative error of about eps. They are exactly 0 for equal rows in the first
    case and for opposite rows in the second case.
    """
    for i, j in _pairs(np.abs(rho) > 1 - near, unit1.shape[1]):
        sign = np.sign(rho[i, j])
        rho[i, j] = sign * (1 - np.sum((unit1[i] - sign[:, None] * unit2[j]) ** 2, axis=1) / 2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _closed_form_part(form: ClosedForm, part: str, init_scale: Array, x1: Array, x2: Array) -> Array:
    """Return part of the kernel from a closed form; `part` has the same meaning as in `tangent_dual`."""
    gram = x1 @ x2.T
    variances = (init_scale**2 * jax.numpy.sum(x**2, axis=1) for x in (x1, x2))
    value, slope, *_ = form(init_scale**2 * gram, *variances)
    return {"readout": value, "slope": slope, "hidden": gram * slope}.get(part, gram * slope + value)


def _closed_form_block(form: ClosedForm, part: str, init_scale: float, x1: np.ndarray, x2: np.ndarray) -> Waitable:
    return functools.partial(np.asarray, _closed_form_part(form, part, init_scale, x1, x2))


@functools.cache
def _angle_polynomial(dtype: str) -> tuple[float, ...]:
    """Fit a polynomial in 2 x - 1 to arccos(x) / sqrt(1 - x) on [0, 1], accurate to the precision of the dtype.

    The nearest singularity is at x = -1, so successive Chebyshev coefficients shrink by a factor of 3 + sqrt(8).

    Returns:
        The coefficients, in order of decreasing power.
    """
    degree = {"float64": 20, "float32": 10}[dtype]
    # There are many more points than coefficients, so rounding errors in the values average out.
    x = (1 + np.cos(np.pi * (np.arange(1000) + 0.5) / 1000)) / 2
    series = np.polynomial.Chebyshev.fit(x, np.arccos(x) / np.sqrt(1 - x), degree, domain=[0, 1])
    return tuple(np.polynomial.chebyshev.cheb2poly(series.coef)[::-1].tolist())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _arc_cosine(part: str, relu_parts: ReluParts, init_scale: Array, x1: Array, x2: Array) -> tuple[Array, Array]:
    """Return part of the kernel for the activation a z + b relu(z), and a mask of nearly parallel pairs of rows.

    The kernel is computed from cosines. Evaluating the polynomial for the angle costs little compared with the matrix
    product, whereas XLA's arctan2 would double the total cost.
    """
    norm1, norm2 = (jax.numpy.linalg.norm(x, axis=1) for x in (x1, x2))
    gram = x1 @ x2.T
    # The cosine with a zero row is set to 0, so that the derivative at a zero row is the mean of its left and right
    # derivatives. Where the kernel contains the product of the norms, which is 0, the cosine does not matter.
    inverse1, inverse2 = (1 / jax.numpy.where(norm > 0, norm, 1) for norm in (norm1, norm2))
    cosine = jax.numpy.clip(gram * inverse1[:, None] * inverse2[None, :], -1, 1)
    size = jax.numpy.abs(cosine)
    angle = jax.numpy.zeros_like(size)
    for coefficient in _angle_polynomial(x1.dtype.name):
        angle = angle * (2 * size - 1) + coefficient
    angle *= jax.numpy.sqrt(1 - size) / (2 * np.pi)
    slope = jax.numpy.where(cosine < 0, angle, 0.5 - angle)
    sine = jax.numpy.sqrt((1 - size) * (1 + size))
    parallel = size > 1 - NEARLY_PARALLEL[x1.dtype.name]
    return _arc_cosine_part(part, relu_parts, init_scale, norm1[:, None] * norm2[None, :], gram, sine, slope), parallel


def _arc_cosine_part(
    part: str,
    relu_parts: ReluParts,
    init_scale: Array | float,
    norms: Either,
    gram: Either,
    sine: Either,
    slope: Either,
) -> Either:
    """Compute part of the kernel for the activation a z + b relu(z) from E[relu' relu'] = (pi - angle) / (2 pi).

    The cross terms are E[u relu(v)] = E[u v] / 2, and E[sigma' sigma'] = a (a + b) + b^2 E[relu' relu'] for this
    activation. See Cho and Saul 2009, kernels of order 0 and 1.
    """
    a, b = relu_parts
    if relu_parts != (0.0, 1.0):
        slope, sine = a * (a + b) + b**2 * slope, b**2 * sine
    hidden = gram * slope
    readout = init_scale**2 * (norms * sine / (2 * np.pi) + hidden)
    return {"slope": slope, "hidden": hidden, "readout": readout, "both": hidden + readout}[part]


def _relu_block(part: str, relu_parts: ReluParts, init_scale: float, x1: np.ndarray, x2: np.ndarray) -> Waitable:
    dual, parallel = _arc_cosine(part, relu_parts, init_scale, x1, x2)

    def wait() -> np.ndarray:
        result = np.array(dual)
        _correct_nearly_parallel(result, np.asarray(parallel), part, relu_parts, init_scale, x1, x2)
        return result

    return wait


def _correct_nearly_parallel(
    result: np.ndarray,
    parallel: np.ndarray,
    part: str,
    relu_parts: ReluParts,
    init_scale: float,
    x1: np.ndarray,
    x2: np.ndarray,
) -> None:
    """Recompute the entries of the relu kernel for nearly parallel rows, in place.

    An angle computed from the cosine c has an error of about eps / sqrt(1 - c^2), which is below 1e-13 for
    |c| < 1 - 1e-4 (in float32, below 5e-7 for |c| < 1 - 1e-2). For larger |c|, the angle is computed from the sum and
    the difference of the unit rows instead, because the error would reach 6e-9 on the diagonal, where c differs from 1
    only by rounding.
    """
    if not parallel.any():
        return
    norm1, norm2 = (np.linalg.norm(x.astype(np.float64, copy=False), axis=1) for x in (x1, x2))
    for i, j in _pairs(parallel, x1.shape[1]):
        u1, u2 = x1[i] / norm1[i, None], x2[j] / norm2[j, None]
        angle = 2 * np.arctan2(np.linalg.norm(u1 - u2, axis=1), np.linalg.norm(u1 + u2, axis=1))
        norms, slope = norm1[i] * norm2[j], (np.pi - angle) / (2 * np.pi)
        result[i, j] = _arc_cosine_part(
            part, relu_parts, init_scale, norms, norms * np.cos(angle), np.sin(angle), slope
        )


def _pairs(mask: np.ndarray, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the row and column indices of the true entries of a mask, in chunks of at most PAIRS // dim entries."""
    # np.flatnonzero is faster than np.nonzero on a two-dimensional mask.
    rows, columns = divmod(np.flatnonzero(mask), mask.shape[1])
    chunk = max(1, PAIRS // dim)
    for start in range(0, rows.size, chunk):
        yield rows[start : start + chunk], columns[start : start + chunk]
