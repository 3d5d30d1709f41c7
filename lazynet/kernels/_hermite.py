"""Gaussian expectations of smooth activations, computed from Hermite series."""

import math

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.networks import Function, get_activation, value_and_slope

MAX_TERMS = 8192
MAX_SCALE = 64.0  # far beyond the scales that MAX_TERMS can handle, so larger scales are rejected immediately
REACH = 13.0  # the nodes span [-REACH, REACH]; the square root of the normal density is 3e-19 at the ends
TAIL = 1e-12  # maximum fraction of E[sigma(s z)^2] that the omitted terms may account for
FINEST = 8  # maximum density of nodes for a user-defined function, as a multiple of the density for named activations


def hermite_coefficients(
    activation: str | Function, scales: Float[np.ndarray, " n"], derivative: bool
) -> Float[np.ndarray, "n terms"]:
    """Compute the Hermite coefficients a_k(s) = E[sigma(s z) h_k(z)] for each scale s, where z ~ N(0, 1).

    The h_k are the orthonormal Hermite polynomials. Mehler's formula gives E[sigma(s z) sigma(s' z')] =
    sum_k a_k(s) a_k(s') rho^k for corr(z, z') = rho (Daniely, Frostig and Singer 2016). By Parseval's identity, the
    error of a truncated sum is at most E[sigma(s z)^2] - sum_k a_k(s)^2. The number of terms is doubled until this
    bound is below 1e-12 E[sigma(s z)^2].

    Call this function inside `lazynet.precision.float64()`.

    Args:
        activation: Name in `lazynet.networks.ACTIVATIONS`, or a smooth JAX function of one array. The spectrum of a
            user-defined function is unknown, so the number of quadrature nodes is doubled until convergence.
        scales: Scales s, shape (n,).
        derivative: Whether to replace sigma with its derivative.

    Raises:
        ValueError: If a scale is so large that 8192 terms do not suffice, or if the function is not smooth.
    """
    distinct, index = np.unique(scales, return_inverse=True)

    def coefficients_on(nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the Hermite coefficients and E[sigma(s z)^2] for each distinct scale s."""
        z, basis = hermite_functions(terms, distinct[-1], nodes)
        step = z[1] - z[0]
        values = np.asarray(value_and_slope(activation, distinct[:, None] * z)[derivative]) * basis[0]
        return step * values @ basis.T, step * np.sum(values**2, axis=1)

    name, is_named = get_activation(activation).name, get_activation(activation).is_named
    terms, nodes = 64, 1
    while terms <= MAX_TERMS and nodes <= FINEST and distinct[-1] <= MAX_SCALE:
        coefficients, total = coefficients_on(nodes)
        if not is_named:
            change = np.sum((coefficients_on(2 * nodes)[0] - coefficients) ** 2, axis=1)
            if not np.all(change <= TAIL**2 * total):
                nodes *= 2
                continue
        if np.all(np.abs(total - np.sum(coefficients**2, axis=1)) <= TAIL * total):
            return coefficients[index]
        terms *= 2
    if is_named:
        raise ValueError(
            f"init_scale must be small enough for the Hermite series of {name} to converge within {MAX_TERMS} terms, "
            f"got {distinct[-1]:.3g} for init_scale times the largest row norm. Scale the rows to unit norm, or reduce "
            "init_scale."
        )
    raise ValueError(
        f"activation must be smooth and finite to have an infinite-width kernel, got {name}, whose Hermite series "
        f"does not converge within {MAX_TERMS} terms when init_scale times the largest row norm is {distinct[-1]:.3g}. "
        "Scale the rows to unit norm, or train without the kernel: pass learning_rate and "
        "measure=Measure(predictions=False)."
    )


def hermite_functions(
    terms: int, scale: float, density: int = 1
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, "terms nodes"]]:
    """Evaluate the Hermite functions h_k(z) sqrt(phi(z)), whose values are of order 1, at equally spaced nodes z.

    For these functions, the trapezoidal rule converges exponentially once its frequency 2 pi / step exceeds the sum of
    sqrt(terms) (the frequency of the last function) and the bandwidth of sigma(scale z) sqrt(phi(z)). Among
    the named activations, tanh has the pole closest to the real axis, at i pi / 2. Its spectrum therefore decays with
    the frequency w as exp(-pi w / (2 scale)) and is below 1e-17 at w = 25 scale. The number of nodes is a power of two,
    which limits the number of different shapes for which JAX compiles a program.

    Args:
        terms: Number of Hermite functions.
        scale: Largest scale of the activation's argument.
        density: Factor by which to increase the density of the nodes.

    Returns:
        The nodes, shape (nodes,), and the values of the functions at the nodes, shape (terms, nodes).
    """
    frequency = density * (math.sqrt(terms) + 25.0 * scale + 25.0)
    z = np.linspace(-REACH, REACH, 2 ** math.ceil(math.log2(2 * REACH * frequency / (2 * math.pi) + 1)))
    basis = np.empty((terms, z.size))
    basis[0] = np.exp(-(z**2) / 4) / (2 * math.pi) ** 0.25
    basis[1] = z * basis[0]
    for k in range(1, terms - 1):
        basis[k + 1] = (z * basis[k] - math.sqrt(k) * basis[k - 1]) / math.sqrt(k + 1)
    return z, basis


@jax.jit
def hermite_sum(
    u1: Float[Array, "n1 d"], a1: Float[Array, "n1 terms"], u2: Float[Array, "n2 d"], a2: Float[Array, "n2 terms"]
) -> Float[Array, "n1 n2"]:
    """Return sum_k a1_ik a2_jk rho_ij^k for the cosines rho between the unit rows `u1` and `u2`."""
    return hermite_series(u1 @ u2.T, a1, a2)


@jax.jit
def hermite_series(
    rho: Float[Array, "n1 n2"], a1: Float[Array, "n1 terms"], a2: Float[Array, "n2 terms"]
) -> Float[Array, "n1 n2"]:
    """Return sum_k a1_ik a2_jk rho_ij^k, computed with Horner's rule."""
    a2_by_term = a2.T

    def row(cosines_and_coefficients: tuple[Array, Array]) -> Array:
        rho, a = cosines_and_coefficients

        def horner(total: Array, term: tuple[Array, Array]) -> tuple[Array, None]:
            return total * rho + term[0] * term[1], None

        return jax.lax.scan(horner, jax.numpy.zeros_like(rho), (a, a2_by_term), reverse=True)[0]

    # Small batches of rows stay in the cache during the sum over terms.
    return jax.lax.map(row, (rho, a1), batch_size=32)
