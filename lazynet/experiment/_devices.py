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

# Units that a device must have of a network for its share of them to be worth a sum over devices at every step.
NEURONS = 4096


def mesh_for(members: int, width: int) -> Mesh | None:
    """The devices for so many members side by side, None for the default one.

    Members are shared equally. Where there are fewer of them than devices, neurons of a wide network are too. Several
    processes use all devices, so that `padded` adds members where neither fits.
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
    """So many members that every device has as many."""
    member = 1 if mesh is None else mesh.shape["member"]
    return -(-members // member) * member


def splits_neurons(mesh: Mesh | None) -> bool:
    """Whether a network is on more than one device."""
    return mesh is not None and mesh.shape["neuron"] > 1


def on_all(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that every device has whole; those of other processes get them from their own."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: jax.Array) -> jax.Array:
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, sharding, lambda index: here[index])

    return jax.tree.map(placed, tree)


@dataclass(frozen=True)
class Spread:
    """Members over the devices of a mesh; axes of these lengths are those of units, all of them or a block."""

    mesh: Mesh | None
    units: frozenset[int]

    def spread(self, tree: Any) -> Any:
        """Arrays of members, traced, shared by their first axis, and by their second where it is that of the units."""
        if self.mesh is None:
            return tree
        every, units = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in (("member",), ("member", "neuron")))

        def placed(leaf: jax.Array) -> jax.Array:
            has_units = leaf.ndim > 1 and leaf.shape[1] in self.units and splits_neurons(self.mesh)
            return jax.lax.with_sharding_constraint(leaf, units if has_units else every)

        return jax.tree.map(placed, tree)

    def to_host(self, tree: Any) -> Any:
        """Arrays in NumPy, those of other processes too."""
        return to_host(tree)

    def agreed(self, number: int) -> int:
        """The first process's number, on every process."""
        return agreed(number)


def to_host(tree: Any) -> Any:
    """Arrays in NumPy, those of other processes too."""

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
    """Whether this process is the one that reads and writes."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """The first process's value, on every process."""
    return int(_broadcast(np.asarray(value, np.int32)))


def agreed_text(text: str) -> str:
    """The first process's text, on every process."""
    content = np.frombuffer(text.encode(), np.uint8)
    here = np.zeros(agreed(len(content)), np.uint8)
    here[: len(content)] = content[: len(here)]
    return _broadcast(here).tobytes().decode()


@contextmanager
def together() -> Iterator[None]:
    """What the first process refuses in here all refuse, where they would else wait for it."""
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
