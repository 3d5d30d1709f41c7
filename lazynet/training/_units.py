"""Division of the hidden units into blocks on one or more devices, and summation over blocks in a fixed order."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lazynet.typing import AnyArray

# Number of units per block, and maximum number of blocks; networks too wide for this limit use larger blocks.
BLOCK, MOST_BLOCKS = 1024, 16


@dataclass(frozen=True)
class Units:
    """Partition of the hidden units of a network into blocks that fit in the cache.

    Blocks are separate arrays, so steps need not copy them; their number is limited because each block adds to the
    compile time. If there are several devices, each stores the blocks of its own units. If the number of devices
    divides the number of blocks, and the number of blocks divides the width, the blocks are the same as on one device,
    and sums over the blocks agree bit for bit.

    Attributes:
        mesh: Mesh with an axis "neuron" along which the units are sharded, or None for one device.
    """

    mesh: Mesh | None = None

    def blocks(self, width: int) -> int:
        """Return the number of blocks on each device.

        Args:
            width: Total number of units in the network, m.

        Returns:
            The number of blocks.
        """
        return ceil(min(MOST_BLOCKS, ceil(width / BLOCK)) / self._devices)

    def lengths(self, width: int) -> frozenset[int]:
        """Return the lengths that an axis over hidden units can have.

        Args:
            width: Total number of units in the network, m.

        Returns:
            The possible total lengths, over all devices, of an axis that indexes all units or the units of one block.
        """
        units, blocks = width // self._devices, self.blocks(width)
        return frozenset({width, self._devices * (units // blocks), self._devices * ceil(units / blocks)})

    def split(self, units: AnyArray, width: int) -> list[Array]:
        """Split the units of a device into blocks.

        Args:
            units: Array whose first axis runs over the units of the device.
            width: Total number of units in the network, m.

        Returns:
            One array for each block.
        """
        return jnp.array_split(units, self.blocks(width))

    def apply(self, function: Callable[..., Any], units: tuple[Any, ...], replicated: tuple[Any, ...]) -> Any:
        """Apply a function to the units on each device.

        Args:
            function: Function that is called as `function(*units, *replicated)` on each device. The first axis of every
                array that it returns must run over units or blocks.
            units: Arrays whose first axis runs over units or blocks.
            replicated: Arrays that every device stores in full.

        Returns:
            The function's result for all units.
        """
        if self.mesh is None:
            return function(*units, *replicated)
        sharded, unsharded = PartitionSpec("neuron"), PartitionSpec()
        specs = (sharded,) * len(units) + (unsharded,) * len(replicated)
        # The compiler handles the other mesh axis, which runs over members.
        mapped = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=sharded, axis_names={"neuron"})
        return mapped(*units, *replicated)

    def total(self, terms: Array) -> Array:
        """Sum terms over blocks, in the same order regardless of the number of devices.

        Args:
            terms: Terms to sum, shape (blocks, ...).

        Returns:
            The sum, shape (...).
        """
        if len(terms) == 1:
            return terms[0]
        if self.mesh is not None:
            terms = jax.lax.with_sharding_constraint(terms, NamedSharding(self.mesh, PartitionSpec()))
        # Without the barrier, the compiler may fuse the sum with the terms and add them in a different order.
        first, *rest = jax.lax.optimization_barrier(terms)
        return sum(rest, first)

    @property
    def _devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape["neuron"]


ONE_DEVICE = Units()
