"""The activations that every part of lazynet knows, each with the facts that theory needs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array

from lazynet.typing import AnyArray


class Activation(NamedTuple):
    """An activation with its Lipschitz constant, and whether sigma(c z) = c sigma(z) for c > 0."""

    function: Callable[[AnyArray], Array]
    lipschitz: float
    homogeneous: bool = False


def gelu(z: AnyArray) -> Array:
    """z Phi(z) with the exact normal distribution function, not jax's default tanh approximation."""
    return jax.nn.gelu(z, approximate=False)


# Largest slopes: erf 2 / sqrt(pi) at 0; gelu Phi(z) + z phi(z) at z = sqrt(2).
ACTIVATIONS = {
    "relu": Activation(jax.nn.relu, 1.0, homogeneous=True),
    "erf": Activation(jax.scipy.special.erf, 1.1283791670955126),
    "tanh": Activation(jax.numpy.tanh, 1.0),
    "gelu": Activation(gelu, 1.128904145185155),
    "softplus": Activation(jax.nn.softplus, 1.0),
}


def value_and_slope(activation: str, z: AnyArray) -> tuple[Array, Array]:
    """sigma(z) and sigma'(z), elementwise; relu'(0) is jax's, which is 0."""
    return jax.jvp(ACTIVATIONS[activation].function, (z,), (jax.numpy.ones_like(z),))
