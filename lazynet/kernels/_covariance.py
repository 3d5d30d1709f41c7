"""Gaussian expectations of an activation, computed from covariances and used in the kernels of deep networks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._door import neural_tangents
from lazynet.kernels._dual import ReluParts, check_scale_of_closed_form, closed_form_layer, sine_dual
from lazynet.kernels._smooth import second_moment, smooth_dual, smooth_series
from lazynet.networks import Function, get_activation
from lazynet.precision import host_float64

# Rows are treated as parallel if their cosine is within this many machine epsilons of +-1.
EQUAL = 16


class Dual(NamedTuple):
    """Expectations of an activation sigma and its derivative at jointly normal u and v.

    Attributes:
        value: E[sigma(u) sigma(v)], shape (n1, n2).
        slope: E[sigma'(u) sigma'(v)], shape (n1, n2).
        variance1: E[sigma(u)^2], shape (n1,).
        variance2: E[sigma(v)^2], shape (n2,).
    """

    value: Any
    slope: Any
    variance1: Any
    variance2: Any


def covariance_dual(
    activation: str | Function,
    covariance: Float[np.ndarray, "n1 n2"],
    variance1: Float[np.ndarray, " n1"],
    variance2: Float[np.ndarray, " n2"],
) -> Dual:
    """Compute the expectations in `Dual`, as float64 arrays, for jointly normal u_i and v_j with mean zero.

    The activations relu, leaky_relu and abs use the closed form of Cho and Saul 2009, erf and gelu use the closed forms
    implemented in neural-tangents, and sin uses `sine_dual`. All other activations use series in the angle between two
    rows.

    For relu, leaky_relu and abs, the rounding error in the cosine perturbs the angle between nearly parallel rows,
    which causes errors of up to 2e-8 in the slopes. For parallel rows, the slopes are exact.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array.
        covariance: Covariances of u_i and v_j, shape (n1, n2).
        variance1: Variances of u_i, shape (n1,).
        variance2: Variances of v_j, shape (n2,).

    Raises:
        ValueError: If a variance is so large that the series does not converge, or if a user-defined activation is not
            smooth.
    """
    relu_parts, layer = get_activation(activation).relu_parts, closed_form_layer(activation)
    if relu_parts is not None:
        return _relu(relu_parts, covariance, variance1, variance2)
    with host_float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        if layer is not None:
            check_scale_of_closed_form(activation, np.sqrt(max(variance1.max(initial=0), variance2.max(initial=0))))
            return Dual(*map(np.asarray, closed_form(layer)(covariance, variance1, variance2)))
        return _smooth(activation, covariance, variance1, variance2)


def _relu(relu_parts: ReluParts, covariance: np.ndarray, variance1: np.ndarray, variance2: np.ndarray) -> Dual:
    """Return the expectations in `Dual` for the activation a z + b relu(z)."""
    norms = np.sqrt(variance1[:, None] * variance2[None, :])
    # The derivative of relu at zero is zero, as in JAX.
    present = norms > 0
    cosine = np.clip(np.divide(covariance, norms, out=np.zeros_like(norms), where=present), -1, 1)
    parallel = 1 - np.abs(cosine) < EQUAL * np.finfo(float).eps
    cosine[parallel] = np.sign(cosine[parallel])
    slope = present * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    value = norms * (np.sqrt((1 - cosine) * (1 + cosine)) / (2 * np.pi) + cosine * slope)
    if relu_parts == (0.0, 1.0):
        return Dual(value, slope, variance1 / 2, variance2 / 2)
    a, b = relu_parts
    # The cross terms are E[u relu(v)] = E[u v] / 2, and the second moment of relu(u) is half the variance of u.
    linear, square = a * (a + b), a * (a + b) + b**2 / 2
    return Dual(linear * norms * cosine + b**2 * value, linear + b**2 * slope, square * variance1, square * variance2)


@functools.cache
def closed_form(name: str) -> Callable[..., tuple[Array, ...]]:
    """Compile the closed form of an activation into a function that takes covariances.

    Args:
        name: Name of the neural-tangents layer, such as "Erf".

    Returns:
        A function that maps the covariances and variances, in the order of the arguments of `covariance_dual`, to the
        expectations in `Dual`. JAX must be allowed to promote dtypes and ranks.
    """
    if name == "Sin":
        return jax.jit(sine_dual)
    stax = neural_tangents().stax
    layer, before = getattr(stax, name)()[2], stax.Dense(1)[2]

    def dual(covariance: Array, variance1: Array, variance2: Array) -> tuple[Array, ...]:
        # Only the number of rows matters, because all kernel values computed from these rows are replaced below.
        rows = (jax.numpy.ones((len(variance), 1)) for variance in (variance1, variance2))
        # The layer multiplies `ntk` by the expected product of the derivatives.
        inputs = {"nngp": covariance, "ntk": jax.numpy.ones_like(covariance), "cov1": variance1, "cov2": variance2}
        after = layer(before(*rows).replace(**inputs))
        return after.nngp, after.ntk, after.cov1, after.cov2

    return jax.jit(dual)


def _smooth(activation: str | Function, covariance: np.ndarray, variance1: np.ndarray, variance2: np.ndarray) -> Dual:
    scales = np.sqrt(np.concatenate([variance1, variance2]))
    norms = np.sqrt(variance1[:, None] * variance2[None, :])
    rho = np.clip(np.divide(covariance, norms, out=np.zeros_like(norms), where=norms > 0), -1, 1)
    n1 = len(variance1)

    def expectations(part: str) -> tuple[np.ndarray, np.ndarray]:
        parts, features = smooth_series(activation, scales, part)
        left, right = ([rows[side] for rows in features] for side in (slice(None, n1), slice(n1, None)))
        return smooth_dual(parts, left, right, rho), np.broadcast_to(second_moment(parts, features), scales.shape)

    (value, moments), (slope, _) = expectations("readout"), expectations("slope")
    return Dual(value, slope, moments[:n1], moments[n1:])
