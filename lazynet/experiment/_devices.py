"""Members and neurons shared over devices by JAX's shardings: a mesh with the axes "member" and "neuron"."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The least units per device for which splitting a network pays for a sum over devices at every step.
NEURONS = 4096


def mesh_for(members: int, width: int) -> Mesh | None:
    """Return the mesh of devices for members that train together, None for the default device.

    Devices share the members equally. With fewer members than devices they also share the neurons of wide networks.
    Several processes use all devices, and `padded` adds members if neither fits.
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
    """Return the number of members that fills all devices equally."""
    member = 1 if mesh is None else mesh.shape["member"]
    return -(-members // member) * member


def splits_neurons(mesh: Mesh | None) -> bool:
    """Return whether the mesh splits single networks."""
    return mesh is not None and mesh.shape["neuron"] > 1


def on_all(tree: Any, mesh: Mesh | None) -> Any:
    """Return arrays that every device holds whole; each process places its own copy."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: jax.Array) -> jax.Array:
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, sharding, lambda index: here[index])

    return jax.tree.map(placed, tree)


@dataclass(frozen=True)
class Spread:
    """The layout of members over the devices of a mesh.

    Attributes:
        mesh: the mesh, None for one device.
        units: lengths of axes of hidden units, all of them or a block.
    """

    mesh: Mesh | None
    units: frozenset[int]

    def spread(self, tree: Any) -> Any:
        """Constrain traced arrays of members: the first axis is shared by members, the second by hidden units."""
        if self.mesh is None:
            return tree
        every, units = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in (("member",), ("member", "neuron")))

        def placed(leaf: jax.Array) -> jax.Array:
            has_units = leaf.ndim > 1 and leaf.shape[1] in self.units and splits_neurons(self.mesh)
            return jax.lax.with_sharding_constraint(leaf, units if has_units else every)

        return jax.tree.map(placed, tree)

    def to_host(self, tree: Any) -> Any:
        """Return NumPy arrays, also of values that other processes hold."""
        return to_host(tree)

    def agreed(self, number: int) -> int:
        """Return the first process's number on every process."""
        return agreed(number)


def to_host(tree: Any) -> Any:
    """Return NumPy arrays, also of values that other processes hold."""

    def fetched(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            sharding: Any = leaf.sharding
            leaf = _whole(leaf, sharding.mesh)
        return np.asarray(leaf)

    return jax.tree.map(fetched, tree)


@partial(jax.jit, static_argnames="mesh")
def _whole(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec()))


def is_first() -> bool:
    """Return whether this process reads and writes the files."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """Return the first process's value on every process."""
    return int(_broadcast(np.asarray(value, np.int32)))


def agreed_text(text: str) -> str:
    """Return the first process's text on every process."""
    content = np.frombuffer(text.encode(), np.uint8)
    here = np.zeros(agreed(len(content)), np.uint8)
    here[: len(content)] = content[: len(here)]
    return _broadcast(here).tobytes().decode()


@contextmanager
def together() -> Iterator[None]:
    """Raise an error of the first process on every process; the others would wait for it otherwise."""
    if jax.process_count() == 1:
        yield
        return
    said = ""
    try:
        yield
    except (ValueError, OSError) as error:
        said = str(error) or repr(error)
        raise
    finally:
        heard = agreed_text(said)
    if heard:
        raise ValueError(heard)


def _broadcast(array: np.ndarray) -> np.ndarray:
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array))
