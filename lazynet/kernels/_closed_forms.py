"""Closed forms, in terms of covariances, of Gaussian expectations for erf, gelu and sin."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.networks import Function, get_activation

# Largest standard deviation s of a pre-activation for which the closed forms are used. The entries for nearly parallel
# rows have relative errors of about 2 s^2 eps, where eps = 2e-16.
FARTHEST = 1e4

Expectations = tuple[Array, Array, Array, Array]
# A function that maps covariances and variances to the expectations in `lazynet.kernels._covariance.Dual`.
ClosedForm = Callable[[Array, Array, Array], Expectations]


def erf_dual(
    covariance: Float[Array, "n1 n2"], variance1: Float[Array, " n1"], variance2: Float[Array, " n2"]
) -> Expectations:
    """Return the expectations in `lazynet.kernels._covariance.Dual` for the error function (Williams 1997, eq. 11).

    With D = det(I + 2 C), where C is the covariance matrix of u and v, the arcsine of Williams is arctan(2 c / sqrt D),
    and E[erf'(u) erf'(v)] = 4 / (pi sqrt D).

    Args:
        covariance: Covariances c of u and v, shape (n1, n2).
        variance1: Variances of u, shape (n1,).
        variance2: Variances of v, shape (n2,).
    """
    determinant = 4 * _determinant(covariance, variance1, variance2)
    root = jnp.sqrt(1 + 2 * (variance1[:, None] + variance2[None, :]) + determinant)
    value = 2 / np.pi * jnp.arctan2(2 * covariance, root)
    return value, 4 / np.pi / root, _erf_moment(variance1), _erf_moment(variance2)


def _erf_moment(variance: Array) -> Array:
    """Return E[erf(u)^2]."""
    return 2 / np.pi * jnp.arctan2(2 * variance, jnp.sqrt(1 + 4 * variance))


def gelu_dual(
    covariance: Float[Array, "n1 n2"], variance1: Float[Array, " n1"], variance2: Float[Array, " n2"]
) -> Expectations:
    """Return the expectations in `lazynet.kernels._covariance.Dual` for gelu(z) = z Phi(z).

    The closed form of the values is that of Tsuchida et al. 2021, arXiv:2002.08517. Let C be the covariance matrix of
    u and v, D = det(I + C), p = E[Phi(u) Phi(v)] = 1/4 + arctan(c / sqrt D) / (2 pi), and
    q = 1 / (1 + var u) + 1 / (1 + var v). Then

        E[gelu(u) gelu(v)] = c p + (det C + c^2 q) / (2 pi sqrt D),
        E[gelu'(u) gelu'(v)] = p + c (q + 1 / D) / (2 pi sqrt D).

    Args:
        covariance: Covariances c of u and v, shape (n1, n2).
        variance1: Variances of u, shape (n1,).
        variance2: Variances of v, shape (n2,).
    """
    determinant = _determinant(covariance, variance1, variance2)
    shifted = 1 + variance1[:, None] + variance2[None, :] + determinant
    root = jnp.sqrt(shifted)
    # 1/4 + arctan(c / sqrt D) / (2 pi), without cancellation if c is negative.
    both = jnp.arctan2(root, -covariance) / (2 * np.pi)
    inverses = (1 / (1 + variance1))[:, None] + (1 / (1 + variance2))[None, :]
    value = covariance * both + (determinant + covariance**2 * inverses) / (2 * np.pi * root)
    slope = both + covariance * (inverses + 1 / shifted) / (2 * np.pi * root)
    return value, slope, _gelu_moment(variance1), _gelu_moment(variance2)


def _gelu_moment(variance: Array) -> Array:
    """Return E[gelu(u)^2]."""
    root = jnp.sqrt(1 + 2 * variance)
    return variance * jnp.arctan2(root, -variance) / (2 * np.pi) + variance**2 / (np.pi * (1 + variance) * root)


def _determinant(covariance: Array, variance1: Array, variance2: Array) -> Array:
    """Return the determinants of the covariance matrices of u and v."""
    determinant = variance1[:, None] * variance2[None, :] - covariance**2
    # Determinants that are negative because of rounding are clipped, but keep their derivatives.
    return determinant + jax.lax.stop_gradient(jnp.maximum(determinant, 0) - determinant)


def sine_dual(
    covariance: Float[Array, "n1 n2"], variance1: Float[Array, " n1"], variance2: Float[Array, " n2"]
) -> Expectations:
    """Return the expectations in `lazynet.kernels._covariance.Dual` for the sine, accurate at small covariances too.

    With h = (var u + var v) / 2 and c = cov(u, v), E[sin u sin v] = exp(-h) sinh(c), and E[cos u cos v] is
    exp(-h) cosh(c).

    Args:
        covariance: Covariances c, shape (n1, n2).
        variance1: Variances of u, shape (n1,).
        variance2: Variances of v, shape (n2,).
    """
    half = (variance1[:, None] + variance2[None, :]) / 2
    close, opposite = jnp.exp(covariance - half), jnp.exp(-covariance - half)
    # For large covariances, sinh would overflow.
    small = jnp.abs(covariance) < 1
    value = jnp.where(small, jnp.sinh(jnp.where(small, covariance, 0)) * jnp.exp(-half), (close - opposite) / 2)
    return value, (close + opposite) / 2, -jnp.expm1(-2 * variance1) / 2, -jnp.expm1(-2 * variance2) / 2


# Activations with closed forms, apart from those built from relu.
CLOSED_FORMS: dict[str, ClosedForm] = {"erf": erf_dual, "gelu": gelu_dual, "sin": sine_dual}


def closed_form_of(activation: str | Function) -> ClosedForm | None:
    """Return the closed form of an activation, or None if there is none.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a JAX function of one array.
    """
    entry = get_activation(activation)
    return CLOSED_FORMS.get(entry.name) if entry.is_named else None


def check_scale_of_closed_form(activation: str | Function, scale: float) -> None:
    """Check that pre-activations are small enough for the closed form of an activation to be accurate.

    Args:
        activation: An activation with a closed form.
        scale: Largest standard deviation of a pre-activation.

    Raises:
        ValueError: If the standard deviation is too large.
    """
    if scale > FARTHEST:
        raise ValueError(
            f"init_scale times the largest row norm must be at most {FARTHEST:g} in each layer for the kernel of "
            f"{get_activation(activation).name} to be accurate, got {scale:.3g}. Scale the rows to unit norm, or "
            "reduce init_scale."
        )
