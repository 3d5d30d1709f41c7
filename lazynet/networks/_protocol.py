"""The protocol that every network follows, and the checks that a sweep makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.networks._cost import parameter_bytes
from lazynet.networks._traits import traits
from lazynet.typing import AnyArray, Variables


@runtime_checkable
class Network(Protocol):
    """A network of any family: a pure function of its variables, with a width that `clone` changes."""

    @property
    def width(self) -> int:
        """Number of units m of a hidden layer."""
        ...

    @property
    def outputs(self) -> int:
        """Number of outputs k."""
        ...

    def clone(self, **changes: Any) -> "Network":
        """Return the network with other fields."""
        ...

    def init(self, key: Array, x: AnyArray, /) -> Mapping[str, Any]:
        """Return the variables at the start in the dtype of x (n, d), with the trained arrays in "params"."""
        ...

    def apply(self, variables: Variables, x: AnyArray, /) -> Any:
        """Return the outputs as an array, (n,) for one output and (n, k) for more."""
        ...


def check_network(network: Any, x: AnyArray) -> None:
    """Check that a network follows the protocol and that its outputs for each row depend on that row alone.

    Args:
        network: what a user passed as a network.
        x: rows (n, d) to try it on, if it calls functions of the user's.

    Raises:
        ValueError: if a part of the protocol is missing, the network fails on such rows, or rows are not independent.
    """
    missing = [name for name in ("width", "outputs", "clone", "init", "apply") if not hasattr(network, name)]
    if missing:
        raise ValueError(
            f"network is a {type(network).__name__}, which has no {', '.join(missing)}; take one of lazynet's, or make "
            "one of your own by lazynet.from_flax, from_nnx, from_stax or from_functions."
        )
    if not traits(network).custom:
        return
    rows = jnp.asarray(x[:3], "float32")
    try:
        variables = jax.jit(network.init)(jax.random.key(0), rows)
        outputs = jax.jit(network.apply)
        f, alone = outputs(variables, rows), [outputs(variables, row[None]) for row in rows]
    except ValueError:
        raise
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"The network fails on rows of {x.shape[1]} features: {said}") from error
    gap = jnp.max(jnp.abs(f - jnp.concatenate(alone)))
    if not gap <= 1e-3 * (1e-3 + jnp.max(jnp.abs(f))):
        raise ValueError(
            "The network gives another output for a row when others stand beside it (batch norm?), or when it is built "
            "anew, or none that is finite; a tangent kernel is that of one function of one row."
        )


def check_members_differ(network: Network, widths: Sequence[int], seeds: Sequence[int], x: AnyArray) -> None:
    """Check that a network of the user's differs between two widths and between two seeds, if there are several.

    Raises:
        ValueError: if starts do not depend on the key, or the number of parameters does not depend on the width.
    """
    if not traits(network).custom:
        return
    if len(seeds) > 1:
        rows = jnp.asarray(x[:3], "float32")
        starts = (jax.tree.leaves(jax.jit(network.init)(jax.random.key(seed), rows)) for seed in (0, 1))
        if all(bool(jnp.array_equal(a, b)) for a, b in zip(*starts, strict=True)):
            raise ValueError(
                "The network starts from the same parameters whatever the key, so that seeds are all the same."
            )
    if len(widths) > 1:
        sizes = [parameter_bytes(network.clone(width=width), x.shape[1]) for width in (widths[0], widths[-1])]
        if sizes[0] == sizes[1]:
            raise ValueError(
                f"The network has as many parameters at width {widths[0]} as at width {widths[-1]}; does it leave its "
                "width out of account?"
            )


def layer_names(params: Any) -> list[str]:
    """The path of each trained array, such as "Dense_0/kernel", in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
