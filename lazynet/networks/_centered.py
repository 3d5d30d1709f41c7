"""A network less its own start, which Chizat et al. 2019 and Geiger et al. 2019 scale to make it lazy."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jax import Array

from lazynet.networks._traits import Traits, traits
from lazynet.typing import AnyArray, Variables


@dataclass(frozen=True)
class Centered:
    """f(x; theta) - f(x; theta_0), with theta_0 in the collection "origin": zero at the start, of the same kernel.

    Whatever else is asked of it the network answers.
    """

    network: Any
    centered: ClassVar[bool] = True

    def __getattr__(self, name: str) -> Any:
        """That of the network."""
        # Whoever copies an object asks before it has a network.
        if name.startswith("_") or name == "network":
            raise AttributeError(name)
        return getattr(self.network, name)

    def clone(self, **changes: Any) -> "Centered":
        """Of the network with these changes."""
        return replace(self, network=self.network.clone(**changes))

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Variables of the network, and its parameters once more as they start."""
        variables = dict(self.network.init(key, x))
        return {**variables, "origin": variables["params"]}

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Outputs less those at the start, (n,) or (n, k)."""
        now = {name: value for name, value in variables.items() if name != "origin"}
        f: Array = self.network.apply(now, x)
        return f - self.network.apply({**now, "params": variables["origin"]}, x)


@traits.register(Centered)
def _centered_traits(network: Centered) -> Traits:
    known = traits(network.network)
    return replace(
        known,
        fields=(*known.fields, "centered"),
        starts_at_zero=True,
        hidden_layer=None,
        neurons=None,
        neuron_gradient=None,
    )
