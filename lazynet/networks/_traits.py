"""Records of network properties; each family of networks registers a record for its type."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from lazynet.networks._activations import Function, get_activation
from lazynet.networks._parametrization import Parametrization
from lazynet.typing import AnyArray, Variables

# Fields that are not settings: those that every flax module has, and the width, which a sweep sets.
NOT_SETTINGS = ("parent", "name", "width")


class HiddenLayer(NamedTuple):
    """The form f(x) = factor sigma(x W') a of a network with one hidden layer.

    W is the array "hidden" of shape (m, d), and a is the array "readout" of shape (m, k).

    A network of this form can be trained with the hand-written steppers. Its empirical kernel is computed from its
    activations and their slopes, without automatic differentiation of the network, and its costs are known in closed
    form.

    Attributes:
        activation: Activation sigma, a name or a function, as in `TwoLayer`.
        factor: Factor in front of the sum over units.
        train: Part that is trained, "hidden", "readout" or "both".
        signs: Whether every entry of the readout is +1 or -1 at initialization.
    """

    activation: str | Function
    factor: float
    train: str
    signs: bool

    @property
    def binary_slope(self) -> bool:
        """True if sigma' takes only the values 0 and 1."""
        return get_activation(self.activation).binary_slope


class LayerScaling(NamedTuple):
    """How a network's layers scale with its width. The verdict uses this record to predict exponents.

    Attributes:
        parametrization: Exponents of the width in the multipliers, initial scales and default learning rate.
        depth: Number of hidden layers.
        train: Trained part of the network: "hidden", "readout" or "both".
        homogeneous: Whether sigma(c z) = c sigma(z) for all c > 0, or None if this is unknown.
        biased: Whether the hidden layers have biases at initialization.
        train_bias: Whether the biases are trained. If `biased` is False, they start at zero.
        named_layers: Whether the trained arrays are named "hidden_1", "hidden_2", ..., "bias_1", "bias_2", ... and
            "readout"; if so, the verdict predicts the movement of each array.
    """

    parametrization: Parametrization
    depth: int
    train: str = "both"
    homogeneous: bool | None = None
    biased: bool = False
    train_bias: bool = False
    named_layers: bool = False

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "LayerScaling":
        """Rebuild a record from its JSON form.

        Args:
            record: JSON form of the dictionary returned by `_asdict()`.

        Returns:
            The record.
        """
        (a1, a2, a3), (b1, b2, b3), rate = record["parametrization"]
        return cls(**{**record, "parametrization": Parametrization((a1, a2, a3), (b1, b2, b3), rate)})


@dataclasses.dataclass(frozen=True)
class Traits:
    """Properties of a network; the defaults suit any network that follows the `Network` protocol.

    Attributes:
        name: Name of the network family, used in settings and error messages.
        title: Name of the network in figure titles.
        fields: Names of the fields that are recorded in settings and may be varied along the axes of a sweep. A field
            named "output_scale" must multiply the outputs.
        start_fields: Subset of `fields` that `init` reads but `apply` does not. Networks that differ only in these
            fields share compiled programs.
        custom: Whether the network calls user-supplied functions, which its fields do not identify. If so, sweeps check
            that it maps each row independently of the others, and stored runs record its outputs on a few rows.
        integers: Whether integer inputs, such as token ids, reach the network as integers. If not, they are converted
            to floating-point numbers first.
        starts_at_zero: Whether all outputs are zero at initialization, up to rounding error.
        hidden_layer: The `HiddenLayer` form of the network, or None if the network does not have this form.
        preactivations: Function that maps (variables, x) to a list of arrays, or None if the pre-activations are
            unknown. Each array has shape (n, ...) and contains the pre-activations of one hidden layer.
        neurons: Function that maps the variables to the weights of all units, shape (m, ...), or None if weights
            cannot be assigned to individual units.
        neuron_gradient: Upper bound on |df/dz_r| that holds for every unit r and every input, or None if there is no
            such bound. The norm is taken over the outputs. The trained weights of unit r must enter f only through
            z_r = w_r . x.
        near_limit: Whether learning rates and displacements computed from the infinite-width kernel also apply at
            practical widths, because the empirical kernels at these widths are close enough to that kernel.
        kernel_of_signs: Whether the empirical kernel depends only on the signs of the pre-activations.
        learning_rate_exponent: Exponent c such that default learning rates are proportional to m^(-c) / alpha^2 for
            width m and output scale alpha, or None if the default learning rate is the same at all widths.
        scaling: How the layers scale with the width, or None if the theory makes no predictions.
    """

    name: str
    title: str
    fields: tuple[str, ...] = ()
    start_fields: tuple[str, ...] = ()
    custom: bool = True
    integers: bool = True
    starts_at_zero: bool = False
    hidden_layer: HiddenLayer | None = None
    preactivations: Callable[[Variables, AnyArray], list[Array]] | None = None
    neurons: Callable[[Variables], AnyArray] | None = None
    neuron_gradient: float | None = None
    near_limit: bool = False
    kernel_of_signs: bool = False
    learning_rate_exponent: float | None = None
    scaling: LayerScaling | None = None


@functools.singledispatch
def traits(network: object) -> Traits:
    """Return the network properties on which sweeps, kernels and the theory rely.

    A family registers its own record with `traits.register`. A subclass without a record inherits its parent's record.
    Infinite-width kernels are registered with `lazynet.analytic_kernel.register`.

    Args:
        network: Any network.

    Returns:
        The traits. A family without a record has the default traits, with `fields` taken from its dataclass fields.

    >>> import lazynet as lz
    >>> from lazynet.networks import traits
    >>> traits(lz.TwoLayer(width=64)).starts_at_zero
    True
    """
    name = type(network).__name__
    return Traits(name, f"Network {name}", setting_fields(network))


def hidden_layer_of(network: object) -> HiddenLayer:
    """Return the `HiddenLayer` form of a network.

    Args:
        network: Network of any type.

    Returns:
        The `HiddenLayer` form.

    Raises:
        TypeError: If the network does not have this form.
    """
    facts = traits(network)
    if facts.hidden_layer is None:
        raise TypeError(f"network must have one hidden layer and compute factor * sigma(x W') a, got {facts.name}.")
    return facts.hidden_layer


def setting_fields(network: object) -> tuple[str, ...]:
    """Return the names of the dataclass fields that are settings, excluding the width and the fields that flax adds."""
    if not dataclasses.is_dataclass(network):
        return ()
    return tuple(field.name for field in dataclasses.fields(network) if field.name not in NOT_SETTINGS)
