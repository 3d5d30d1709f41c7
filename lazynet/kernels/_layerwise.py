"""The empirical tangent kernel of any differentiable network, from the inputs and gradients of its layers."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from lazynet.kernels._tracing import Dense, evaluate, trace, uses
from lazynet.programs import compiled
from lazynet.typing import Variables


class Layer(NamedTuple):
    """Gradients of the outputs by one value of the network, and what the arrays that enter there are multiplied by.

    Row i of the Jacobian of output c by such an array is the outer product of inputs_i and gradients_ic; inputs that
    are None are 1. An array that is in no dense layer is a value of its own, and its gradients are its Jacobian.
    """

    gradients: Float[Array, "n k _"]
    inputs: dict[int, Float[Array, "n _"] | None]


@compiled(static_argnames="network")
def layers_of(network: Any, variables: Variables, x: Float[Array, "n ..."]) -> list[Layer]:
    """What the kernel of these rows is made of; arrays go by their place among those of "params".

    Raises:
        ValueError: if the outputs of one row are not floats (1,) or (1, k), or depend on no array.
    """
    arrays, structure = jax.tree.flatten(variables["params"])
    fixed = {name: value for name, value in variables.items() if name != "params"}

    def outputs(arrays: list[Array], fixed: Variables, row: Array) -> Array:
        params = jax.tree.unflatten(structure, arrays)
        return _check_outputs(function_of(network)({**fixed, "params": params}, row))

    program = trace(outputs, arrays, fixed, x[:1])
    entries = uses(program, program.arguments[: len(arrays)], program.arguments[-1])
    if not entries:
        raise ValueError("variables['params'] has no array that the outputs of network depend on.")
    dense = {place: use for place, use in entries.items() if use is not None}
    general = [place for place, use in entries.items() if use is None]
    shifts = {use.output: program.zeros(use.output) for use in dense.values()}

    def of_row(row: Array) -> list[Layer]:
        given = [*arrays, *jax.tree.leaves(fixed), row[None]]

        def shifted(shifts: dict[int, Array], chosen: dict[int, Array]) -> tuple[Array, dict[int, Array | None]]:
            read = evaluate(program, [chosen.get(place, value) for place, value in enumerate(given)], shifts)
            return read(program.results[0]), {place: _inputs(use, read, x.dtype) for place, use in dense.items()}

        f, pullback, inputs = jax.vjp(shifted, shifts, {place: arrays[place] for place in general}, has_aux=True)
        by_value, by_array = jax.vmap(pullback)(jnp.eye(f.size, dtype=f.dtype))
        layers = [
            Layer(gradient, {place: inputs[place] for place, use in dense.items() if use.output == value})
            for value, gradient in by_value.items()
        ]
        layers += [Layer(jacobian, {place: None}) for place, jacobian in by_array.items()]
        # Sizes in full, since an array may be empty.
        return [
            Layer(gradients.reshape(f.size, prod(gradients.shape[1:])).astype(x.dtype), inputs)
            for gradients, inputs in layers
        ]

    return jax.vmap(of_row)(x)


def _inputs(use: Dense, read: Callable[[Any], Array], dtype: Any) -> Array | None:
    """What an array of a dense layer is multiplied by, with the scales of the array; None for 1."""
    if use.input is None and not use.scales:
        return None
    inputs = jnp.ones(1, dtype) if use.input is None else jnp.ravel(read(use.input)).astype(dtype)
    for operation, value in use.scales:
        scale = jnp.reshape(jnp.asarray(read(value), dtype), 1)
        inputs = inputs * scale if operation == "mul" else inputs / scale
    return inputs


def function_of(network: Any) -> Callable[[Variables, Array], Array]:
    """The function `apply(variables, x)` of a network, or the network where it is such a function itself."""
    return getattr(network, "apply", network)


def _check_outputs(f: Any) -> Array:
    """The outputs (k,) of one row."""
    if not isinstance(f, Array):
        raise ValueError(f"network gives a {type(f).__name__} for one row, but must give floats (1,) or (1, k).")
    if f.ndim not in (1, 2) or len(f) != 1 or not jnp.issubdtype(f.dtype, jnp.floating):
        raise ValueError(f"network gives {f.dtype} {f.shape} for one row, but must give floats (1,) or (1, k).")
    return jnp.ravel(f)


@compiled(static_argnames=("average", "parts"))
def product_of(left: list[Layer], right: list[Layer], *, average: bool, parts: bool) -> dict[int, Array]:
    """The kernel (n1, k, n2, k), or (n1, 1, n2, 1) of the average, by place of the array, or whole under 0."""
    blocks: dict[int, Array] = {}
    for one, two in zip(left, right, strict=True):
        (n1, k, size), n2 = one.gradients.shape, len(two.gradients)
        # For the average, one product sums over outputs too.
        apart, summed = (1, k) if average else (k, 1)
        rows, columns = (a.reshape(len(a) * apart, summed * size) for a in (one.gradients, two.gradients))
        gradients = (rows @ columns.T).reshape(n1, apart, n2, apart) / summed
        for place in one.inputs:
            a, b = one.inputs[place], two.inputs[place]
            block = gradients if a is None or b is None else gradients * (a @ b.T).reshape(n1, 1, n2, 1)
            key = place if parts else 0
            blocks[key] = blocks[key] + block if key in blocks else block
    return blocks
