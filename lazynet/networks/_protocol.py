"""What sweeps ask of a network besides `init` and `apply`, found by its type."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.networks._adapters import Adapted
from lazynet.networks._centered import Centered
from lazynet.networks._conv import ConvNet, patch_preactivations
from lazynet.networks._deep import MLP, hidden_preactivations
from lazynet.networks._parametrization import get_parametrization
from lazynet.networks._two_layer import TwoLayer, weights
from lazynet.typing import AnyArray, Variables


def starts_at_zero(network: Any) -> bool:
    """Whether all outputs are zero at the start, but for rounding."""
    return isinstance(network, Centered) or bool(getattr(network, "symmetric", False))


@functools.singledispatch
def preactivations(network: Any, variables: Variables, x: AnyArray) -> list[Array] | None:
    """What enters the activations, (n, ...) for each hidden layer; None for a network of which nobody knows it."""
    return None


@preactivations.register(TwoLayer)
def _of_two_layer(network: TwoLayer, variables: Variables, x: AnyArray) -> list[Array]:
    return [jnp.asarray(x @ weights(variables, "hidden").T)]


@preactivations.register(MLP)
def _of_deep(network: MLP, variables: Variables, x: AnyArray) -> list[Array]:
    return hidden_preactivations(network, variables, x)


@preactivations.register(Centered)
def _of_centered(network: Centered, variables: Variables, x: AnyArray) -> list[Array] | None:
    return preactivations(network.network, variables, x)


@preactivations.register(ConvNet)
def _of_convolution(network: ConvNet, variables: Variables, x: AnyArray) -> list[Array]:
    return [patch_preactivations(network, variables, x)]


def learning_rate_exponent(network: Any) -> float | None:
    """c of the network's parametrization, with learning rates that go as m^(-c); None where there is none."""
    known = getattr(network, "parametrization", None)
    return None if known is None else get_parametrization(known).learning_rate


def described(network: Any) -> str:
    """What a person calls this network."""
    if isinstance(network, Centered):
        return described(network.network)
    return f"from_{network.kind}" if isinstance(network, Adapted) else type(network).__name__


def forward_cost(network: Any, n: int, d: int) -> tuple[float, int]:
    """Operations of the outputs of n rows of d features, about, and bytes of what is computed on the way in float32."""
    variables, x = _shapes(network, n, d)
    if isinstance(network, TwoLayer):
        return 2.0 * n * d * network.width, 4 * n * network.width
    traced = jax.jit(lambda variables, x: network.apply(variables, x)).trace(variables, x)
    cost = traced.lower().cost_analysis() or {}
    made = [v.aval for equation in traced.jaxpr.jaxpr.eqns for v in equation.outvars]
    return float(cost.get("flops", 0.0)), sum(4 * value.size for value in made)


def parameter_bytes(network: Any, d: int) -> int:
    """Bytes of all its variables in float32."""
    return sum(4 * leaf.size for leaf in jax.tree.leaves(_shapes(network, 1, d)[0]))


def _shapes(network: Any, n: int, d: int) -> tuple[Any, Any]:
    x = jax.ShapeDtypeStruct((n, d), "float32")
    return dict(jax.eval_shape(network.init, jax.random.key(0), x)), x


def check_network(network: Any, x: AnyArray) -> None:
    """Refuse what sweeps cannot train on rows like these (n, d), and a network whose rows see each other.

    Raises:
        ValueError: with the reason.
    """
    missing = [name for name in ("width", "outputs", "clone", "init", "apply") if not hasattr(network, name)]
    if missing:
        raise ValueError(
            f"network is a {type(network).__name__}, which has no {', '.join(missing)}; take one of lazynet's, or make "
            "one of your own by lazynet.from_flax, from_nnx, from_stax or from_functions."
        )
    if not isinstance(network, Adapted):
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


def check_members_differ(network: Any, widths: Sequence[int], seeds: Sequence[int], x: AnyArray) -> None:
    """Refuse a network of one's own that is the same at two widths or for two seeds, where there are several.

    Raises:
        ValueError: with the reason.
    """
    if not isinstance(network, Adapted):
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
