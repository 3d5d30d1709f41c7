"""Gaussian expectations of an activation, computed from covariances and used in the kernels of deep networks."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from lazynet.kernels._closed_forms import check_scale_of_closed_form, closed_form_of
from lazynet.kernels._dual import ReluParts
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

    The activations relu, leaky_relu and abs use the closed form of Cho and Saul 2009, and erf, gelu and sin use their
    own closed forms. All other activations use series in the angle between two rows.

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
    relu_parts, form = get_activation(activation).relu_parts, closed_form_of(activation)
    if relu_parts is not None:
        return _relu(relu_parts, covariance, variance1, variance2)
    with host_float64():
        if form is not None:
            check_scale_of_closed_form(activation, np.sqrt(max(variance1.max(initial=0), variance2.max(initial=0))))
            return Dual(*map(np.asarray, jax.jit(form)(covariance, variance1, variance2)))
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
