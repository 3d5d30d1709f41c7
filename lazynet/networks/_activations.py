"""Activations, specified by name or as functions, and the properties of activations that the theory needs."""

import builtins
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arrays import is_traced
from lazynet.typing import AnyArray

# An elementwise function of one array.
Function = Callable[[AnyArray], Array]


class Activation(NamedTuple):
    """An activation and its known properties.

    Attributes:
        name: Name of the activation, used in settings and titles.
        function: Function sigma, which is applied elementwise.
        lipschitz: Smallest Lipschitz constant of sigma, or None if it is unknown.
        homogeneous: Whether sigma(c z) = c sigma(z) for all c > 0, or None if this is unknown.
        relu_parts: Pair (a, b) for which sigma(z) = a z + b relu(z), or None if no such pair is known.
    """

    name: str
    function: Function
    lipschitz: float | None = None
    homogeneous: bool | None = None
    relu_parts: tuple[float, float] | None = None

    @property
    def is_named(self) -> bool:
        """True if the activation is an entry in `ACTIVATIONS`, and False if it is a user-defined function."""
        return ACTIVATIONS.get(self.name) is self

    @property
    def binary_slope(self) -> bool:
        """True if sigma' takes only the values 0 and 1."""
        return self.relu_parts == (0.0, 1.0)


def gelu(z: AnyArray) -> Array:
    """Return z Phi(z), using the exact standard normal CDF Phi, not JAX's default tanh approximation."""
    return jax.nn.gelu(z, approximate=False)


def _from_relu(name: str, function: Function, a: float, b: float) -> Activation:
    return Activation(name, function, max(abs(a), abs(a + b)), True, (a, b))


def _smooth(name: str, function: Function, lipschitz: float) -> Activation:
    return Activation(name, function, lipschitz, False)


# Activations that can be specified by name.
# The largest slope of erf is 2 / sqrt(pi), at z = 0; the largest slope of gelu is Phi(z) + z phi(z), at z = sqrt(2);
# the largest slope of silu is reached at z = 2.39936.
ACTIVATIONS = {
    activation.name: activation
    for activation in (
        _from_relu("relu", jax.nn.relu, 0.0, 1.0),
        _smooth("erf", jax.scipy.special.erf, 1.1283791670955126),
        _smooth("tanh", jnp.tanh, 1.0),
        _smooth("gelu", gelu, 1.128904145185155),
        _smooth("softplus", jax.nn.softplus, 1.0),
        _from_relu("leaky_relu", jax.nn.leaky_relu, 0.01, 0.99),
        _from_relu("abs", jnp.abs, -1.0, 2.0),
        _smooth("sin", jnp.sin, 1.0),
        _smooth("sigmoid", jax.nn.sigmoid, 0.25),
        _smooth("silu", jax.nn.silu, 1.099839320128867),
    )
}
# JAX's own functions are recognized by identity, so jax.nn.relu, for example, is treated like the name "relu".
NAMES: dict[Any, str] = {activation.function: name for name, activation in ACTIVATIONS.items()}
NAMES |= {jnp.absolute: "abs", builtins.abs: "abs"}


def get_activation(activation: str | Function) -> Activation:
    """Return the `Activation` with the given name, or wrap a function in an `Activation`.

    Args:
        activation: Name in `ACTIVATIONS`, or an elementwise JAX function of one array. JAX's own functions are
            interchangeable with their names. For example, `jax.nn.relu` is treated like "relu".

    Returns:
        The activation.

    Raises:
        KeyError: If `activation` is a string that is not a name in `ACTIVATIONS`.
    """
    if isinstance(activation, str):
        return ACTIVATIONS[activation]
    if activation in NAMES:
        return ACTIVATIONS[NAMES[activation]]
    return Activation(getattr(activation, "__name__", type(activation).__name__), activation)


def check_activation(activation: Any) -> None:
    """Check that an activation is a known name or an elementwise JAX function.

    Raises:
        ValueError: If the activation is neither, or is a function that cannot be hashed.
    """
    allowed = f"one of {', '.join(ACTIVATIONS)} or an elementwise JAX function of one array"
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return
    if isinstance(activation, str) or not callable(activation):
        raise ValueError(f"activation must be {allowed}, got {activation!r}.")
    try:
        hash(activation)
    except TypeError as error:
        raise ValueError(
            f"activation must be hashable, got {activation!r}. The activation is part of the key under which compiled "
            "programs are cached."
        ) from error
    reason = _why_not_elementwise(activation)
    if reason:
        raise ValueError(f"activation must be {allowed}, got {get_activation(activation).name}, which {reason}.")


@functools.cache
def _why_not_elementwise(function: Function) -> str:
    """Explain why a function is not an elementwise JAX function, or return an empty string if it is."""
    # Networks may be built inside traced functions, so evaluate the activation outside the trace.
    with jax.ensure_compile_time_eval():
        z = jnp.asarray(np.linspace(-1.5, 2.0, 12, dtype=np.float32).reshape(3, 4))
        try:
            values, alone = jax.jit(function)(z), jax.jit(function)(z[1:2, 1:2])
        except Exception as error:
            return f"fails on an array of shape (3, 4): {str(error).partition(chr(10))[0]}"
        if not isinstance(values, Array) or values.shape != z.shape or values.dtype != z.dtype:
            return "does not return an array with the shape and dtype of its argument"
        if is_traced(values, alone):
            return "depends on values that JAX traces"
        differs = not np.allclose(values[1:2, 1:2], alone, rtol=1e-5, atol=1e-6, equal_nan=True)
        return "mixes the entries of its argument" if differs else ""


def value_and_slope(activation: str | Function, z: AnyArray) -> tuple[Array, Array]:
    """Compute sigma(z) and sigma'(z) elementwise, with relu'(0) = 0 as in JAX.

    Args:
        activation: Name in `ACTIVATIONS`, or an elementwise JAX function of one array.
        z: Pre-activations, a floating-point array of any shape.

    Returns:
        The arrays sigma(z) and sigma'(z), which have the shape and dtype of `z`.

    Raises:
        KeyError: If `activation` is a string that is not a name in `ACTIVATIONS`.
    """
    return jax.jvp(get_activation(activation).function, (z,), (jnp.ones_like(z),))
