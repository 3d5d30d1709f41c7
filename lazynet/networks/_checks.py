"""Checks for networks and their variables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arguments import calls_of, described
from lazynet.arrays import input_dtype, is_traced, network_rows
from lazynet.networks._cost import parameter_bytes
from lazynet.networks._protocol import Network, initial_shapes
from lazynet.networks._traits import traits
from lazynet.programs import compiled
from lazynet.typing import AnyArray, Variables


@compiled(static_argnames="network")
def _start(network: Network, key: Array, rows: Array) -> Variables:
    return dict(network.init(key, rows))


@compiled(static_argnames="network")
def _together_and_alone(network: Any, variables: Variables, rows: Array) -> tuple[Array, Array]:
    apply = getattr(network, "apply", network)
    return apply(variables, rows), jnp.concatenate([apply(variables, row[None]) for row in rows])


def check_model(network: object, *methods: str) -> None:
    """Check that an object can serve as a network: it must be an instance, not a class, and have the given methods.

    Args:
        network: Object to check.
        *methods: Names of the methods that the object must have.

    Raises:
        ValueError: If the object is a class or lacks a method.
    """
    missing = [name for name in methods if not callable(getattr(network, name, None))]
    if isinstance(network, type) or missing:
        lacks = f", which has no method {missing[0]}" if missing else ", which is a class. Pass an instance"
        raise ValueError(f"network must be a network instance, got {described(network)}{lacks}.")


def check_protocol(network: object) -> None:
    """Check that an object has all parts of the `Network` protocol.

    Args:
        network: Object to check.

    Raises:
        ValueError: If a part is missing.
    """
    check_model(network)
    missing = [name for name in ("width", "outputs", "clone", "init", "apply") if not hasattr(network, name)]
    if missing:
        raise ValueError(
            f"network must have the attributes width, outputs, clone, init and apply, got {type(network).__name__}, "
            f"which lacks {', '.join(missing)}. Use lazynet.from_flax, from_nnx, from_stax or from_functions to "
            "make a network."
        )


def check_params(variables: object) -> None:
    """Check that an argument can serve as the variables of a network: it must be a mapping with the key "params".

    Args:
        variables: Object to check.

    Raises:
        ValueError: If the argument is not a mapping, or if its "params" entry is missing or contains no arrays.
    """
    if not isinstance(variables, Mapping):
        raise ValueError(f"variables must be a mapping with the key 'params', got {described(variables)}.")
    if "params" not in variables:
        raise ValueError(f"variables must have the key 'params', got the keys {described(list(variables))}.")
    if not jax.tree.leaves(variables["params"]):
        raise ValueError("variables['params'] must contain at least one array, got none.")


def check_network(network: object, x: AnyArray) -> None:
    """Check that an object follows the `Network` protocol and maps each row independently of the others.

    Args:
        network: Object to check.
        x: Input rows, shape (n, d). Networks with user-supplied functions are evaluated on the first three rows.

    Raises:
        ValueError: If part of the protocol is missing, or if an output depends on other rows or is not finite. If the
            network fails on these rows, its own error is raised with a note.
    """
    check_protocol(network)
    if not traits(network).custom:
        return
    complete, rows = cast(Network, network), network_rows(x[:3], "float32")
    with calls_of("network"):
        check_rows_alone(complete, _start(complete, jax.random.key(0), rows), rows, strict=True)


def check_rows_alone(network: Any, variables: Variables, rows: Array, *, strict: bool = False) -> None:
    """Check that the outputs for a row do not depend on the other rows.

    Args:
        network: Hashable function of `(variables, x)`, or hashable object with a method `apply(variables, x)`.
        variables: Variables of the network.
        rows: A few input rows, shape (n, ...).
        strict: Whether to propagate errors raised by the network. By default, a network that raises an error passes
            the check.

    Raises:
        ValueError: If an output depends on other rows, changes from call to call, or is not finite.
    """
    try:
        f, alone = _together_and_alone(network, variables, rows)
        if f.shape == alone.shape and not jnp.any(f) and not jnp.any(alone):
            # If all outputs are zero, perturb the parameters to find out whether rows are mixed.
            f, alone = _together_and_alone(network, _moved(variables), rows)
    except Exception:
        if strict:
            raise
        return
    if f.shape != alone.shape:
        return
    if not jnp.max(jnp.abs(f - alone)) <= 1e-3 * (1e-3 + jnp.max(jnp.abs(f))):
        raise ValueError(
            "The network's output for a row is not finite, changes from call to call, or depends on other rows in the "
            "batch, as with batch norm. A tangent kernel needs finite outputs that each depend on a single row."
        )


def _moved(variables: Variables) -> Variables:
    """Return the variables with a different number added to each entry of every trained array."""

    def moved(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)

    return {**variables, "params": jax.tree.map(moved, variables["params"])}


def check_rows_apart(network: Any, variables: Variables, rows: Array) -> None:
    """Check, while JAX traces a function, that the outputs for a row do not depend on the other rows.

    The network is evaluated at numbers that stand for the entries of traced arrays. The outputs are not checked if this
    evaluation fails, if they are not finite, or if they depend on traced values that the network closes over.

    Args:
        network: Hashable function or object, as in `check_rows_alone`.
        variables: Variables of the network, possibly traced.
        rows: Input rows, possibly traced, shape (n, ...).

    Raises:
        ValueError: If an output depends on other rows or changes from call to call.
    """

    def numbers(leaf: Any) -> Any:
        if not is_traced(leaf):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return placeholder(leaf)
        return jnp.cos(jnp.arange(1, leaf.size + 1)).reshape(leaf.shape).astype(leaf.dtype)

    with jax.ensure_compile_time_eval():
        try:
            # The two rows differ even if their entries are integers.
            count = 2 * math.prod(rows.shape[1:])
            few = jnp.arange(count).reshape(2, *rows.shape[1:]) // (count // 2)
            if jnp.issubdtype(rows.dtype, jnp.floating):
                few = jnp.cos(few * count + jnp.arange(count).reshape(few.shape))
            concrete = jax.tree.map(numbers, variables)
            f, _ = _together_and_alone(network, concrete, few.astype(rows.dtype))
            checked = bool(jnp.isfinite(f).all())
        except Exception:
            return
        if checked:
            check_rows_alone(network, concrete, few.astype(rows.dtype))


def placeholder(leaf: Any) -> Array:
    """Return a fixed key if the leaf is a random key and zeros otherwise, with the leaf's shape and dtype.

    Args:
        leaf: Array, or an object with a shape and a dtype; its entries are not used.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


def check_variables(network: Any, variables: Variables, x: AnyArray) -> None:
    """Check that the variables have the names and shapes of the variables that the network's `init` returns.

    Args:
        network: Network, or another object with the methods `init` and `apply`. Objects that cannot be initialized
            from just a key and rows are not checked.
        variables: Variables of the network.
        x: Input rows, shape (n, ...).

    Raises:
        ValueError: If the variables belong to another network, such as one of a different width.
    """
    check_params(variables)
    if not (hasattr(network, "init") and hasattr(network, "apply")):
        return
    own = _own_shapes(network, np.shape(x)[1:], input_dtype(x, "float32"))
    if own is None:
        return
    for collection in sorted(own, key="params".__ne__):
        shapes = own[collection]
        given = _shapes_by_path(variables.get(collection, {}))
        for path in sorted(shapes.keys() | given.keys()):
            if shapes.get(path) != given.get(path):
                allowed = f"shape {shapes[path]}" if path in shapes else "no array"
                raise ValueError(
                    f"variables[{collection!r}] must have {allowed} at {path!r} for this network, got "
                    f"{given.get(path, 'no array')}. These variables belong to another network."
                )


def _own_shapes(
    network: Any, features: tuple[int, ...], dtype: np.dtype
) -> dict[str, dict[str, tuple[int, ...]]] | None:
    """Return the shape of each array in each collection of variables, or None if initialization fails."""
    try:
        variables = initial_shapes(network, features, dtype)
        return {name: _shapes_by_path(collection) for name, collection in variables.items()}
    except Exception:
        return None


def _shapes_by_path(params: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf) for path, leaf in leaves}


def check_members_differ(network: Network, widths: Sequence[int], seeds: Sequence[int], x: AnyArray) -> None:
    """Check that a user-supplied network varies with the width and the seed.

    The dependence on the width is checked only if several widths are given, and the dependence on the seed only if
    several seeds are given.

    Args:
        network: Network to check. Networks without user-supplied functions are not checked.
        widths: Widths of the sweep, in ascending order.
        seeds: Seeds of the sweep.
        x: Input rows, shape (n, d).

    Raises:
        ValueError: If two keys yield the same initial parameters, or if the smallest and the largest width yield the
            same number of parameters.
    """
    if not traits(network).custom:
        return
    if len(seeds) > 1:
        rows = network_rows(x[:3], "float32")
        starts = (jax.tree.leaves(_start(network, jax.random.key(seed), rows)) for seed in (0, 1))
        if all(bool(jnp.array_equal(a, b)) for a, b in zip(*starts, strict=True)):
            raise ValueError(
                "The network has the same initial parameters for every key. Use the key to draw the parameters, or use "
                "seeds=1."
            )
    if len(widths) > 1:
        dtype, ends = input_dtype(x, "float32"), (widths[0], widths[-1])
        sizes = [parameter_bytes(network.clone(width=width), x.shape[1], dtype) for width in ends]
        if sizes[0] == sizes[1]:
            raise ValueError(
                f"The network has the same number of parameters at widths {widths[0]} and {widths[-1]}. The sizes "
                "of its layers must depend on the width."
            )
