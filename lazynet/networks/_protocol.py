"""The `Network` protocol, which every network follows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
from jax import Array

from lazynet.typing import AnyArray, Variables


@runtime_checkable
class Model(Protocol):
    """Anything with outputs for given variables: a network, or a Taylor polynomial, which has no `init` of its own."""

    def apply(self, variables: Variables, x: AnyArray, /) -> Any:
        """Return the outputs as an array, of shape (n,) for one output or (n, k) for several."""
        ...


@runtime_checkable
class Network(Model, Protocol):
    """A network of any family: a pure function of variables and input rows, with a width that `clone` can change."""

    @property
    def width(self) -> int:
        """Number of units m in a hidden layer."""
        ...

    @property
    def outputs(self) -> int:
        """Number of outputs k."""
        ...

    def clone(self, **changes: Any) -> "Network":
        """Return a copy of the network with the given fields changed."""
        ...

    def init(self, key: Array, x: AnyArray, /) -> Mapping[str, Any]:
        """Return the initial variables in the dtype of x, with the trainable arrays in "params".

        The input rows x have shape (n, d).
        """
        ...


if TYPE_CHECKING:
    GivenNetwork = Network
else:
    # What users give for a network has its own check, `check_network`, with its own message.
    GivenNetwork = Any


def layer_names(params: Any) -> list[str]:
    """Return the path of each trained array, such as "Dense_0/kernel", in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
