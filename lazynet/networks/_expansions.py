"""Taylor polynomials of a network in its trained parameters.

The polynomials can themselves be trained like any other network.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
from jax import Array

from lazynet.arrays import floating_dtype, with_floats_as
from lazynet.networks._checks import check_params, check_protocol, check_variables
from lazynet.networks._protocol import Model, Network
from lazynet.networks._traits import Traits, traits
from lazynet.typing import AnyArray, Variables


@dataclass(frozen=True)
class Linearized:
    """The linearized network f_lin(x; theta) = f(x; theta_0) + J(x; theta_0) (theta - theta_0).

    See Lee et al. 2019, section 2.2. The collection "params" contains theta, and "origin" contains theta_0. The
    Jacobian J is never formed.

    Attributes:
        network: Network f, with a method `apply(variables, x)`.
    """

    network: Model
    order: ClassVar[int] = 1

    def at(self, variables: Variables) -> Variables:
        """Return the variables of the network's Taylor polynomial about the given variables.

        Args:
            variables: Variables of the network.

        Returns:
            The variables of the polynomial, whose collections "params" and "origin" contain the same arrays.
        """
        return {**variables, "origin": variables["params"]}

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Compute the outputs of the polynomial.

        Args:
            variables: Variables of the polynomial, as returned by `at`, before or after training.
            x: Inputs, shape (n, d).

        Returns:
            The outputs, shape (n,) or (n, k).
        """
        rest = {name: value for name, value in variables.items() if name not in ("params", "origin")}
        origin = variables["origin"]
        move = jax.tree.map(lambda now, start: now - start, variables["params"], origin)

        def first_two(params: Any) -> tuple[Array, Array]:
            return jax.jvp(lambda params: self.network.apply({**rest, "params": params}, x), (params,), (move,))

        if self.order == 1:
            f, tangent = first_two(origin)
            return f + tangent

        # The derivative of (value, first derivative) along the movement is (first derivative, second derivative).
        def first_three(params: Any) -> tuple[Array, Array, Array]:
            (f, tangent), (_, curvature) = jax.jvp(first_two, (params,), (move,))
            return f, tangent, curvature

        if self.order == 2:
            f, tangent, curvature = first_three(origin)
            return f + tangent + 0.5 * curvature
        (f, tangent, curvature), (_, _, third) = jax.jvp(first_three, (origin,), (move,))
        return f + tangent + 0.5 * curvature + third / 6


@dataclass(frozen=True)
class Quadratic(Linearized):
    """The quadratic network f_lin(x; theta) + 1/2 (theta - theta_0)' H(x; theta_0) (theta - theta_0).

    See Bai and Lee 2019, section 2. The Hessian H is never formed. For relu, whose second derivative is 0, this is the
    network with its activation signs fixed at theta_0, up to third-order terms in the movement. If, in addition, two
    layers are trained, the second-order part is the pseudo-network a D_v V' D_w W' x of Allen-Zhu, Li and Liang 2018,
    section 6.2.
    """

    order: ClassVar[int] = 2


@dataclass(frozen=True)
class Cubic(Linearized):
    """The third-order Taylor polynomial of a network in its parameters.

    In two-layer networks with a fixed readout, the terms of second and third order in the movement change the outputs
    by amounts of the same order in the width. Therefore, at least the third order is needed to approximate the
    difference between a network and its linearization.
    """

    order: ClassVar[int] = 3


@dataclass(frozen=True, eq=False)
class Expansion:
    """A network of fixed width that evaluates a Taylor polynomial about the given variables.

    The functions `linearize` and `quadratic` return such networks.

    Attributes:
        polynomial: Instance of `Linearized` or `Quadratic`.
        variables: Variables of the network at the point of expansion. `init` returns these variables for every key.
    """

    polynomial: Linearized
    variables: Variables

    @property
    def width(self) -> int:
        """Width of the network."""
        return self._network.width

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return self._network.outputs

    @property
    def _network(self) -> Network:
        return cast(Network, self.polynomial.network)

    def clone(self, **changes: Any) -> "Expansion":
        """Return the expansion itself, because its width cannot change.

        Raises:
            ValueError: If a different width or any other field is given.
        """
        if changes.get("width", self.width) != self.width or set(changes) - {"width"}:
            fields = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            raise ValueError(
                f"changes must be empty or contain only width={self.width}, got {fields}. An expansion has a fixed "
                "width and no other fields that can be changed."
            )
        return self

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Return the variables at the point of expansion, cast to the floating-point dtype of x.

        Raises:
            ValueError: If the variables belong to another network.
        """
        check_variables(self._network, self.variables, x)
        return self.polynomial.at(with_floats_as(floating_dtype(x), dict(self.variables)))

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Return the outputs of the polynomial, of shape (n,) or (n, k)."""
        return self.polynomial.apply(variables, x)


def linearize(network: Network, variables: Variables) -> Expansion:
    """Linearize a network in its trained parameters about the given variables.

    Args:
        network: Network that implements the protocol `lazynet.networks.Network`.
        variables: Variables about which to expand the network, as returned by `network.init`.

    Returns:
        A network for `lz.train`, initialized at the given variables. Its kernel is the kernel of the original network
        at these variables. Training the linearization by full-batch gradient descent on the squared loss is equivalent
        to `lz.kernel_descent` with this kernel.

    Raises:
        ValueError: If `network` is not a network, or if `variables` has no "params" collection.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> network = lz.TwoLayer(width=64)
    >>> linear = lz.linearize(network, network.init(jax.random.key(0), jax.numpy.asarray(data.x_train, "float32")))
    >>> bool(lz.train(linear, data, jax.random.key(0), steps=10).snapshots.kernel_drift[-1] < 1e-5)
    True
    """
    return _expansion(Linearized(network), variables)


def quadratic(network: Network, variables: Variables) -> Expansion:
    """Expand a network to second order in its trained parameters about the given variables.

    Args:
        network: Network that implements the protocol `lazynet.networks.Network`.
        variables: Variables about which to expand the network, as returned by `network.init`.

    Returns:
        A network for `lz.train`, initialized at the given variables. For relu networks with two trained layers, its
        second-order part is the pseudo-network of Allen-Zhu, Li and Liang 2018, section 6.2.

    Raises:
        ValueError: If `network` is not a network, or if `variables` has no "params" collection.

    >>> import jax, lazynet as lz
    >>> network, x = lz.TwoLayer(width=64, activation="tanh"), jax.numpy.ones((5, 3))
    >>> lz.quadratic(network, network.init(jax.random.key(0), x)).outputs
    1
    """
    return _expansion(Quadratic(network), variables)


def _expansion(polynomial: Linearized, variables: Variables) -> Expansion:
    check_protocol(polynomial.network)
    check_params(variables)
    return Expansion(polynomial, variables)


@traits.register(Expansion)
def _expansion_traits(network: Expansion) -> Traits:
    integers = traits(network.polynomial.network).integers
    return Traits(name="Expansion", title="Network Expansion", custom=False, integers=integers)
