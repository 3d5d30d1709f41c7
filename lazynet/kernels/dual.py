"""Gaussian expectations of an activation and of its derivative: the parts of the kernel of a two-layer network."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels.door import neural_tangents
from lazynet.kernels.hermite import hermite_coefficients, hermite_sum
from lazynet.precision import host_float64

BLOCK = 1024  # rows of a block: bounds what is held besides the result to some ten times BLOCK^2 numbers
PAIRS = 2**22  # numbers held at a time where pairs of rows are compared one by one
# From this cosine on an angle is taken from the rows themselves, where its error would else show: see below.
NEARLY_PARALLEL = {"float64": 1e-4, "float32": 1e-2}
CLOSED_FORMS = {"relu": "Relu", "erf": "Erf", "gelu": "Gelu"}  # the layers of neural-tangents that have one

Rows = tuple[np.ndarray, ...]


def gaussian_dual(
    activation: str,
    x1: Float[np.ndarray, "n1 d"],
    x2: Float[np.ndarray, "n2 d"] | None = None,
    init_scale: float = 1.0,
    derivative: bool = False,
) -> Float[np.ndarray, "n1 n2"]:
    """E[sigma(w.x) sigma(w.x')] for w ~ N(0, init_scale^2 I), or with `derivative` E[sigma'(w.x) sigma'(w.x')].

    relu, erf and gelu in closed form (Cho and Saul 2009; Williams 1997; Tsuchida et al. 2021, arXiv:2002.08517), other
    activations by their Hermite series.

    Args:
        activation: a name in `lazynet.networks.ACTIVATIONS`.
        x1: rows x, float64, none of them zero.
        x2: rows x'; left out, it is `x1`, and the result is exactly symmetric.
        init_scale: kappa, positive.
        derivative: whether sigma' stands for sigma.

    Returns:
        NumPy float64 (n1, n2); the error is below 1e-11 times the larger of 1 and the entry.

    Raises:
        ValueError: where the Hermite series needs more than 8192 terms, because `init_scale * norm(x)` is too large.

    Example:
        >>> gaussian_dual("relu", np.eye(2))[0, 0]
        np.float64(0.5)
    """
    return tangent_dual("slope" if derivative else "readout", activation, x1, x2, init_scale)


def tangent_dual(
    part: str,
    activation: str,
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
        block: Callable[..., Array | np.ndarray]
        if activation in CLOSED_FORMS:
            block = functools.partial(_closed_form_block, activation, part, init_scale)
            rows: list[Rows] = [(x,) for x in both]
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
    block: Callable[..., Array | np.ndarray], rows1: Rows, rows2: Rows | None = None, *, dtype: np.dtype
) -> np.ndarray:
    """Fill the matrix block by block; without `rows2` the upper triangle only, mirrored."""
    symmetric = rows2 is None
    rows2 = rows1 if rows2 is None else rows2
    result = np.empty((len(rows1[0]), len(rows2[0])), dtype)
    for i in range(0, result.shape[0], BLOCK):
        for j in range(i if symmetric else 0, result.shape[1], BLOCK):
            here = np.s_[i : i + BLOCK, j : j + BLOCK]
            found = np.asarray(block(*(part[here[0]] for part in rows1), *(part[here[1]] for part in rows2)))
            if symmetric and i == j:
                # A block on the diagonal is symmetric up to rounding only.
                found = np.triu(found) + np.triu(found, 1).T
            result[here] = found
            if symmetric and i != j:
                result[here[::-1]] = found.T
    return result


def _hermite_block(part: str, *rows: np.ndarray) -> np.ndarray:
    half = len(rows) // 2
    (unit1, norm1, *first), (unit2, norm2, *second) = rows[:half], rows[half:]
    duals = [np.asarray(hermite_sum(unit1, a1, unit2, a2)) for a1, a2 in zip(first, second, strict=True)]
    if part in ("slope", "readout"):
        return duals[0]
    gram = norm1[:, None] * (unit1 @ unit2.T) * norm2[None, :]
    return gram * duals[0] + sum(duals[1:])


@functools.cache
def _closed_form(activation: str, part: str) -> Callable[..., tuple[Array, Array]]:
    """The compiled closed form of neural-tangents, and which pairs of rows are nearly parallel or opposite."""
    stax = neural_tangents().stax
    layer = getattr(stax, CLOSED_FORMS[activation])()[2]

    def dual(x1: Array, x2: Array, init_scale: Array) -> tuple[Array, Array]:
        # W_std^2 = d undoes neural-tangents' division of x.x' by d.
        before = stax.Dense(1, W_std=x1.shape[1] ** 0.5, b_std=None)[2](init_scale * x1, init_scale * x2)
        # The layer multiplies what stands in `ntk` by the dual of the derivative.
        factor = jax.numpy.ones_like(before.nngp) if part == "slope" else before.nngp / init_scale**2
        after = layer(before.replace(ntk=factor))
        norms = jax.numpy.sqrt(before.cov1[:, None] * before.cov2[None, :])
        parallel = jax.numpy.abs(before.nngp) > (1 - NEARLY_PARALLEL[x1.dtype.name]) * norms
        found = {"readout": after.nngp, "both": after.ntk + after.nngp}.get(part, after.ntk)
        return found, parallel

    return jax.jit(dual)


def _closed_form_block(
    activation: str, part: str, init_scale: float, x1: np.ndarray, x2: np.ndarray
) -> Array | np.ndarray:
    dual, parallel = _closed_form(activation, part)(x1, x2, init_scale)
    if activation != "relu":
        return dual
    result = np.array(dual)
    _correct_nearly_parallel(result, np.asarray(parallel), part, init_scale, x1, x2)
    return result


def _correct_nearly_parallel(
    result: np.ndarray, parallel: np.ndarray, part: str, init_scale: float, x1: np.ndarray, x2: np.ndarray
) -> None:
    """Recompute in place the relu entries of nearly parallel rows, where relu has a kink in the angle.

    The angle from the cosine c has the error eps / sqrt(1 - c^2): 6e-9 on the diagonal, but below 1e-13 for
    |c| < 1 - 1e-4 (in float32 below 5e-7 for |c| < 1 - 1e-2). Nearer than that it is taken from the sum and difference
    of the unit rows.
    """
    norm1, norm2 = (np.linalg.norm(x.astype(np.float64, copy=False), axis=1) for x in (x1, x2))
    rows, columns = np.nonzero(parallel)
    chunk = max(1, PAIRS // x1.shape[1])
    for start in range(0, rows.size, chunk):
        i, j = rows[start : start + chunk], columns[start : start + chunk]
        u1, u2 = x1[i] / norm1[i, None], x2[j] / norm2[j, None]
        angle = 2 * np.arctan2(np.linalg.norm(u1 - u2, axis=1), np.linalg.norm(u1 + u2, axis=1))
        slope = (np.pi - angle) / (2 * np.pi)
        norms = norm1[i] * norm2[j]
        hidden = norms * np.cos(angle) * slope
        readout = init_scale**2 * (norms * np.sin(angle) / (2 * np.pi) + hidden)
        result[i, j] = {"slope": slope, "hidden": hidden, "readout": readout, "both": hidden + readout}[part]
