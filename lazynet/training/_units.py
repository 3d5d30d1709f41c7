"""Units of a network in blocks, on one device or shared over several, and sums over them that give the same digits."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lazynet.typing import AnyArray

# Units to a block, unless there were more blocks than that.
BLOCK, MOST_BLOCKS = 1024, 16


@dataclass(frozen=True)
class Units:
    """Blocks that a cache holds: separate arrays, which a step need not copy, and not too many to compile.

    Over devices each has the blocks of its own units. Where their number divides that of the blocks, and that of the
    blocks the units, the blocks are the same as on one device, and so are the digits of what they sum up to.
    """

    mesh: Mesh | None = None

    def blocks(self, width: int) -> int:
        """Blocks on a device, of a network of this width."""
        return ceil(min(MOST_BLOCKS, ceil(width / BLOCK)) / self._devices)

    def lengths(self, width: int) -> frozenset[int]:
        """Lengths that axes of units have, over all devices: that of all units, and those of the blocks."""
        units, blocks = width // self._devices, self.blocks(width)
        return frozenset({width, self._devices * (units // blocks), self._devices * ceil(units / blocks)})

    def split(self, units: AnyArray, width: int) -> list[Array]:
        """This device's units in blocks, of a network of this width."""
        return jnp.array_split(units, self.blocks(width))

    def each(self, function: Callable[..., Any], units: tuple, whole: tuple) -> Any:
        """What a function gives of arrays of units and of whole ones, on each device of its own units.

        Everything that it gives has units or blocks along its first axis, and so have the arrays of `units`.
        """
        if self.mesh is None:
            return function(*units, *whole)
        of_units, everywhere = PartitionSpec("neuron"), PartitionSpec()
        specs = (of_units,) * len(units) + (everywhere,) * len(whole)
        # What is left of the mesh, its axis of members, stays with the compiler.
        shared = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=of_units, axis_names={"neuron"})
        return shared(*units, *whole)

    def total(self, terms: Array) -> Array:
        """The sum over blocks (blocks, ...), one after the other from the first on, wherever they come from."""
        if len(terms) == 1:
            return terms[0]
        if self.mesh is not None:
            terms = jax.lax.with_sharding_constraint(terms, NamedSharding(self.mesh, PartitionSpec()))
        # A compiler that sees where the terms come from may add them as they do.
        first, *rest = jax.lax.optimization_barrier(terms)
        return sum(rest, first)

    @property
    def _devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape["neuron"]


ONE_DEVICE = Units()
