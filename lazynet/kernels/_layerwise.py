"""Empirical tangent kernel of any differentiable network, computed from the inputs and gradients of its layers."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from lazynet.arguments import calls_of
from lazynet.kernels._tracing import Dense, evaluate, trace, uses
from lazynet.networks import Model
from lazynet.programs import compiled
from lazynet.typing import Variables

# A network, or a function of (variables, x).
Differentiable = Model | Callable[[Variables, Array], Array]


class Layer(NamedTuple):
    """Gradients of the outputs with respect to the value that a layer produces, and the inputs to that layer.

    The Jacobian of output c for row i with respect to an array of the layer is the outer product of inputs_i and
    gradients_ic. If a parameter array is used more than once or is not used in a dense layer, the array itself takes
    the place of the value, so the gradients are the Jacobian with respect to that array.

    Attributes:
        gradients: Gradients of the k outputs with respect to the value, shape (n, k, size).
        inputs: Dictionary whose keys are the positions of the layer's arrays in "params". Each value is the vector by
            which the array is multiplied, or None for the constant 1.
    """

    gradients: Float[Array, "n k _"]
    inputs: dict[int, Float[Array, "n _"] | None]


@compiled(static_argnames="network")
def layers_of(network: Differentiable, variables: Variables, x: Real[Array, "n ..."]) -> list[Layer]:
    """Compute the gradients and inputs for each layer of a network at every row of `x`.

    Args:
        network: Hashable network, as in `empirical_ntk`.
        variables: Variables of the network.
        x: Inputs, shape (n, ...).

    Raises:
        ValueError: If the outputs for one row are not floats of shape (1,) or (1, k), or do not depend on "params".
    """
    arrays, structure = jax.tree.flatten(variables["params"])
    fixed = {name: value for name, value in variables.items() if name != "params"}
    # If the inputs are integers, the gradients and inputs of the layers are returned in the dtype of the parameters.
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(*arrays)

    def outputs(arrays: list[Array], fixed: Variables, row: Array) -> Array:
        params = jax.tree.unflatten(structure, arrays)
        with calls_of("network"):
            f = function_of(network)({**fixed, "params": params}, row)
        return _check_outputs(f)

    program = trace(outputs, arrays, fixed, x[:1])
    entries = uses(program, program.arguments[: len(arrays)], program.arguments[-1])
    if not entries:
        raise ValueError("variables['params'] must contain arrays that the network's outputs depend on, got none.")
    dense = {position: use for position, use in entries.items() if use is not None}
    general = [position for position, use in entries.items() if use is None]
    shifts = {use.output: program.zeros(use.output) for use in dense.values()}

    def layers_at(row: Array) -> list[Layer]:
        arguments = [*arrays, *jax.tree.leaves(fixed), row[None]]

        def shifted(shifts: dict[int, Array], replaced: dict[int, Array]) -> tuple[Array, dict[int, Array | None]]:
            values = [replaced.get(position, value) for position, value in enumerate(arguments)]
            read = evaluate(program, values, shifts)
            return read(program.results[0]), {position: _inputs(use, read, dtype) for position, use in dense.items()}

        f, pullback, inputs = jax.vjp(
            shifted, shifts, {position: arrays[position] for position in general}, has_aux=True
        )
        by_value, by_array = jax.vmap(pullback)(jnp.eye(f.size, dtype=f.dtype))
        layers = [
            Layer(gradient, {position: inputs[position] for position, use in dense.items() if use.output == value})
            for value, gradient in by_value.items()
        ]
        layers += [Layer(jacobian, {position: None}) for position, jacobian in by_array.items()]
        # reshape cannot infer the size of an axis given as -1 if the array is empty.
        return [
            Layer(gradients.reshape(f.size, prod(gradients.shape[1:])).astype(dtype), inputs)
            for gradients, inputs in layers
        ]

    return jax.vmap(layers_at)(x)


def _inputs(use: Dense, read: Callable[[Any], Array], dtype: Any) -> Array | None:
    """Return the scaled vector by which the array of a dense layer is multiplied, or None for the constant 1."""
    if use.input is None and not use.scales:
        return None
    inputs = jnp.ones(1, dtype) if use.input is None else jnp.ravel(read(use.input)).astype(dtype)
    for operation, value in use.scales:
        scale = jnp.reshape(jnp.asarray(read(value), dtype), 1)
        inputs = inputs * scale if operation == "mul" else inputs / scale
    return inputs


def function_of(network: Differentiable) -> Callable[[Variables, Array], Array]:
    """Return `network.apply`, or the network itself if it is a function."""
    return network.apply if hasattr(network, "apply") else network


def _check_outputs(f: Any) -> Array:
    """Check the outputs for one row, and return them as an array of shape (k,)."""
    allowed = "network must return floats of shape (1,) or (1, k) for one row"
    if not isinstance(f, Array):
        raise ValueError(f"{allowed}, got {type(f).__name__}.")
    if f.ndim not in (1, 2) or len(f) != 1 or not jnp.issubdtype(f.dtype, jnp.floating):
        raise ValueError(f"{allowed}, got {f.dtype} of shape {f.shape}.")
    return jnp.ravel(f)


@compiled(static_argnames=("average", "parts"))
def product_of(left: list[Layer], right: list[Layer], *, average: bool, parts: bool) -> dict[int, Array]:
    """Compute the kernel between two sets of rows from their `Layer` tuples.

    Args:
        left: `Layer` tuples for n1 rows.
        right: `Layer` tuples for n2 rows.
        average: Whether to average over outputs.
        parts: Whether to return a separate contribution for each array instead of the sum.

    Returns:
        If `parts` is true, a dictionary that maps the position of each array in "params" to the contribution of that
        array. Otherwise, a dictionary that maps 0 to the whole kernel. The values have shape (n1, k, n2, k), or
        (n1, 1, n2, 1) for the average.
    """
    blocks: dict[int, Array] = {}
    for layer1, layer2 in zip(left, right, strict=True):
        (n1, k, size), n2 = layer1.gradients.shape, len(layer2.gradients)
        # For the average, the matrix product also sums over outputs.
        separate, summed = (1, k) if average else (k, 1)
        rows, columns = (a.reshape(len(a) * separate, summed * size) for a in (layer1.gradients, layer2.gradients))
        gradients = (rows @ columns.T).reshape(n1, separate, n2, separate) / summed
        for position in layer1.inputs:
            a, b = layer1.inputs[position], layer2.inputs[position]
            block = gradients if a is None or b is None else gradients * (a @ b.T).reshape(n1, 1, n2, 1)
            key = position if parts else 0
            blocks[key] = blocks[key] + block if key in blocks else block
    return blocks
