"""Gaussian expectations of an activation and of its derivative: the parts of the kernel of a two-layer network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._door import neural_tangents
from lazynet.kernels._hermite import hermite_coefficients, hermite_sum
from lazynet.networks import Function, get_activation
from lazynet.plan import check_memory
from lazynet.precision import host_float64

BLOCK = 1024  # rows of a block: bounds what is held besides the result to some ten times BLOCK^2 numbers
PAIRS = 2**22  # numbers held at a time where pairs of rows are compared one by one
# From this cosine on an angle is taken from the rows themselves, where its error would else show: see below.
NEARLY_PARALLEL = {"float64": 1e-4, "float32": 1e-2}
CLOSED_FORMS = {"erf": "Erf", "gelu": "Gelu", "sin": "Sin"}  # the layers of neural-tangents that have one

Rows = tuple[np.ndarray, ...]
# (a, b) of a z + b relu(z).
ReluParts = tuple[float, float]


def gaussian_dual(
    activation: str | Function,
    x1: Float[np.ndarray, "n1 d"],
    x2: Float[np.ndarray, "n2 d"] | None = None,
    init_scale: float = 1.0,
    derivative: bool = False,
) -> Float[np.ndarray, "n1 n2"]:
    """E[sigma(w.x) sigma(w.x')] for w ~ N(0, init_scale^2 I), or with `derivative` E[sigma'(w.x) sigma'(w.x')].

    relu, leaky_relu, abs, erf, gelu and sin have closed forms (Cho and Saul 2009; Williams 1997; Tsuchida et al. 2021,
    arXiv:2002.08517), other activations a Hermite series.

    Args:
        activation: a name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        x1: rows x, float64, none of them zero.
        x2: rows x'; left out, it is `x1`, and the result is exactly symmetric.
        init_scale: kappa, positive.
        derivative: whether sigma' stands for sigma.

    Returns:
        NumPy float64 (n1, n2); the error is below 1e-11 times the larger of 1 and the entry.

    Raises:
        ValueError: if the Hermite series needs more than 8192 terms, because `init_scale * norm(x)` is too large or the
            function is not smooth.

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
    """What the trained part adds to the tangent kernel of infinite width, in the dtype of the rows.

    "hidden" is x.x' E[sigma' sigma'], "readout" E[sigma sigma], "both" their sum; "slope" is E[sigma' sigma'] alone.
    Nothing of the size of the result is held beside it. Arguments and errors are those of `gaussian_dual`; in float32
    the error is some 2e-7 times the norms of the two rows.
    """
    # neural-tangents mixes dtypes and ranks; the caller may have forbidden that.
    with host_float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        both = [x1] if x2 is None else [x1, x2]
        known, layer = get_activation(activation), closed_form_layer(activation)
        block: Callable[..., Callable[[], np.ndarray]]
        if known.relu_parts is not None:
            block = functools.partial(_relu_block, part, known.relu_parts, init_scale)
            rows: list[Rows] = [(x,) for x in both]
        elif layer is not None:
            block = functools.partial(_closed_form_block, layer, part, init_scale)
            rows = [(x,) for x in both]
        else:
            # The series is taken in float64, and only what it gives is rounded.
            both = [x.astype(np.float64, copy=False) for x in both]
            block = functools.partial(_hermite_block, part)
            norms = [np.linalg.norm(x, axis=1) for x in both]
            rows = [(x / norm[:, None], norm) for x, norm in zip(both, norms, strict=True)]
            for derivative in {"slope": [True], "hidden": [True], "readout": [False], "both": [True, False]}[part]:
                # One call for both sides, so that they have the same number of terms.
                coefficients = hermite_coefficients(activation, init_scale * np.concatenate(norms), derivative)
                split = np.split(coefficients, [len(x1)])
                rows = [(*row, some) for row, some in zip(rows, split, strict=False)]
        return _in_blocks(block, *rows, dtype=x1.dtype)


def _in_blocks(
    block: Callable[..., Callable[[], np.ndarray]], rows1: Rows, rows2: Rows | None = None, *, dtype: np.dtype
) -> np.ndarray:
    """Fill the matrix block by block; without `rows2` the upper triangle only, mirrored.

    `block` starts the work and gives a function that waits for it: while one block is put in its place, the device
    works on the next.
    """
    symmetric = rows2 is None
    rows2 = rows1 if rows2 is None else rows2
    shape = len(rows1[0]), len(rows2[0])
    check_memory(f"A kernel of {shape[0]} times {shape[1]} entries in {dtype}", dtype.itemsize * shape[0] * shape[1])
    result = np.empty(shape, dtype)
    started: list[tuple[tuple[slice, slice], Callable[[], np.ndarray]]] = []

    def place() -> None:
        here, wait = started.pop(0)
        found = wait()
        if symmetric and here[0] == here[1]:
            # A block on the diagonal is symmetric up to rounding only.
            found = np.triu(found) + np.triu(found, 1).T
        result[here] = found
        if symmetric and here[0] != here[1]:
            result[here[::-1]] = found.T

    for i in range(0, result.shape[0], BLOCK):
        for j in range(i if symmetric else 0, result.shape[1], BLOCK):
            here = np.s_[i : i + BLOCK, j : j + BLOCK]
            wait = block(*(part[here[0]] for part in rows1), *(part[here[1]] for part in rows2))
            started.append((here, wait))
            if len(started) == 2:
                place()
    place()
    return result


def _hermite_block(part: str, *rows: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: _hermite_dual(part, *rows)


def _hermite_dual(part: str, *rows: np.ndarray) -> np.ndarray:
    half = len(rows) // 2
    (unit1, norm1, *first), (unit2, norm2, *second) = rows[:half], rows[half:]
    duals = [np.asarray(hermite_sum(unit1, a1, unit2, a2)) for a1, a2 in zip(first, second, strict=True)]
    if part in ("slope", "readout"):
        return duals[0]
    gram = norm1[:, None] * (unit1 @ unit2.T) * norm2[None, :]
    return gram * duals[0] + sum(duals[1:])


def closed_form_layer(activation: str | Function) -> str | None:
    """Name of the layer of neural-tangents that has the closed form of an activation; None if no layer has it."""
    known = get_activation(activation)
    return CLOSED_FORMS.get(known.name) if known.is_named else None


@functools.cache
def _closed_form(name: str, part: str) -> Callable[..., Array]:
    """The compiled closed form of a layer of neural-tangents."""
    stax = neural_tangents().stax
    layer = getattr(stax, name)()[2]

    def dual(x1: Array, x2: Array, init_scale: Array) -> Array:
        # W_std^2 = d undoes neural-tangents' division of x.x' by d.
        before = stax.Dense(1, W_std=x1.shape[1] ** 0.5, b_std=None)[2](init_scale * x1, init_scale * x2)
        # The layer multiplies what stands in `ntk` by the dual of the derivative.
        factor = jax.numpy.ones_like(before.nngp) if part == "slope" else before.nngp / init_scale**2
        after = layer(before.replace(ntk=factor))
        return {"readout": after.nngp, "both": after.ntk + after.nngp}.get(part, after.ntk)

    return jax.jit(dual)


def _closed_form_block(
    name: str, part: str, init_scale: float, x1: np.ndarray, x2: np.ndarray
) -> Callable[[], np.ndarray]:
    return functools.partial(np.asarray, _closed_form(name, part)(x1, x2, init_scale))


@functools.cache
def _angle_polynomial(dtype: str) -> tuple[float, ...]:
    """Coefficients in 2 x - 1, highest first, of arccos(x) / sqrt(1 - x) on [0, 1], to the rounding of this dtype.

    Its Chebyshev coefficients shrink by 3 + sqrt(8) each, because the nearest singularity is at -1.
    """
    degree = {"float64": 20, "float32": 10}[dtype]
    # Many more points than coefficients, over which the rounding of the values averages out.
    x = (1 + np.cos(np.pi * (np.arange(1000) + 0.5) / 1000)) / 2
    series = np.polynomial.Chebyshev.fit(x, np.arccos(x) / np.sqrt(1 - x), degree, domain=[0, 1])
    return tuple(np.polynomial.chebyshev.cheb2poly(series.coef)[::-1].tolist())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _arc_cosine(part: str, relu_parts: ReluParts, init_scale: Array, x1: Array, x2: Array) -> tuple[Array, Array]:
    """The dual of a z + b relu(z) from cosines, and which pairs are nearly parallel.

    A polynomial for the angle costs next to nothing beside the product; XLA's arctan2 costs as much as all of it.
    """
    norm1, norm2 = (jax.numpy.linalg.norm(x, axis=1) for x in (x1, x2))
    gram = x1 @ x2.T
    cosine = jax.numpy.clip(gram * (1 / norm1)[:, None] * (1 / norm2)[None, :], -1, 1)
    size = jax.numpy.abs(cosine)
    angle = jax.numpy.zeros_like(size)
    for coefficient in _angle_polynomial(x1.dtype.name):
        angle = angle * (2 * size - 1) + coefficient
    angle *= jax.numpy.sqrt(1 - size) / (2 * np.pi)
    slope = jax.numpy.where(cosine < 0, angle, 0.5 - angle)
    sine = jax.numpy.sqrt((1 - size) * (1 + size))
    parallel = size > 1 - NEARLY_PARALLEL[x1.dtype.name]
    return _of_part(part, relu_parts, init_scale, norm1[:, None] * norm2[None, :], gram, sine, slope), parallel


def _of_part(part: str, relu_parts: ReluParts, init_scale: Any, norms: Any, gram: Any, sine: Any, slope: Any) -> Any:
    """Cho and Saul 2009, the kernels of order 0 and 1, with the slopes E[relu' relu'] = (pi - angle) / (2 pi) given.

    For a z + b relu(z), whose cross terms are E[u relu(v)] = E[u v] / 2, slopes are a (a + b) + b^2 E[relu' relu'].
    """
    a, b = relu_parts
    if relu_parts != (0.0, 1.0):
        slope, sine = a * (a + b) + b**2 * slope, b**2 * sine
    hidden = gram * slope
    readout = init_scale**2 * (norms * sine / (2 * np.pi) + hidden)
    return {"slope": slope, "hidden": hidden, "readout": readout, "both": hidden + readout}[part]


def _relu_block(
    part: str, relu_parts: ReluParts, init_scale: float, x1: np.ndarray, x2: np.ndarray
) -> Callable[[], np.ndarray]:
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
    """Recompute in place the relu entries of nearly parallel rows, where relu has a kink in the angle.

    The angle from the cosine c has the error eps / sqrt(1 - c^2): 6e-9 on the diagonal, but below 1e-13 for
    |c| < 1 - 1e-4 (in float32 below 5e-7 for |c| < 1 - 1e-2). Nearer than that it is taken from the sum and difference
    of the unit rows.
    """
    if not parallel.any():
        return
    norm1, norm2 = (np.linalg.norm(x.astype(np.float64, copy=False), axis=1) for x in (x1, x2))
    rows, columns = np.nonzero(parallel)
    chunk = max(1, PAIRS // x1.shape[1])
    for start in range(0, rows.size, chunk):
        i, j = rows[start : start + chunk], columns[start : start + chunk]
        u1, u2 = x1[i] / norm1[i, None], x2[j] / norm2[j, None]
        angle = 2 * np.arctan2(np.linalg.norm(u1 - u2, axis=1), np.linalg.norm(u1 + u2, axis=1))
        norms, slope = norm1[i] * norm2[j], (np.pi - angle) / (2 * np.pi)
        result[i, j] = _of_part(part, relu_parts, init_scale, norms, norms * np.cos(angle), np.sin(angle), slope)
