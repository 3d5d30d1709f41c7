"""A network linearised in its trained parameters, trainable like any other."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from lazynet.typing import Variables


@dataclass(frozen=True)
class Linearized:
    """f_lin(x; theta) = f(x; theta_0) + J(x; theta_0) (theta - theta_0), with theta_0 in the collection "origin".

    Lee et al. 2019, section 2.2. Only "params" (theta) is trained; J is never formed.
    """

    network: Any

    def at(self, variables: Variables) -> Variables:
        """Variables of the linearised network at the point where it is linearised."""
        return {**variables, "origin": variables["params"]}

    def apply(self, variables: Variables, x: Array) -> Array:
        """Outputs of the linearised network, shaped as the network's own."""
        rest = {name: value for name, value in variables.items() if name not in ("params", "origin")}
        origin = variables["origin"]
        move = jax.tree.map(lambda now, start: now - start, variables["params"], origin)
        f, tangent = jax.jvp(lambda params: self.network.apply({**rest, "params": params}, x), (origin,), (move,))
        return f + tangent
