"""Distribution of members and neurons across devices: JAX shardings on a mesh with the axes "member" and "neuron"."""

from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lazynet import hosts

# Minimum number of units per device for which splitting a network is worth the cost of a sum over devices in each step.
NEURONS = 4096


def mesh_for(members: int, width: int) -> Mesh | None:
    """Return the device mesh for members that train together, or None to use the default device.

    Members are divided equally among the devices. If the number of members is not a multiple of the number of devices,
    the neurons of wide networks are divided as well, whereas narrow networks use only some of the devices. If there are
    several processes, however, even narrow networks must use all devices, so `padded` increases the number of members.
    """
    devices = jax.devices()
    member = gcd(members, len(devices))
    neuron = len(devices) // member
    if neuron > 1 and (width % neuron or width // neuron < NEURONS):
        neuron = 1
        many = jax.process_count() > 1
        member = len(devices) if many else max(s for s in range(1, len(devices) + 1) if members % s == 0)
    if member * neuron == 1:
        return None
    return Mesh(np.array(devices[: member * neuron]).reshape(member, neuron), ("member", "neuron"))


def padded(members: int, mesh: Mesh | None) -> int:
    """Round up the number of members so that every device trains the same number."""
    member = 1 if mesh is None else mesh.shape["member"]
    return -(-members // member) * member


def splits_neurons(mesh: Mesh | None) -> bool:
    """Return whether the mesh splits the neurons of each network across devices."""
    return mesh is not None and mesh.shape["neuron"] > 1


def on_all(tree: Any, mesh: Mesh | None) -> Any:
    """Replicate arrays on every device; each process places its own copy."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: jax.Array) -> jax.Array:
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, sharding, lambda index: here[index])

    return jax.tree.map(placed, tree)


@dataclass(frozen=True)
class Spread:
    """The layout of members across the devices of a mesh.

    Attributes:
        mesh: The mesh, or None for a single device.
        units: Possible lengths of an axis that indexes hidden units: the total number of units and the number per
            block.
    """

    mesh: Mesh | None
    units: frozenset[int]

    def spread(self, tree: Any) -> Any:
        """Shard the first axis of traced arrays by member, and the second axis by neuron if it indexes hidden units."""
        if self.mesh is None:
            return tree
        every, units = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in (("member",), ("member", "neuron")))

        def placed(leaf: jax.Array) -> jax.Array:
            has_units = leaf.ndim > 1 and leaf.shape[1] in self.units and splits_neurons(self.mesh)
            return jax.lax.with_sharding_constraint(leaf, units if has_units else every)

        return jax.tree.map(placed, tree)

    def to_host(self, tree: Any) -> Any:
        """Convert arrays to NumPy arrays, gathering the values held by other processes."""
        return to_host(tree)

    def agreed(self, number: int) -> int:
        """Return, on every host, the number that the first host passed."""
        return int(hosts.agreed(number))


def to_host(tree: Any) -> Any:
    """Convert arrays to NumPy arrays, gathering the values held by other processes."""

    def fetched(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            sharding: Any = leaf.sharding
            leaf = _replicate(leaf, sharding.mesh)
        return np.asarray(leaf)

    return jax.tree.map(fetched, tree)


@partial(jax.jit, static_argnames="mesh")
def _replicate(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec()))
