"""The `Network` protocol, which every network implements."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from lazynet.programs import once
from lazynet.typing import AnyArray, Variables


@runtime_checkable
class Model(Protocol):
    """Anything that computes outputs from variables: a network, or a Taylor polynomial, which has no `init` method."""

    def apply(self, variables: Variables, x: AnyArray, /) -> Any:
        """Compute the outputs.

        Args:
            variables: Variables of the network.
            x: Input rows, shape (n, d).

        Returns:
            The outputs as an array, of shape (n,) for one output or (n, k) for several.
        """
        ...


@runtime_checkable
class Network(Model, Protocol):
    """A network of any family: a pure function of variables and input rows, with a width that `clone` can change."""

    @property
    def width(self) -> int:
        """Number of units in each hidden layer, m."""
        ...

    @property
    def outputs(self) -> int:
        """Number of outputs, k."""
        ...

    def clone(self, **changes: Any) -> "Network":
        """Return a copy of the network with the given fields changed.

        Args:
            **changes: New values for fields, such as `width`.

        Returns:
            The copy.
        """
        ...

    def init(self, key: Array, x: AnyArray, /) -> Mapping[str, Any]:
        """Draw the initial variables.

        Args:
            key: JAX random key.
            x: Input rows, shape (n, d), which determine the shapes and the dtype of the variables.

        Returns:
            The variables in the dtype of `x`, with the trainable arrays in "params".
        """
        ...


if TYPE_CHECKING:
    GivenNetwork = Network
else:
    # At run time, `check_network` checks networks, with clearer error messages than those of a type checker.
    GivenNetwork = Any


def layer_names(params: Any) -> list[str]:
    """Return the path of each trained array, such as "Dense_0/kernel".

    Args:
        params: Trained arrays of a network, as a pytree.

    Returns:
        The paths, in the order of `jax.tree.leaves`.
    """
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]


def initial_shapes(network: Any, features: tuple[int, ...], dtype: Any) -> Variables:
    """Return the shapes and dtypes of the initial variables of a network.

    Args:
        network: Network of any type.
        features: Shape of one input row.
        dtype: Dtype of the rows, which is an integer type for token ids.

    Returns:
        The variables, with a `jax.ShapeDtypeStruct` in place of each array.
    """
    config: Any = jax.config
    return _initial_shapes(network, features, np.dtype(dtype), config.jax_enable_x64)


@once
def _initial_shapes(network: Any, features: tuple[int, ...], dtype: np.dtype, is_64_bit: bool) -> Variables:
    del is_64_bit  # Needed in the cache key, because JAX's default dtype depends on whether 64-bit mode is enabled.
    row = jax.ShapeDtypeStruct((1, *features), dtype)
    # JAX caches traces by function, so a new function is traced in each call.
    return dict(jax.eval_shape(lambda key, row: network.init(key, row), jax.random.key(0), row))
