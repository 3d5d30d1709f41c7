"""Gaussian expectations of a smooth activation by its Hermite series."""

import math

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.networks import Function, get_activation, value_and_slope

MAX_TERMS = 8192
MAX_SCALE = 64.0  # far above what MAX_TERMS can represent; spares the work of finding that out
REACH = 13.0  # sqrt(phi(13)) is 3e-19
TAIL = 1e-12
FINEST = 8  # nodes of a function's quadrature, in multiples of what the known activations need


def hermite_coefficients(
    activation: str | Function, scales: Float[np.ndarray, " n"], derivative: bool
) -> Float[np.ndarray, "n terms"]:
    """Coefficients a_k(s) = E[sigma(s z) h_k(z)] for each scale s, z ~ N(0, 1), h_k orthonormal Hermite polynomials.

    With them E[sigma(s z) sigma(s' z')] = sum_k a_k(s) a_k(s') rho^k for corr(z, z') = rho (Mehler's formula; Daniely,
    Frostig and Singer 2016). By Parseval's identity what the terms leave out is at most E[sigma(s z)^2] minus
    sum_k a_k(s)^2; the number of terms is doubled until that is below 1e-12 of E[sigma(s z)^2]. `derivative` takes
    sigma' for sigma. A function whose spectrum is unknown is integrated on more nodes until coefficients agree with
    those on twice as many. To be called inside `lazynet.precision.float64()`.

    Raises:
        ValueError: if 8192 terms are too few, because a scale is too large or the function is not smooth.
    """
    distinct, index = np.unique(scales, return_inverse=True)

    def on(nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients, and E[sigma(s z)^2]."""
        z, basis = hermite_functions(terms, distinct[-1], nodes)
        step = z[1] - z[0]
        values = np.asarray(value_and_slope(activation, distinct[:, None] * z)[derivative]) * basis[0]
        return step * values @ basis.T, step * np.sum(values**2, axis=1)

    name, is_named = get_activation(activation).name, get_activation(activation).is_named
    terms, nodes = 64, 1
    while terms <= MAX_TERMS and nodes <= FINEST and distinct[-1] <= MAX_SCALE:
        coefficients, total = on(nodes)
        if not is_named:
            change = np.sum((on(2 * nodes)[0] - coefficients) ** 2, axis=1)
            if not np.all(change <= TAIL**2 * total):
                nodes *= 2
                continue
        if np.all(np.abs(total - np.sum(coefficients**2, axis=1)) <= TAIL * total):
            return coefficients[index]
        terms *= 2
    if is_named:
        raise ValueError(
            f"init_scale times the largest norm of a row is {distinct[-1]:.3g}, which is too large for the kernel of "
            f"{name} at full accuracy ({MAX_TERMS} terms); scale the rows to unit norm or take a smaller init_scale."
        )
    raise ValueError(
        f"activation must be smooth and finite for its kernel of infinite width, got {name}, whose Hermite series does "
        f"not converge in {MAX_TERMS} terms where init_scale times the largest norm of a row is {distinct[-1]:.3g}. "
        "Leave predictions out, or scale the rows to unit norm."
    )


def hermite_functions(
    terms: int, scale: float, density: int = 1
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, "terms nodes"]]:
    """Equidistant nodes z and h_k(z) sqrt(phi(z)) at them, which unlike h_k itself stays of order 1.

    The trapezoid rule converges exponentially here. Its frequency 2 pi / step has to exceed sqrt(terms), the
    frequency of the last function, by the bandwidth of sigma(scale z) sqrt(phi(z)): the pole i pi / 2 of tanh, the
    nearest of all, makes its spectrum fall as exp(-pi w / (2 scale)), below 1e-17 at w = 25 scale. The number of nodes
    is a power of two, so that few shapes are ever compiled. `density` multiplies the number of nodes.
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
    """sum_k a1_ik a2_jk rho_ij^k for the cosines rho of unit rows."""
    return hermite_series(u1 @ u2.T, a1, a2)


@jax.jit
def hermite_series(
    rho: Float[Array, "n1 n2"], a1: Float[Array, "n1 terms"], a2: Float[Array, "n2 terms"]
) -> Float[Array, "n1 n2"]:
    """sum_k a1_ik a2_jk rho_ij^k, by Horner's rule."""
    a2_by_term = a2.T

    def row(cosines_and_coefficients: tuple[Array, Array]) -> Array:
        rho, a = cosines_and_coefficients

        def horner(total: Array, term: tuple[Array, Array]) -> tuple[Array, None]:
            return total * rho + term[0] * term[1], None

        return jax.lax.scan(horner, jax.numpy.zeros_like(rho), (a, a2_by_term), reverse=True)[0]

    # A few rows at a time stay in cache over all the terms.
    return jax.lax.map(row, (rho, a1), batch_size=32)
