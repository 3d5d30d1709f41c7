"""A network's Taylor polynomials in its trained parameters, trainable like any other network."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.networks._traits import Traits, traits
from lazynet.typing import AnyArray, Variables


@dataclass(frozen=True)
class Linearized:
    """f_lin(x; theta) = f(x; theta_0) + J(x; theta_0) (theta - theta_0), with theta_0 in the collection "origin".

    Lee et al. 2019, section 2.2. Only "params" (theta) is trained; J is never formed.
    """

    network: Any
    order: ClassVar[int] = 1

    def at(self, variables: Variables) -> Variables:
        """Variables of the polynomial at the point where it is expanded."""
        return {**variables, "origin": variables["params"]}

    def apply(self, variables: Variables, x: Array) -> Array:
        """Outputs of the polynomial, shaped as the network's own."""
        rest = {name: value for name, value in variables.items() if name not in ("params", "origin")}
        origin = variables["origin"]
        move = jax.tree.map(lambda now, start: now - start, variables["params"], origin)

        def first_two(params: Any) -> tuple[Array, Array]:
            return jax.jvp(lambda params: self.network.apply({**rest, "params": params}, x), (params,), (move,))

        if self.order == 1:
            f, tangent = first_two(origin)
            return f + tangent
        # Along the movement, the derivative of value and first derivative is the first and the second one.
        (f, tangent), (_, curvature) = jax.jvp(first_two, (origin,), (move,))
        return f + tangent + 0.5 * curvature


@dataclass(frozen=True)
class Quadratic(Linearized):
    """f_lin(x; theta) + 1/2 (theta - theta_0)' H(x; theta_0) (theta - theta_0), H never formed.

    Bai and Lee 2019, section 2. Under relu, whose second derivative is 0, it is the network with all signs frozen as at
    theta_0, up to terms of third order in the movement: with two trained layers its part of second order is the
    pseudo-network a D_v V' D_w W' x of Allen-Zhu, Li and Liang 2018, section 6.2.
    """

    order: ClassVar[int] = 2


@dataclass(frozen=True, eq=False)
class Expansion:
    """A Taylor polynomial at given variables, which `lz.linearize` and `lz.quadratic` return: a network of one width.

    Attributes:
        polynomial: `Linearized` or `Quadratic`.
        variables: those of the network at which it is expanded, and where it starts whatever the key.
    """

    polynomial: Linearized
    variables: Variables

    @property
    def width(self) -> int:
        """That of the network."""
        return self.polynomial.network.width

    @property
    def outputs(self) -> int:
        """Those of the network."""
        return self.polynomial.network.outputs

    def clone(self, **changes: Any) -> "Expansion":
        """Itself.

        Raises:
            ValueError: if another width is asked for, which its variables do not have.
        """
        if changes.get("width", self.width) != self.width or set(changes) - {"width"}:
            raise ValueError(f"An expansion at given variables has their width {self.width} and no other settings.")
        return self

    def init(self, key: Array, x: AnyArray) -> Variables:
        """The variables at which it is expanded, in the dtype of x."""
        cast = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(x.dtype), dict(self.variables))
        return self.polynomial.at(cast)

    def apply(self, variables: Variables, x: Array) -> Array:
        """Outputs of the polynomial."""
        return self.polynomial.apply(variables, x)


def linearize(network: Any, variables: Variables) -> Expansion:
    """The network linearized in its trained parameters at these variables: a model of its own, of the same kernel.

    Args:
        network: anything with `width`, `outputs` and `apply(variables, x)`.
        variables: where, as `network.init` gives them.

    Returns:
        A network for `lz.train` and the like, which starts at these variables. What full-batch descent makes of it on
        the squared loss is `lz.kernel_descent` with the empirical kernel there.

    Raises:
        ValueError: if the variables have no "params".

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> network = lz.TwoLayer(width=64)
    >>> linear = lz.linearize(network, network.init(jax.random.key(0), jax.numpy.asarray(data.x_train, "float32")))
    >>> bool(lz.train(linear, data, jax.random.key(0), steps=10).snapshots.kernel_drift[-1] < 1e-5)
    True
    """
    return _expansion(Linearized(network), variables)


def quadratic(network: Any, variables: Variables) -> Expansion:
    """The network's Taylor polynomial of order 2 in its trained parameters at these variables, a model of its own.

    Args:
        network: as in `linearize`.
        variables: where, as `network.init` gives them.

    Returns:
        A network for `lz.train` and the like, which starts at these variables. Of relu networks with two trained layers
        its second-order part is the pseudo-network of Allen-Zhu, Li and Liang 2018.

    Raises:
        ValueError: if the variables have no "params".

    >>> import jax, lazynet as lz
    >>> network, x = lz.TwoLayer(width=64, activation="tanh"), jax.numpy.ones((5, 3))
    >>> lz.quadratic(network, network.init(jax.random.key(0), x)).outputs
    1
    """
    return _expansion(Quadratic(network), variables)


def _expansion(polynomial: Linearized, variables: Variables) -> Expansion:
    if "params" not in variables:
        raise ValueError(f"variables has {', '.join(map(repr, variables))}, but must have 'params'.")
    return Expansion(polynomial, variables)


@traits.register(Expansion)
def _expansion_traits(network: Expansion) -> Traits:
    return Traits(name="Expansion", title="Network Expansion", custom=False)
