"""Facts about a network, in one record that each family registers for its type."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from lazynet.networks._activations import Function, get_activation
from lazynet.networks._parametrization import Parametrization
from lazynet.typing import AnyArray, Variables

# Fields that every flax module has, and the width, which a sweep sets.
NOT_SETTINGS = ("parent", "name", "width")


class HiddenLayer(NamedTuple):
    """The form f(x) = factor sigma(x W') a, with W the array "hidden" (m, d) and a the array "readout" (m, k).

    A network of this form trains with the hand-written steppers, has its empirical kernel computed from activations
    alone, and has costs in closed form.

    Attributes:
        activation: sigma, as `TwoLayer` takes it.
        factor: the factor in front of the sum over units.
        train: the trained part, "hidden", "readout" or "both".
        signs: True if the entries of the readout start at +1 or -1.
    """

    activation: str | Function
    factor: float
    train: str
    signs: bool

    @property
    def binary_slope(self) -> bool:
        """True if sigma' is 0 or 1 everywhere."""
        return get_activation(self.activation).binary_slope


class LayerScaling(NamedTuple):
    """How the layers of a network scale with its width; the verdict predicts exponents from it.

    Attributes:
        parametrization: powers of the width in front of the weights and at their start.
        depth: number of hidden layers.
        train: the trained part, "hidden", "readout" or "both".
        homogeneous: True if sigma(c z) = c sigma(z) for c > 0; None if the activation is unknown.
        biased: True if hidden layers have biases.
        named_layers: True if the trained arrays are named "hidden_1", "hidden_2", ... and "readout"; the verdict then
            predicts the movement of each.
    """

    parametrization: Parametrization
    depth: int
    train: str = "both"
    homogeneous: bool | None = None
    biased: bool = False
    named_layers: bool = False

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "LayerScaling":
        """Return the record from the JSON of its `_asdict()`."""
        (a1, a2, a3), (b1, b2, b3), rate = record["parametrization"]
        return cls(**{**record, "parametrization": Parametrization((a1, a2, a3), (b1, b2, b3), rate)})


@dataclasses.dataclass(frozen=True)
class Traits:
    """Facts about a network; the defaults suit any network that follows the protocol.

    Attributes:
        name: the family's name, in settings and errors.
        title: the network's name in the title of a figure.
        fields: the network's fields that settings record and axes vary. A field "output_scale" multiplies the outputs.
        start_fields: the fields among them that `init` reads and `apply` does not. Networks that differ in these alone
            share compiled programs.
        custom: True if the network calls functions of the user's, which fields do not identify. Sweeps then check that
            it maps rows independently, and stored runs record its outputs on a few rows.
        starts_at_zero: True if all outputs are zero at the start, up to rounding.
        hidden_layer: the form with one hidden layer, if the network has it.
        preactivations: function (variables, x) -> list of the inputs (n, ...) of each hidden layer's activation; None
            if they are unknown.
        neurons: function of the variables that returns the weights (m, ...) of each unit; None if units have none of
            their own.
        neuron_gradient: a bound on |df/dz_r| for each unit r over all inputs, in the norm over outputs, where the
            trained weights of unit r enter as z_r = w_r . x alone; None if there is no such bound.
        near_limit: True if empirical kernels at practical widths are so close to the infinite-width kernel that its
            learning rates and displacements hold for them.
        kernel_of_signs: True if the empirical kernel depends on the signs of the pre-activations alone.
        learning_rate_exponent: c, if default learning rates go as m^(-c) with the width m and fall with the square of
            the output scale; None for one learning rate at all widths.
        scaling: the exponents of the layers; None if theory predicts nothing.
    """

    name: str
    title: str
    fields: tuple[str, ...] = ()
    start_fields: tuple[str, ...] = ()
    custom: bool = True
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
def traits(network: Any) -> Traits:
    """Return the facts about a network that sweeps, kernels and theory ask for.

    A family registers its own record with `traits.register`; a subclass that registers none has its parent's. Kernels
    of infinite width register with `lazynet.analytic_kernel.register`.

    Args:
        network: any network.

    Returns:
        Traits. A family without a registration has the defaults, with the fields of its dataclass.

    >>> import lazynet as lz
    >>> from lazynet.networks import traits
    >>> traits(lz.TwoLayer(width=64)).starts_at_zero
    True
    """
    name = type(network).__name__
    return Traits(name, f"Network {name}", setting_fields(network))


def hidden_layer_of(network: Any) -> HiddenLayer:
    """Return the form with one hidden layer of a network that has it.

    Raises:
        TypeError: if the network has another form.
    """
    facts = traits(network)
    if facts.hidden_layer is None:
        raise TypeError(f"{facts.name} is not of the form factor sigma(x W') a with one hidden layer.")
    return facts.hidden_layer


def setting_fields(network: Any) -> tuple[str, ...]:
    """Names of a dataclass's fields that hold settings: all but the width and what flax adds."""
    if not dataclasses.is_dataclass(network):
        return ()
    return tuple(field.name for field in dataclasses.fields(network) if field.name not in NOT_SETTINGS)
