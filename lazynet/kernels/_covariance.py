"""Gaussian expectations of an activation from the covariances of what enters it, as deep networks need them."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._door import neural_tangents
from lazynet.kernels._dual import ReluParts, closed_form_layer
from lazynet.kernels._hermite import hermite_coefficients, hermite_series
from lazynet.networks import Function, get_activation
from lazynet.precision import host_float64

# Cosines nearer to 1 than this are those of equal rows, of which rounding has left no more.
EQUAL = 16 * np.finfo(float).eps


class Dual(NamedTuple):
    """E[sigma(u) sigma(v)] and E[sigma'(u) sigma'(v)], (n1, n2); E[sigma(u)^2], (n1,); E[sigma(v)^2], (n2,)."""

    value: np.ndarray
    slope: np.ndarray
    variance1: np.ndarray
    variance2: np.ndarray


def covariance_dual(
    activation: str | Function,
    covariance: Float[np.ndarray, "n1 n2"],
    variance1: Float[np.ndarray, " n1"],
    variance2: Float[np.ndarray, " n2"],
) -> Dual:
    """Expectations over jointly normal u_i and v_j of mean zero with these variances and covariances, NumPy float64.

    relu, leaky_relu and abs as in Cho and Saul 2009, erf, gelu and sin in the closed forms of neural-tangents, other
    activations by their Hermite series. For relu, leaky_relu and abs the angle of nearly parallel rows carries the
    rounding of its cosine, so that slopes are up to 6e-9 off there, and exact where rows are equal.

    Raises:
        ValueError: if the Hermite series needs too many terms, because a variance is too large or the function is not
            smooth.
    """
    relu_parts, layer = get_activation(activation).relu_parts, closed_form_layer(activation)
    if relu_parts is not None:
        return _relu(relu_parts, covariance, variance1, variance2)
    with host_float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        if layer is not None:
            return Dual(*map(np.asarray, _closed_form(layer)(covariance, variance1, variance2)))
        return _hermite(activation, covariance, variance1, variance2)


def _relu(relu_parts: ReluParts, covariance: np.ndarray, variance1: np.ndarray, variance2: np.ndarray) -> Dual:
    """The dual of a z + b relu(z)."""
    norms = np.sqrt(variance1[:, None] * variance2[None, :])
    # A unit that is always zero has no slope, as in jax.
    present = norms > 0
    cosine = np.clip(np.divide(covariance, norms, out=np.zeros_like(norms), where=present), -1, 1)
    cosine[1 - np.abs(cosine) < EQUAL] = np.sign(cosine[1 - np.abs(cosine) < EQUAL])
    slope = present * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    value = norms * (np.sqrt((1 - cosine) * (1 + cosine)) / (2 * np.pi) + cosine * slope)
    if relu_parts == (0.0, 1.0):
        return Dual(value, slope, variance1 / 2, variance2 / 2)
    a, b = relu_parts
    # The cross terms are E[u relu(v)] = E[u v] / 2, and the second moment of relu is half the variance.
    linear, square = a * (a + b), a * (a + b) + b**2 / 2
    return Dual(linear * norms * cosine + b**2 * value, linear + b**2 * slope, square * variance1, square * variance2)


@functools.cache
def _closed_form(name: str) -> Any:
    """The compiled layer of neural-tangents, as a function of covariances."""
    stax = neural_tangents().stax
    layer, before = getattr(stax, name)()[2], stax.Dense(1)[2]

    def dual(covariance: Array, variance1: Array, variance2: Array) -> tuple[Array, ...]:
        # Nothing of the rows is left but how many there are.
        rows = (jax.numpy.ones((len(variance), 1)) for variance in (variance1, variance2))
        # The layer multiplies what stands in `ntk` by the dual of the derivative.
        given = {"nngp": covariance, "ntk": jax.numpy.ones_like(covariance), "cov1": variance1, "cov2": variance2}
        after = layer(before(*rows).replace(**given))
        return after.nngp, after.ntk, after.cov1, after.cov2

    return jax.jit(dual)


def _hermite(activation: str | Function, covariance: np.ndarray, variance1: np.ndarray, variance2: np.ndarray) -> Dual:
    scales = np.sqrt(np.concatenate([variance1, variance2]))
    norms = np.sqrt(variance1[:, None] * variance2[None, :])
    cosine = np.clip(np.divide(covariance, norms, out=np.zeros_like(norms), where=norms > 0), -1, 1)

    def coefficients(derivative: bool) -> tuple[np.ndarray, np.ndarray]:
        of_rows = hermite_coefficients(activation, scales, derivative)
        return of_rows[: len(variance1)], of_rows[len(variance1) :]

    values, slopes = coefficients(False), coefficients(True)
    value, slope = (np.asarray(hermite_series(cosine, *each)) for each in (values, slopes))
    return Dual(value, slope, *(np.sum(each**2, axis=1) for each in values))
