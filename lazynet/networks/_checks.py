"""Checks that an object is a network that a sweep can train."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp

from lazynet.networks._cost import parameter_bytes
from lazynet.networks._protocol import Network
from lazynet.networks._traits import traits
from lazynet.typing import AnyArray


def check_network(network: object, x: AnyArray) -> None:
    """Check that an object follows the `Network` protocol and maps each row independently of the others.

    Args:
        network: Object to check.
        x: Input rows, shape (n, d). Networks with user-supplied functions are evaluated on the first three rows.

    Raises:
        ValueError: If part of the protocol is missing, if the network fails on these rows, or if an output depends on
            other rows or is not finite.
    """
    missing = [name for name in ("width", "outputs", "clone", "init", "apply") if not hasattr(network, name)]
    if missing:
        raise ValueError(
            f"network must have the attributes width, outputs, clone, init and apply, got {type(network).__name__}, "
            f"which lacks {', '.join(missing)}. Use lazynet.from_flax, from_nnx, from_stax or from_functions to "
            "make a network."
        )
    if not traits(network).custom:
        return
    complete, rows = cast(Network, network), jnp.asarray(x[:3], "float32")
    try:
        variables = jax.jit(complete.init)(jax.random.key(0), rows)
        outputs = jax.jit(complete.apply)
        f, alone = outputs(variables, rows), [outputs(variables, row[None]) for row in rows]
    except ValueError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"The network fails on rows with {x.shape[1]} features: {reason}") from error
    gap = jnp.max(jnp.abs(f - jnp.concatenate(alone)))
    if not gap <= 1e-3 * (1e-3 + jnp.max(jnp.abs(f))):
        raise ValueError(
            "The network's output for a row is not finite, changes from call to call, or depends on other rows in the "
            "batch, as with batch norm. A tangent kernel needs finite outputs that each depend on a single row."
        )


def check_members_differ(network: Network, widths: Sequence[int], seeds: Sequence[int], x: AnyArray) -> None:
    """Check that a user-supplied network varies with the width and the seed, if several widths or seeds are given.

    Args:
        network: Network to check. Networks without user-supplied functions are not checked.
        widths: Widths in ascending order.
        seeds: Seeds.
        x: Input rows, shape (n, d).

    Raises:
        ValueError: If two keys yield the same initial parameters, or if two widths yield the same number of parameters.
    """
    if not traits(network).custom:
        return
    if len(seeds) > 1:
        init, rows = jax.jit(network.init), jnp.asarray(x[:3], "float32")
        starts = (jax.tree.leaves(init(jax.random.key(seed), rows)) for seed in (0, 1))
        if all(bool(jnp.array_equal(a, b)) for a, b in zip(*starts, strict=True)):
            raise ValueError(
                "The network has the same initial parameters for every key. Use the key to draw the parameters, or use "
                "seeds=1."
            )
    if len(widths) > 1:
        sizes = [parameter_bytes(network.clone(width=width), x.shape[1]) for width in (widths[0], widths[-1])]
        if sizes[0] == sizes[1]:
            raise ValueError(
                f"The network has the same number of parameters at widths {widths[0]} and {widths[-1]}. Its layers "
                "must depend on the width."
            )
