"""Networks with their initial outputs subtracted, as in Chizat et al. 2019 and Geiger et al. 2019."""

from dataclasses import dataclass, replace
from typing import ClassVar

from jax import Array

from lazynet.networks._traits import Traits, traits
from lazynet.networks._wrapped import Wrapped
from lazynet.typing import AnyArray, Variables


@dataclass(frozen=True)
class Centered(Wrapped):
    """The network f(x; theta) - f(x; theta_0), which is zero at initialization and has the same kernel as f.

    The collection "origin" contains theta_0. Attributes that this class does not define are taken from `network`.

    Attributes:
        network: Network f.
    """

    centered: ClassVar[bool] = True

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Return the initial variables of the network, with the parameters also stored in the collection "origin"."""
        variables = dict(self.network.init(key, x))
        return {**variables, "origin": variables["params"]}

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Return the outputs minus the initial outputs, as an array of shape (n,) or (n, k)."""
        now = {name: value for name, value in variables.items() if name != "origin"}
        f: Array = self.network.apply(now, x)
        return f - self.network.apply({**now, "params": variables["origin"]}, x)


@traits.register(Centered)
def _centered_traits(network: Centered) -> Traits:
    facts = traits(network.network)
    return replace(
        facts,
        fields=(*facts.fields, "centered"),
        starts_at_zero=True,
        hidden_layer=None,
        neurons=None,
        neuron_gradient=None,
    )
