"""Networks that start training from user-supplied variables."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jax import Array

from lazynet.arguments import calls_of, described
from lazynet.arrays import floating_dtype, with_floats_as
from lazynet.networks._checks import check_protocol, check_variables
from lazynet.networks._protocol import Network
from lazynet.networks._traits import Traits, traits
from lazynet.networks._wrapped import Wrapped
from lazynet.typing import AnyArray, Variables

Start = Callable[[Array, int], Variables]


@dataclass(frozen=True)
class Started(Wrapped):
    """A network with a user-supplied initialization, as returned by `lazynet.with_start`.

    Attributes that this class does not define are taken from `network`.

    Attributes:
        network: The network whose initialization is replaced.
        start: Function that maps (key, width) to the initial variables of a network of that width.
    """

    start: Start

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Return the variables from `start` for the key and the network's width, in the floating-point dtype of x.

        Raises:
            ValueError: If these variables do not have the names and shapes that the network expects.
        """
        with calls_of("start"):
            variables = self.start(key, self.width)
        check_variables(self.network, variables, x)
        converted: Variables = with_floats_as(floating_dtype(x), dict(variables))
        return converted

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Return the outputs of the network."""
        f: Array = self.network.apply(variables, x)
        return f


def with_start(network: Network, start: Start) -> Started:
    """Replace the initialization of a network, for example with pretrained weights.

    The resulting network has no known infinite-width kernel and no predicted exponents. Sweeps compare it only with its
    linearization and its own initial kernel.

    Args:
        network: The network; a sweep overrides its width.
        start: Function `start(key, width)` that returns the initial variables of a network of this width, in the form
            that `network.init` returns. In a sweep, the key is fold_in(member_key(width, seed), 0), which is the key
            that `network.init` would have received.

    Returns:
        A network that implements the protocol `lazynet.networks.Network`.

    Raises:
        ValueError: If an argument is invalid or, on first use, if the variables do not have the names and shapes that
            the network expects.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> network, x = lz.TwoLayer(width=64), jax.numpy.asarray(data.x_train, "float32")
    >>> doubled = lambda key, width: jax.tree.map(lambda w: 2 * w, network.clone(width=width).init(key, x))
    >>> run = lz.train(lz.with_start(network, doubled), data, lz.member_key(64, 0), steps=5, learning_rate=0.01)
    >>> run.variables_0["params"]["hidden"].shape
    (64, 64)
    """
    check_protocol(network)
    if not callable(start):
        raise ValueError(f"start must be a function with the signature start(key, width), got {described(start)}.")
    return Started(network, start)


@traits.register(Started)
def _started_traits(network: Started) -> Traits:
    return replace(
        traits(network.network),
        custom=True,
        starts_at_zero=False,
        hidden_layer=None,
        learning_rate_exponent=None,
        scaling=None,
    )
