"""The compiled program that trains a pack of members, and the loop that calls it about once a second."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.training._steppers import Member, Shared, State, Stepper
from lazynet.typing import Variables

Measure = Callable[[Variables, Member, Shared], dict[str, Any]]

# A call to the device should last no longer than this, because a running program cannot be interrupted.
CALL_SECONDS = 0.5
# A loss that falls by less than this share of the least one stays on its plateau.
PLATEAU = 1e-3
# A loss this many times the first one plus 1 counts as divergence, as does one that is not finite.
DIVERGED_RATIO = 1e12


class Stop(NamedTuple):
    """When a member stops before its last step, as it was when a criterion was first met.

    With mini-batches, loss and gradient are those that a step computes: of its batch.

    Attributes:
        loss: once the loss is at most this.
        gradient: once the norm of its gradient is.
        plateau: once the loss has not fallen by a thousandth of its least value in so many steps.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, [64], seeds=1, steps=1000, stop=lz.Stop(loss=1.0))
    >>> bool((result.stopped_step < 1000).all())
    True
    """

    loss: float | None = None
    gradient: float | None = None
    plateau: int | None = None


class Carry(NamedTuple):
    """What goes from step to step: the stepper's state, the loss that counts as divergence, and the step it came at.

    `stopped_at` is the number of steps after which a member has stopped; `best` the least loss that was clearly below
    the one before it, and `best_at` its step. `root_sum` is the sum of sqrt(loss) and what its rounding has left out
    (Kahan), so that neither the number of steps nor their division into calls, which follows the clock, shows in its
    digits.
    """

    state: State
    loss_limit: Array
    diverged_at: Array
    stopped_at: Array
    best: Array
    best_at: Array
    root_sum: tuple[Array, Array]


@runtime_checkable
class Checkpoint(Protocol):
    """Where an unfinished pack is kept, as arrays by name."""

    def load(self) -> dict[str, np.ndarray] | None:
        """What was saved last, None where nothing was."""
        ...

    def due(self) -> bool:
        """Whether it is time to save."""
        ...

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save the state after so many steps in place of what was saved before."""
        ...


@runtime_checkable
class Layout(Protocol):
    """Where the arrays of members are; equal layouts are one, so that they share a compiled program."""

    def spread(self, tree: Any) -> Any:
        """Traced arrays, stacked over members along their first axis, where they belong."""
        ...

    def to_host(self, tree: Any) -> Any:
        """Arrays in NumPy, wherever they are."""
        ...

    def agreed(self, number: int) -> int:
        """What all processes take that share members."""
        ...


@dataclass(frozen=True)
class OneDevice:
    """Everything is where JAX puts it."""

    def spread(self, tree: Any) -> Any:
        """As they are."""
        return tree

    def to_host(self, tree: Any) -> Any:
        """Arrays in NumPy."""
        return jax.tree.map(np.asarray, tree)

    def agreed(self, number: int) -> int:
        """As it is."""
        return number


class Outcome(NamedTuple):
    """A trained pack: final variables (members, ...), records (members, snapshots, ...) and divergence (members,).

    `records` holds what the measure returned, and "loss_root_sum", the sum over steps j < k of sqrt(loss(j)), in
    float64. `diverged_at` is the first step whose loss had diverged, `stopped_at` the number of steps after which the
    member stopped; NEVER where there is none.
    """

    variables: Variables
    records: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray


NEVER = np.iinfo(np.int32).max


def snapshot_steps(steps: int, snapshots: int | Sequence[int]) -> np.ndarray:
    """Steps at which measures are taken, with 0 and `steps`: those named, or the rounded logspace from 1 to `steps`."""
    spread = np.round(np.logspace(0, np.log10(steps), snapshots)) if isinstance(snapshots, int) else snapshots
    return np.unique([0, *np.asarray(spread).tolist(), steps]).astype(np.int64)


def simulate(
    stepper: Stepper,
    measure: Measure,
    members: Member,
    shared: Shared,
    snapshots: np.ndarray,
    on_steps: Callable[[int], None] = lambda steps: None,
    checkpoint: Checkpoint | None = None,
    stop: Stop | None = None,
    layout: Layout = OneDevice(),
) -> Outcome:
    """Train members, stacked along their first axis, and measure them at the snapshots.

    Args:
        stepper: how a member steps.
        measure: (variables, member, shared) -> dict of arrays, taken on the device in the same program.
        members: their variables, keys and contexts, stacked.
        shared: the stepper's data, and "learning_rate".
        snapshots: ascending steps, the first of which is 0.
        on_steps: told how many steps were done, after each call.
        checkpoint: where to keep what is unfinished, and to go on from; no digit depends on it.
        stop: when a member stops, and keeps its state.
        layout: where members are.
    """
    carry = _start(stepper, members, shared, layout)
    records: list[dict[str, np.ndarray]] = []
    root_sums: list[np.ndarray] = []
    done, limit = 0, 1
    kept = None if checkpoint is None else checkpoint.load()
    if kept is not None and not _fits(kept, carry):
        warnings.warn("A checkpoint is of another number of devices, and its cell begins anew.", stacklevel=2)
    elif kept is not None:
        carry, records, root_sums, done = _unpacked(kept, carry)
        on_steps(done)
    for wanted in map(int, snapshots[len(records) :]):
        while True:
            if checkpoint is not None and records and checkpoint.due():
                checkpoint.save(done, _packed(carry, records, root_sums, done))
            last = min(wanted, done + limit)
            begin = time.perf_counter()
            carry, record = _advance(stepper, measure, carry, members, shared, done, last, last == wanted, stop, layout)
            jax.block_until_ready(carry)
            if last > done:
                limit = layout.agreed(max(1, int(CALL_SECONDS * (last - done) / (time.perf_counter() - begin))))
                on_steps(last - done)
            done = last
            if done == wanted:
                break
        records.append({name: np.asarray(value, np.float64) for name, value in layout.to_host(record).items()})
        root_sums.append(np.sum([np.asarray(part, np.float64) for part in layout.to_host(carry.root_sum)], axis=0))
    stacked = {name: np.stack([record[name] for record in records], axis=1) for name in records[0]}
    stacked["loss_root_sum"] = np.stack(root_sums, axis=1)
    variables = _read(stepper, carry, members, shared)
    return Outcome(variables, stacked, *layout.to_host((carry.diverged_at, carry.stopped_at)))


def _packed(
    carry: Carry, records: list[dict[str, np.ndarray]], root_sums: list[np.ndarray], done: int
) -> dict[str, np.ndarray]:
    return {
        **{f"carry/{i:03d}": np.asarray(_numbers(leaf)) for i, leaf in enumerate(jax.tree.leaves(carry))},
        **{f"records/{name}": np.stack([record[name] for record in records]) for name in records[0]},
        "root_sums": np.stack(root_sums),
        "done": np.asarray(done),
    }


def _fits(kept: dict[str, np.ndarray], like: Carry) -> bool:
    """Whether a checkpoint has the arrays of this state: units shared over devices are in other blocks."""
    shapes = {f"carry/{i:03d}": _numbers(leaf).shape for i, leaf in enumerate(jax.tree.leaves(like))}
    return shapes == {name: array.shape for name, array in kept.items() if name.startswith("carry/")}


def _unpacked(
    kept: dict[str, np.ndarray], like: Carry
) -> tuple[Carry, list[dict[str, np.ndarray]], list[np.ndarray], int]:
    leaves, structure = jax.tree.flatten(like)
    for i, leaf in enumerate(leaves):
        # Numbers that NumPy does not know, such as bfloat16, come back as bytes.
        values = jnp.asarray(kept[f"carry/{i:03d}"].view(_numbers(leaf).dtype))
        leaves[i] = jax.random.wrap_key_data(values) if _is_key(leaf) else values
        if len(leaf.sharding.device_set) > 1:
            leaves[i] = jax.device_put(leaves[i], leaf.sharding)
    names = [name for name in kept if name.startswith("records/")]
    root_sums = list(kept["root_sums"])
    records = [{name.removeprefix("records/"): kept[name][i] for name in names} for i in range(len(root_sums))]
    return jax.tree.unflatten(structure, leaves), records, root_sums, int(kept["done"])


def _numbers(leaf: Array) -> Array:
    """A leaf as numbers, which the keys that some optimizers hold are not."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@partial(jax.jit, static_argnames=("stepper", "layout"))
def _start(stepper: Stepper, members: Member, shared: Shared, layout: Layout) -> Carry:
    def one(member: Member) -> Carry:
        zero, never = jnp.zeros_like(shared["learning_rate"]), jnp.full((), NEVER, jnp.int32)
        return Carry(stepper.start(member, shared), zero, never, never, zero, jnp.zeros_like(never), (zero, zero))

    return layout.spread(jax.vmap(one)(members))


@partial(jax.jit, static_argnames="stepper")
def _read(stepper: Stepper, carry: Carry, members: Member, shared: Shared) -> Variables:
    return jax.vmap(lambda state, member: stepper.read(state, member, shared))(carry.state, members)


@partial(jax.jit, static_argnames=("stepper", "measure", "stop", "layout"), donate_argnames="carry")
def _advance(
    stepper: Stepper,
    measure: Measure,
    carry: Carry,
    members: Member,
    shared: Shared,
    first: Array | int,
    last: Array | int,
    wanted: Array | bool,
    stop: Stop | None,
    layout: Layout,
) -> tuple[Carry, dict[str, Array]]:
    """Steps first .. last - 1 of every member, and the measures after them where they are wanted.

    The number of steps is an argument, so that one program serves every snapshot and the remainder.
    """
    first, last = jnp.asarray(first, jnp.int32), jnp.asarray(last, jnp.int32)

    def step(t: Array, carry: Carry, member: Member) -> Carry:
        state, loss, gradient = stepper.step(carry.state, member, shared, t)
        limit = jnp.where(t == 0, DIVERGED_RATIO * (loss + 1), carry.loss_limit)
        healthy = jnp.isfinite(loss) & (loss <= limit)
        diverged_at = jnp.where(healthy, carry.diverged_at, jnp.minimum(carry.diverged_at, t))
        total, rest = carry.root_sum
        term = jnp.sqrt(loss) + rest
        root_sum = total + term, term - ((total + term) - total)
        better = (t == 0) | (loss < (1 - PLATEAU) * carry.best)
        best, best_at = jnp.where(better, loss, carry.best), jnp.where(better, t, carry.best_at)
        stepped = Carry(state, limit, diverged_at, carry.stopped_at, best, best_at, root_sum)
        if stop is None:
            return stepped
        # What was looked at is the state before the step, which is then not taken.
        met = _met(stop, loss, gradient, t - best_at) & (diverged_at == NEVER)
        stepped = jax.tree.map(partial(jnp.where, met), carry._replace(stopped_at=t), stepped)
        # Those that have stopped keep what they carry until the last one has.
        return jax.tree.map(partial(jnp.where, _goes_on(carry)), stepped, carry)

    def one(carry: Carry, member: Member) -> Carry:
        return jax.lax.fori_loop(first, last, lambda t, carry: step(t, carry, member), carry)

    def measured(state: State, member: Member) -> dict[str, Array]:
        return measure(stepper.read(state, member, shared), member, shared) | stepper.known(state)

    def nothing(state: State, member: Member) -> dict[str, Array]:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(measured, state, member))

    if stop is None:
        carry = jax.vmap(one)(carry, members)
    else:
        # The step is one for all members, so that what a stepper does at some steps only is done at no others.
        _, carry = jax.lax.while_loop(
            lambda at: (at[0] < last) & jnp.any(_goes_on(at[1])),
            lambda at: (at[0] + 1, jax.vmap(partial(step, at[0]))(at[1], members)),
            (first, carry),
        )
    record = jax.vmap(lambda carry, member: jax.lax.cond(wanted, measured, nothing, carry.state, member))(
        carry, members
    )
    return layout.spread(carry), record


def _goes_on(carry: Carry) -> Array:
    """Whether a member has neither stopped nor diverged."""
    return (carry.stopped_at == NEVER) & (carry.diverged_at == NEVER)


def _met(stop: Stop, loss: Array, gradient: Array, since: Array) -> Array:
    """Whether one of the criteria is met, `gradient` being the squared norm and `since` the steps since the best."""
    met = jnp.zeros((), bool)
    if stop.loss is not None:
        met |= loss <= stop.loss
    if stop.gradient is not None:
        met |= gradient <= stop.gradient**2
    if stop.plateau is not None:
        met |= since >= stop.plateau
    return met
