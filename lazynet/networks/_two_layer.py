"""The two-layer network, as a flax module."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import sqrt
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from lazynet.arguments import calls_of, check_choice, check_count, check_flag, check_number, described
from lazynet.arrays import floats
from lazynet.networks._activations import Function, check_activation, get_activation
from lazynet.networks._parametrization import PARAMETRIZATIONS
from lazynet.networks._protocol import Network
from lazynet.networks._traits import HiddenLayer, LayerScaling, Traits, setting_fields, traits
from lazynet.typing import AnyArray, Variables

# A number, or a function that maps the width to a number.
Scale = float | int | Callable[[int], float]

TRAINED_PARTS = ("hidden", "readout", "both")
READOUTS = ("sign", "gaussian")
# Largest allowed value of integer fields; array sizes must fit in 64-bit integers.
LARGEST = 2**62


def at_width(scale: Scale, width: int) -> float:
    """Evaluate a scale at a given width.

    Args:
        scale: Number, or function that maps the width to a number.
        width: Number of units, m.

    Returns:
        The value of the scale.
    """
    return float(scale(width) if callable(scale) else scale)


def check_scale(name: str, scale: Any, width: int) -> float:
    """Return the value of a scale at a given width, after checking that it is positive and finite.

    Args:
        name: Name of the argument in error messages.
        scale: Number, or function that maps the width to a number.
        width: Number of units, m.

    Returns:
        The value of the scale.

    Raises:
        ValueError: If the value is not a positive finite number. If `scale` is a function, any error that it raises is
            re-raised with a note.
    """
    value = scale
    if callable(scale):
        with calls_of(name):
            value = scale(width)
    return check_number(name, value, positive=True, where=f" at width {width}")


def check_fields(network: Network, **choices: Iterable[str]) -> None:
    """Check the fields of a network that must be positive integers, positive scales, or one of a fixed set of choices.

    Args:
        network: Network under construction.
        **choices: Allowed values for each field with a fixed set of choices.

    Raises:
        ValueError: If a field has an invalid value.
    """
    for name, allowed in choices.items():
        check_choice(name, getattr(network, name), allowed)
    for name in ("width", "outputs", "depth", "filter_size", "stride"):
        check_count(name, getattr(network, name, 1), most=LARGEST)
    for name in ("init_scale", "output_scale"):
        check_scale(name, getattr(network, name, 1.0), network.width)


class SingleHidden(nn.Module):
    """Base class that draws the weights of networks with one hidden layer. `TwoLayer` documents the fields."""

    width: int
    outputs: int = 1
    activation: str | Function = "relu"
    train: str = "hidden"
    init_scale: Scale = 1.0
    output_scale: Scale = 1.0
    readout: str = "sign"
    symmetric: bool = True

    def __post_init__(self) -> None:
        """Check the fields."""
        check_activation(self.activation)
        check_fields(self, train=TRAINED_PARTS, readout=READOUTS)
        check_flag("symmetric", self.symmetric)
        if self.symmetric and self.width % 2:
            raise ValueError(
                f"width must be even if symmetric=True, got {self.width}. Use width={self.width + 1} or "
                "symmetric=False."
            )
        super().__post_init__()

    def _weights(self, x: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return the hidden weights and the readout, which `init` draws at random.

        Their shapes are (m, d) and (m, k) if x has d columns.
        """
        hidden = self._array("hidden", self.train != "readout", lambda key: self._draw_hidden(key, x))
        return hidden, self._array("readout", self.train != "hidden", lambda key: self._draw_readout(key, x))

    def _array(self, name: str, trained: bool, draw: Callable[[Array], Array]) -> AnyArray:
        if trained:
            return self.param(name, draw)
        return self.variable("fixed", name, lambda: draw(self.make_rng("params"))).value

    def _draw_hidden(self, key: Array, x: AnyArray) -> Array:
        drawn = jax.random.normal(key, (self._free_units, x.shape[1]), jnp.float32)
        # Without the barrier, the compiler may merge the scale with a factor inside `normal`, which would change the
        # last bit of the weights.
        hidden = at_width(self.init_scale, self.width) * jax.lax.optimization_barrier(drawn)
        return self._mirror(hidden, hidden).astype(x.dtype)

    def _draw_readout(self, key: Array, x: AnyArray) -> Array:
        shape = (self._free_units, self.outputs)
        if self.readout == "sign":
            # jax.random.rademacher is not used, because its signs depend on whether float64 is enabled.
            readout = jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), shape), 1.0, -1.0)
        else:
            readout = jax.random.normal(key, shape, jnp.float32)
        return self._mirror(readout, -readout).astype(x.dtype)

    @property
    def _free_units(self) -> int:
        return self.width // 2 if self.symmetric else self.width

    def _mirror(self, first: Array, second: Array) -> Array:
        return jnp.concatenate([first, second]) if self.symmetric else first


class TwoLayer(SingleHidden):
    """Two-layer network f(x) = (alpha / sqrt(m)) sum_r a_r sigma(w_r . x), without biases.

    The network of Arora et al. 2019, section 3.1, is the case alpha = 1, sigma = relu. The initial weights are
    w_r ~ N(0, kappa^2 I) and either a_r = +-1 or a_r ~ N(0, 1). The trained variables are the w_r and a_r themselves;
    `init` draws them in float32 and casts them to the dtype of its inputs, or to JAX's default dtype if the inputs are
    integers. relu'(0) is 0, as in JAX; in the paper it is 1.

    `init(key, x)` returns the arrays "hidden" of shape (m, d) and "readout" of shape (m, k). Trained arrays are in the
    collection "params", and all others are in "fixed". `apply(variables, x)` returns an array in the dtype of the
    variables, of shape (n,) for one output or (n, k) for several.

    Args:
        width: Number of hidden units, m, at least 1; must be even if `symmetric` is True.
        outputs: Number of outputs, k, at least 1.
        activation: "relu", "leaky_relu" (slope 0.01), "abs", "erf", "tanh", "gelu" (exact), "softplus", "sin",
            "sigmoid" or "silu", or an elementwise JAX function of one array.
        train: Part to train, "hidden" (w), "readout" (a) or "both".
        init_scale: Scale kappa of the hidden weights, a positive number or a function of the width.
        output_scale: Scale alpha of the outputs, a positive number or a function of the width.
        readout: Initial distribution of a, "sign" for +-1 or "gaussian" for N(0, 1).
        symmetric: Whether the second half of the units copies the first half with the signs of the readout flipped, so
            that f = 0 at initialization. The symmetry also cancels terms of f that are quadratic in the movement of the
            weights.

    Raises:
        ValueError: If an argument has an invalid value.

    >>> import jax, lazynet as lz
    >>> network = lz.TwoLayer(width=64)
    >>> variables = network.init(jax.random.key(0), jax.numpy.ones((5, 3)))
    >>> network.apply(variables, jax.numpy.ones((5, 3))).shape
    (5,)
    """

    @nn.compact
    def __call__(self, x: Num[AnyArray, "n d"]) -> Float[Array, " n"] | Float[Array, "n k"]:
        """Return the outputs, of shape (n,) or (n, k)."""
        x = floats(x)
        hidden, readout = self._weights(x)
        activation = get_activation(self.activation).function
        f = output_factor(self) * (activation(x @ hidden.T) @ readout)
        return f[:, 0] if self.outputs == 1 else f


def output_factor(network: SingleHidden) -> float:
    """Return the factor alpha / sqrt(m) in front of the sum over units."""
    return at_width(network.output_scale, network.width) / sqrt(network.width)


def weights(variables: Variables, name: str) -> AnyArray:
    """Return the trained or fixed array with the given name.

    Args:
        variables: Variables of the network.
        name: Name of the array. In a two-layer network, "hidden" has shape (m, d) and "readout" has shape (m, k).

    Returns:
        The array.

    Raises:
        ValueError: If `variables` contains no arrays, or if none of its arrays has this name.
    """
    parts = [variables.get(part) for part in ("fixed", "params")] if isinstance(variables, Mapping) else []
    collections = [part for part in parts if isinstance(part, Mapping)]
    arrays = {key: value for part in collections for key, value in part.items() if not isinstance(value, Mapping)}
    if not arrays:
        raise ValueError(
            f"variables must be a mapping with arrays under 'params' or 'fixed', got {described(variables)}."
        )
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(
            f"name must be one of the arrays in variables ({', '.join(map(str, arrays))}), got {described(name)}."
        )
    return arrays[name]


@traits.register(SingleHidden)
def single_hidden_traits(network: SingleHidden) -> Traits:
    """Return the traits that all networks derived from `SingleHidden` share."""
    name, activation = type(network).__name__, get_activation(network.activation)
    return Traits(
        name=name,
        title=f"{name}, {activation.name},",
        fields=setting_fields(network),
        start_fields=("init_scale",),
        custom=not activation.is_named,
        integers=False,
        starts_at_zero=network.symmetric,
        scaling=LayerScaling(PARAMETRIZATIONS["ntk"], 1, network.train, activation.homogeneous),
    )


@traits.register(TwoLayer)
def _two_layer_traits(network: TwoLayer) -> Traits:
    def preactivations(variables: Variables, x: AnyArray) -> list[Array]:
        return [jnp.asarray(x @ weights(variables, "hidden").T)]

    def neurons(variables: Variables) -> AnyArray:
        return weights(variables, "readout" if network.train == "readout" else "hidden")

    activation, signs, factor = get_activation(network.activation), network.readout == "sign", output_factor(network)
    bound = None
    if network.train == "hidden" and signs and activation.lipschitz is not None:
        bound = factor * activation.lipschitz * sqrt(network.outputs)
    return replace(
        single_hidden_traits(network),
        title=activation.name,
        hidden_layer=HiddenLayer(network.activation, factor, network.train, signs),
        preactivations=preactivations,
        neurons=neurons,
        neuron_gradient=bound,
        near_limit=True,
        kernel_of_signs=activation.relu_parts is not None and network.train == "hidden",
    )
