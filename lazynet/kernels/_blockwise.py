"""Empirical tangent kernel of any differentiable network, computed in blocks of rows within a memory limit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arrays import nbytes
from lazynet.kernels._layerwise import Differentiable, Layer, function_of, layers_of, product_of
from lazynet.plan import Blocks, available_memory, check_memory, plan_blocks
from lazynet.programs import program_of
from lazynet.typing import Variables

# Maximum number of rows per block. Blocks on the diagonal of a symmetric kernel are computed in full, so larger blocks
# would waste more work.
BLOCK = 128


class Programs(NamedTuple):
    """Compiled programs that process blocks with a given number of rows.

    Attributes:
        layers: Program that computes the `Layer` tuples (gradients and inputs) for a block of rows.
        product: Program that computes the kernel between two blocks of rows from their `Layer` tuples.
        working: Working memory in bytes, excluding the `Layer` tuples that are kept for reuse.
        held: Size in bytes of the `Layer` tuples for one block of rows.
        entries: Number of entries in the result for each pair of rows.
    """

    layers: Callable[..., list[Layer]]
    product: Callable[..., dict[int, jax.Array]]
    working: int
    held: int
    entries: int


class Blockwise:
    """Empirical kernel of a network at the given variables, computed in the dtype of the variables.

    Args:
        network: Network, as in `empirical_ntk`.
        variables: Variables of the network.
        outputs: "average" for the average over outputs, or "all" for all pairs of outputs.
        parts: Whether to return a separate contribution for each array in "params" instead of the sum.
        integers: Dtype in which integer inputs are passed to the network, or None to convert all inputs to the dtype of
            the parameters.
    """

    def __init__(
        self, network: Differentiable, variables: Variables, outputs: str, parts: bool, integers: Any = None
    ) -> None:
        """Store the arguments; programs are compiled on demand."""
        self.network, self.variables = as_static(network), variables
        self.options = {"average": outputs == "average", "parts": parts}
        self._compiled: dict[int, Programs] = {}
        self.dtype = jnp.result_type(*jax.tree.leaves(variables["params"])) if integers is None else integers

    def programs(self, rows: int, features: tuple[int, ...]) -> Programs:
        """Return the programs for blocks of `rows` rows, using a cache that is faster than JAX's own cache."""
        if rows not in self._compiled:
            self._compiled[rows] = self._compile(rows, features)
        return self._compiled[rows]

    def _compile(self, rows: int, features: tuple[int, ...]) -> Programs:
        x = jax.ShapeDtypeStruct((rows, *features), self.dtype)
        lowered = layers_of.lower(self.network, self.variables, x)
        layer_shapes, layers = lowered.out_info, program_of(lowered)
        product = program_of(product_of.lower(layer_shapes, layer_shapes, **self.options))
        held = nbytes(layer_shapes)
        # Symmetrizing a block on the diagonal makes two copies of it.
        product_bytes = _program_bytes(product) + 2 * nbytes(product.out_info)
        working = nbytes(self.variables) + 2 * nbytes(x) + max(_program_bytes(layers), held + product_bytes)
        entries = sum(block.size for block in jax.tree.leaves(product.out_info)) // rows**2
        return Programs(layers, product, working, held, entries)

    def needed(self, rows: int, features: tuple[int, ...]) -> tuple[int, int]:
        """Return the working memory and the size of one block's `Layer` tuples, in bytes, for blocks of `rows` rows."""
        return self.programs(rows, features)[2:4]

    def plan(self, n: int, features: tuple[int, ...], memory: int) -> Blocks:
        """Choose blocks so that the kernel for at most n x n pairs of rows can be computed within `memory` bytes.

        Raises:
            ValueError: If the kernel for a single pair of rows does not fit in the given memory.
        """
        name = "The empirical kernel for a single pair of rows"
        return plan_blocks(name, n, BLOCK, memory, lambda rows: self.needed(rows, features))

    def __call__(
        self, x1: np.ndarray, x2: np.ndarray | None, *, memory: int | None, dtype: str
    ) -> dict[int, np.ndarray]:
        """Compute the kernel for all pairs of rows, block by block.

        Args:
            x1: Inputs, shape (n1, ...).
            x2: Inputs, shape (n2, ...), or None to use `x1`.
            memory: Memory limit in bytes, not counting the result. If None, the working memory and the result must fit
                in the free memory.
            dtype: Dtype of the result.

        Returns:
            If `parts` is true, a dictionary that maps the position of each array in "params" to the contribution of
            that array. Otherwise, a dictionary that maps 0 to the whole kernel. The values have shape (n1, k, n2, k),
            or (n1, 1, n2, 1) for the average over outputs.

        Raises:
            ValueError: If the result does not fit in memory, or if the kernel for a single pair of rows exceeds the
                memory limit.
        """
        symmetric, other = x2 is None, x1 if x2 is None else x2
        n1, n2, features = len(x1), len(other), x1.shape[1:]
        free = available_memory() if memory is None else memory
        rows, _ = self.plan(max(n1, n2), features, free)
        result = np.dtype(dtype).itemsize * n1 * n2 * self.programs(rows, features).entries
        check_memory("The empirical kernel", result)
        rows, held = self.plan(max(n1, n2), features, free - result if memory is None else memory)
        layers, product, *_ = self.programs(rows, features)
        kernels: dict[int, np.ndarray] = {}

        def layers_at(x: np.ndarray, start: int) -> list[Layer]:
            part = x[start : start + rows]
            padded = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            # Waiting ensures that the memory used by one program is released before the next program starts.
            return jax.block_until_ready(layers(self.variables, jnp.asarray(padded, self.dtype)))

        def fill_block(i: int, left: list[Layer], j: int, right: list[Layer]) -> None:
            for position, padded in product(left, right).items():
                block = np.asarray(padded)[: n1 - i, :, : n2 - j]
                k = block.shape[1]
                if symmetric and i == j:
                    block = (block + block.transpose(2, 3, 0, 1)) / 2
                if position not in kernels:
                    kernels[position] = np.zeros((n1, k, n2, k), dtype)
                kernel = kernels[position]
                kernel[i : i + rows, :, j : j + rows] = block
                if symmetric and i != j:
                    kernel[j : j + rows, :, i : i + rows] = block.transpose(2, 3, 0, 1)

        def fill_column(j: int, right: list[Layer], held_layers: list[tuple[int, list[Layer]]]) -> None:
            for i, left in held_layers:
                fill_block(i, left, j, right)

        def fill_rows(first: int, last: int) -> None:
            held_layers: list[tuple[int, list[Layer]]] = []
            for i in range(first, last, rows):
                held_layers.append((i, layers_at(x1, i)))
                if symmetric:
                    fill_column(i, held_layers[-1][1], held_layers)
            for j in range(last if symmetric else 0, n2, rows):
                # Assigning the layers to a variable would keep them alive while the next layers are computed.
                fill_column(j, layers_at(other, j), held_layers)

        for first in range(0, n1, rows * held):
            fill_rows(first, min(first + rows * held, n1))
        return kernels


def as_static(network: Differentiable) -> Differentiable:
    """Make the network usable as a static argument to `jax.jit` by wrapping it if it is not hashable."""
    try:
        hash(network)
    except TypeError:
        return _HashableNetwork(network)
    return network


class _HashableNetwork:
    """Hashable wrapper for an unhashable network; distinct wrappers are never equal."""

    def __init__(self, network: Differentiable) -> None:
        self.apply: Callable[..., Array] = function_of(network)


def _program_bytes(program: Any) -> int:
    """Return the number of bytes that a compiled program allocates for temporaries and outputs."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes
