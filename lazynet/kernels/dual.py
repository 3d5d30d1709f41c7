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

BLOCK = 2048  # rows of a block: bounds what is held besides the result to some ten times BLOCK^2 numbers
PAIRS = 2**22  # numbers held at a time where pairs of rows are compared one by one
NEARLY_PARALLEL = 1e-4
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
    # neural-tangents mixes dtypes and ranks; the caller may have forbidden that.
    with host_float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        both = [x1] if x2 is None else [x1, x2]
        block: Callable[..., Array | np.ndarray]
        if activation in CLOSED_FORMS:
            block = functools.partial(_closed_form_block, activation, derivative)
            rows: list[Rows] = [(init_scale * x,) for x in both]
        else:
            block = hermite_sum
            norms = [np.linalg.norm(x, axis=1) for x in both]
            # One call for both sides, so that they have the same number of terms.
            coefficients = hermite_coefficients(activation, init_scale * np.concatenate(norms), derivative)
            parts = np.split(coefficients, [len(x1)])
            rows = [(x / norm[:, None], part) for x, norm, part in zip(both, norms, parts, strict=False)]
        return _in_blocks(block, *rows)


def _in_blocks(block: Callable[..., Array | np.ndarray], rows1: Rows, rows2: Rows | None = None) -> np.ndarray:
    """Fill the matrix block by block; without `rows2` the upper triangle only, mirrored."""
    symmetric = rows2 is None
    rows2 = rows1 if rows2 is None else rows2
    result = np.empty((len(rows1[0]), len(rows2[0])))
    for i in range(0, result.shape[0], BLOCK):
        for j in range(i if symmetric else 0, result.shape[1], BLOCK):
            here = np.s_[i : i + BLOCK, j : j + BLOCK]
            result[here] = block(*(part[here[0]] for part in rows1), *(part[here[1]] for part in rows2))
            if symmetric and i == j:
                # A block on the diagonal is symmetric up to rounding only.
                result[here] = np.triu(result[here]) + np.triu(result[here], 1).T
            elif symmetric:
                result[here[::-1]] = result[here].T
    return result


@functools.cache
def _closed_form(activation: str, derivative: bool) -> Callable[[np.ndarray, np.ndarray], tuple[Array, Array]]:
    """The compiled closed form of neural-tangents, and which pairs of rows are nearly parallel or opposite."""
    stax = neural_tangents().stax
    layer = getattr(stax, CLOSED_FORMS[activation])()[2]

    def dual(x1: Array, x2: Array) -> tuple[Array, Array]:
        # W_std^2 = d undoes neural-tangents' division of x.x' by d.
        before = stax.Dense(1, W_std=x1.shape[1] ** 0.5, b_std=None)[2](x1, x2)
        # The layer multiplies what stands in `ntk` by the dual of the derivative.
        after = layer(before.replace(ntk=jax.numpy.ones_like(before.nngp)))
        norms = jax.numpy.sqrt(before.cov1[:, None] * before.cov2[None, :])
        parallel = jax.numpy.abs(before.nngp) > (1 - NEARLY_PARALLEL) * norms
        return after.ntk if derivative else after.nngp, parallel

    return jax.jit(dual)


def _closed_form_block(activation: str, derivative: bool, x1: np.ndarray, x2: np.ndarray) -> Array | np.ndarray:
    dual, parallel = _closed_form(activation, derivative)(x1, x2)
    if activation != "relu":
        return dual
    result = np.array(dual)
    _correct_nearly_parallel(result, np.asarray(parallel), x1, x2, derivative)
    return result


def _correct_nearly_parallel(
    result: np.ndarray, parallel: np.ndarray, x1: np.ndarray, x2: np.ndarray, derivative: bool
) -> None:
    """Recompute in place the relu entries of nearly parallel rows, where relu has a kink in the angle.

    The angle from the cosine c has the error eps / sqrt(1 - c^2): 6e-9 on the diagonal, but below 1e-13 for
    |c| < 1 - 1e-4. Nearer than that it is taken from the sum and difference of the unit rows.
    """
    norm1, norm2 = (np.linalg.norm(x, axis=1) for x in (x1, x2))
    rows, columns = np.nonzero(parallel)
    chunk = max(1, PAIRS // x1.shape[1])
    for start in range(0, rows.size, chunk):
        i, j = rows[start : start + chunk], columns[start : start + chunk]
        u1, u2 = x1[i] / norm1[i, None], x2[j] / norm2[j, None]
        angle = 2 * np.arctan2(np.linalg.norm(u1 - u2, axis=1), np.linalg.norm(u1 + u2, axis=1))
        if derivative:
            result[i, j] = (np.pi - angle) / (2 * np.pi)
        else:
            arc_cosine = np.sin(angle) + (np.pi - angle) * np.cos(angle)
            result[i, j] = norm1[i] * norm2[j] * arc_cosine / (2 * np.pi)
