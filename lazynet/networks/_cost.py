"""Estimates of the operations and memory needed to compute a network's outputs, gradients and kernels."""

from typing import Any

import jax

from lazynet.networks._protocol import Network, initial_shapes
from lazynet.networks._traits import traits
from lazynet.networks._two_layer import TwoLayer
from lazynet.programs import once


def forward_operations(network: Network, n: int, d: int, dtype: Any = "float32") -> float:
    """Estimate the number of operations needed to compute the outputs of a network.

    Args:
        network: Network of any type.
        n: Number of input rows.
        d: Number of features per row.
        dtype: Dtype of the rows, which is an integer type for token ids.

    Returns:
        The number of floating-point operations.
    """
    if traits(network).hidden_layer is not None:
        return 2.0 * n * d * network.width
    return float((_traced(network, n, d, dtype).lower().cost_analysis() or {}).get("flops", 0.0))


@once
def _intermediate_bytes(network: Network, n: int, d: int, dtype: Any) -> int:
    """Return the total size in bytes of all intermediate values in the computation of the outputs, in float32."""
    values = [
        variable.aval for equation in _traced(network, n, d, dtype).jaxpr.jaxpr.eqns for variable in equation.outvars
    ]
    return sum(4 * value.size for value in values)


def _traced(network: Network, n: int, d: int, dtype: Any) -> Any:
    variables, x = initial_shapes(network, (d,), dtype), jax.ShapeDtypeStruct((n, d), dtype)
    return jax.jit(lambda variables, x: network.apply(variables, x)).trace(variables, x)


def gradient_operations(network: Network, n: int, d: int, dtype: Any = "float32") -> float:
    """Estimate the number of operations needed to compute the outputs and the gradient of a network.

    The gradient with respect to the trained weights and the gradient with respect to the activations of the lower
    layers each take as many operations as the outputs. A network with one hidden layer has no lower layers, and the
    cost of the gradient with respect to its readout is neglected.

    Args:
        network: Network of any type.
        n: Number of input rows.
        d: Number of features per row.
        dtype: Dtype of the rows, which is an integer type for token ids.

    Returns:
        The number of floating-point operations.
    """
    forward, layer = forward_operations(network, n, d, dtype), traits(network).hidden_layer
    if layer is None:
        return 3.0 * forward
    return (1.0 if layer.train == "readout" else 2.0) * forward


def kernel_operations(network: Network, n: int, d: int, dtype: Any = "float32") -> float:
    """Estimate the number of operations needed to compute the empirical kernel of a network.

    The kernel of a network with one hidden layer is computed from the slopes of the activation, and the kernel of any
    other network from the gradients of the individual outputs.

    Args:
        network: Network of any type.
        n: Number of input rows.
        d: Number of features per row.
        dtype: Dtype of the rows, which is an integer type for token ids.

    Returns:
        The number of floating-point operations.
    """
    if traits(network).hidden_layer is not None:
        return 2.0 * n**2 * network.width
    gradients = 2.0 * network.outputs * forward_operations(network, n, d, dtype)
    return gradients + 2.0 * n**2 * network.outputs * network.width


def step_bytes(network: Network, n: int, d: int, dtype: Any = "float32") -> int:
    """Estimate the number of bytes that a training step reads and writes.

    The estimate covers the weights and all intermediate values, in float32.

    Args:
        network: Network of any type.
        n: Number of input rows.
        d: Number of features per row.
        dtype: Dtype of the rows, which is an integer type for token ids.

    Returns:
        The number of bytes.
    """
    if traits(network).hidden_layer is not None:
        return 4 * network.width * (n + d)
    return parameter_bytes(network, d, dtype) + _intermediate_bytes(network, n, d, dtype)


def parameter_bytes(network: Network, d: int, dtype: Any = "float32") -> int:
    """Return the number of bytes that all variables of the network take up in float32."""
    return sum(4 * leaf.size for leaf in jax.tree.leaves(initial_shapes(network, (d,), dtype)))


def timing_network(width: int) -> TwoLayer:
    """Return a network that is trained with a hand-written gradient, for timing training steps.

    Args:
        width: Number of units, m.

    Returns:
        A `TwoLayer` network.
    """
    return TwoLayer(width=width)
