"""The empirical tangent kernel of any differentiable network in blocks of rows, within the memory that it may take."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lazynet.kernels._layerwise import Layer, function_of, layers_of, product_of
from lazynet.plan import Blocks, plan_blocks
from lazynet.typing import Variables

# Rows of a block at most: the more, the more of a symmetric kernel is computed twice.
BLOCK = 128


class Programs(NamedTuple):
    """Both compiled programs for blocks of some number of rows, and bytes: beside the layers held, and of a block's."""

    layers: Any
    product: Any
    beside: int
    held: int


class Blockwise:
    """The empirical kernel of a network at its variables, which have the dtype to compute in.

    Args:
        network: as `empirical_ntk` takes it.
        variables: its variables.
        outputs: "average" or "all".
        parts: whether to keep the arrays of "params" apart.
    """

    def __init__(self, network: Any, variables: Variables, outputs: str, parts: bool) -> None:
        """Nothing is computed before the first call."""
        self.network, self.variables = as_static(network), variables
        self.options = {"average": outputs == "average", "parts": parts}
        self._compiled: dict[int, Programs] = {}
        self.dtype = jnp.result_type(*jax.tree.leaves(variables["params"]))

    def programs(self, rows: int, features: tuple[int, ...]) -> Programs:
        """What computes a block of so many rows; JAX keeps it for other calls too, but takes a while to find it."""
        if rows not in self._compiled:
            self._compiled[rows] = self._compile(rows, features)
        return self._compiled[rows]

    def _compile(self, rows: int, features: tuple[int, ...]) -> Programs:
        x = jax.ShapeDtypeStruct((rows, *features), self.dtype)
        lowered = layers_of.lower(self.network, self.variables, x)
        made, layers = lowered.out_info, lowered.compile()
        product = product_of.lower(made, made, **self.options).compile()
        held = _nbytes(made)
        # A block is copied twice where it is made symmetric.
        of_product = _taken(product) + 2 * _nbytes(product.out_info)
        beside = _nbytes(self.variables) + 2 * _nbytes(x) + max(_taken(layers), held + of_product)
        return Programs(layers, product, beside, held)

    def needed(self, rows: int, features: tuple[int, ...]) -> tuple[int, int]:
        """Bytes that blocks of so many rows take beside the layers held, and those of a block's layers."""
        return self.programs(rows, features)[2:]

    def plan(self, n: int, features: tuple[int, ...], memory: int) -> Blocks:
        """How a kernel with n rows at most on a side is computed in so many bytes.

        Raises:
            ValueError: if one row against one row does not fit.
        """
        what = "One row of the empirical kernel against one row"
        return plan_blocks(what, n, BLOCK, memory, lambda rows: self.needed(rows, features))

    def __call__(self, x1: np.ndarray, x2: np.ndarray | None, *, memory: int, dtype: str) -> dict[int, np.ndarray]:
        """The kernel (n1, k, n2, k) in this dtype, or (n1, 1, n2, 1) of the average.

        It goes by the place of an array among those of "params", or is whole under 0.
        """
        symmetric, other = x2 is None, x1 if x2 is None else x2
        n1, n2, features = len(x1), len(other), x1.shape[1:]
        rows, held = self.plan(max(n1, n2), features, memory)
        layers, product, _, _ = self.programs(rows, features)
        kernel: dict[int, np.ndarray] = {}

        def at(x: np.ndarray, start: int) -> list[Layer]:
            part = x[start : start + rows]
            full = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            # A program still running would hold its memory beside that of the next.
            return jax.block_until_ready(layers(self.variables, jnp.asarray(full, self.dtype)))

        def put(i: int, left: list[Layer], j: int, right: list[Layer]) -> None:
            for place, filled in product(left, right).items():
                block = np.asarray(filled)[: n1 - i, :, : n2 - j]
                k = block.shape[1]
                if symmetric and i == j:
                    block = (block + block.transpose(2, 3, 0, 1)) / 2
                if place not in kernel:
                    kernel[place] = np.zeros((n1, k, n2, k), dtype)
                whole = kernel[place]
                whole[i : i + rows, :, j : j + rows] = block
                if symmetric and i != j:
                    whole[j : j + rows, :, i : i + rows] = block.transpose(2, 3, 0, 1)

        def add(j: int, right: list[Layer], mine: list[tuple[int, list[Layer]]]) -> None:
            for i, left in mine:
                put(i, left, j, right)

        def add_rows(first: int, last: int) -> None:
            mine: list[tuple[int, list[Layer]]] = []
            for i in range(first, last, rows):
                mine.append((i, at(x1, i)))
                if symmetric:
                    add(i, mine[-1][1], mine)
            for j in range(last if symmetric else 0, n2, rows):
                # Without a name, or it would be held while the next one is computed.
                add(j, at(other, j), mine)

        for first in range(0, n1, rows * held):
            add_rows(first, min(first + rows * held, n1))
        return kernel


def as_static(network: Any) -> Any:
    """The network as something that JAX can tell apart: itself, or a new object around it."""
    try:
        hash(network)
    except TypeError:
        return _Held(network)
    return network


class _Held:
    """A network that has no hash, for the length of one call."""

    def __init__(self, network: Any) -> None:
        self.apply = function_of(network)


def _taken(program: Any) -> int:
    """Bytes that a compiled program takes beside its arguments."""
    bytes_of = program.memory_analysis()
    return bytes_of.temp_size_in_bytes + bytes_of.output_size_in_bytes


def _nbytes(tree: Any) -> int:
    """Bytes of arrays, or of what has their shape and dtype."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
