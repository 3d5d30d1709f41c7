"""The compiled program that trains a pack of members, and the loop that calls it for a few steps at a time."""

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
from jaxtyping import PyTree

from lazynet.programs import compiled
from lazynet.training._steppers import Member, Shared, State, Stepper
from lazynet.typing import Variables

Measure = Callable[[Variables, Member, Shared], dict[str, Any]]

# Target duration, in seconds, of a call to the device. Calls are short because a running program cannot be interrupted.
CALL_SECONDS = 0.5
# Fraction by which a loss must fall below the lowest loss so far to count as progress.
PLATEAU = 1e-3
# A loss has diverged if it is not finite or is above DIVERGED_RATIO * (1 + the loss at step 0).
DIVERGED_RATIO = 1e12


class Stop(NamedTuple):
    """Criteria for stopping the training of a network early.

    Training stops before the first step at which any criterion is met, and the network keeps the parameters it has at
    that step. If training uses mini-batches, the loss and the gradient are evaluated on the batch.

    Attributes:
        loss: Stop once the loss is at most this value.
        gradient: Stop once the norm of the gradient is at most this value. The gradient includes that of a ridge
            penalty.
        plateau: Stop once this many steps have passed without the loss falling more than 0.1% below its lowest value so
            far.

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
    """State of a member between steps.

    Attributes:
        state: State of the stepper.
        loss_limit: Loss above which training is considered to have diverged.
        diverged_at: First step at which the loss had diverged, or NEVER if it did not diverge.
        stopped_at: Number of steps that the member took before it stopped early, or NEVER if it did not stop early.
        best: Lowest loss so far, updated only if the loss falls by more than the fraction PLATEAU.
        best_at: Step at which `best` was reached.
        root_sum: Sum of sqrt(loss) over steps, and the rounding error in this sum (Kahan summation). The compensated
            sum does not depend on how the steps are divided into calls, which varies from run to run.
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
    """Storage that saves the state of an unfinished pack as named arrays."""

    def load(self) -> dict[str, np.ndarray] | None:
        """Load the most recently saved arrays.

        Returns:
            The arrays, keyed by name, or None if nothing has been saved.
        """
        ...

    def due(self) -> bool:
        """Return whether it is time to save.

        Returns:
            True if the arrays should be saved now.
        """
        ...

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save arrays, replacing any arrays saved earlier.

        Args:
            step: Number of steps taken so far.
            arrays: Arrays to save, keyed by name.
        """
        ...


@runtime_checkable
class Layout(Protocol):
    """Placement of the members' arrays on devices; equal layouts share a compiled program."""

    def spread(self, tree: PyTree) -> PyTree:
        """Distribute traced arrays across devices. The first axis of every array indexes the members."""
        ...

    def to_host(self, tree: PyTree) -> PyTree:
        """Return all arrays as NumPy arrays, including those on other hosts."""
        ...

    def agreed(self, number: int) -> int:
        """Return the first process's number, so that all processes that train these members use the same number."""
        ...


@dataclass(frozen=True)
class OneDevice:
    """Layout that leaves placement to JAX."""

    def spread(self, tree: PyTree) -> PyTree:
        """Return the arrays unchanged."""
        return tree

    def to_host(self, tree: PyTree) -> PyTree:
        """Return the arrays as NumPy arrays."""
        return jax.tree.map(np.asarray, tree)

    def agreed(self, number: int) -> int:
        """Return the number unchanged."""
        return number


class Outcome(NamedTuple):
    """Result of training a pack of p members with s snapshots.

    Attributes:
        variables: Final variables, each array with a leading axis of length p.
        records: Float64 arrays of shape (p, s, ...) that contain the measurements at the snapshots, and
            "loss_root_sum", the sum of sqrt(loss) over the steps before each snapshot.
        diverged_at: First step at which each member's loss had diverged, or NEVER if it did not diverge, shape (p,).
        stopped_at: Number of steps that each member took before it stopped early, or NEVER if it did not stop early,
            shape (p,).
    """

    variables: Variables
    records: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray


# Step number that is stored for an event, such as divergence or early stopping, if the event did not happen.
NEVER = np.iinfo(np.int32).max


def snapshot_steps(steps: int, snapshots: int | Sequence[int]) -> np.ndarray:
    """Return the steps at which measurements are taken.

    Args:
        steps: Number of training steps, at least 1.
        snapshots: Either the steps themselves, or the number of steps to space logarithmically between 1 and
            `steps`. Logarithmically spaced steps are rounded to integers.

    Returns:
        Unique steps in ascending order, as int64, including 0 and `steps`.
    """
    chosen = np.round(np.logspace(0, np.log10(steps), snapshots)) if isinstance(snapshots, int) else snapshots
    return np.unique([0, *np.asarray(chosen).tolist(), steps]).astype(np.int64)


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
    """Train a pack of members and measure them at selected steps.

    Args:
        stepper: Algorithm that computes a step.
        measure: Function `(variables, member, shared) -> dict of arrays`, compiled into the same program as the steps.
        members: Variables, keys and contexts of the members, stacked along the first axis.
        shared: Arrays returned by `stepper.share`, together with the targets "y" and the scalar "learning_rate".
        snapshots: Steps at which to measure the members, in ascending order, starting with 0.
        on_steps: Callback that receives the number of steps taken by each call to the compiled program. If training
            resumes from a checkpoint, the callback first receives the number of steps taken before the checkpoint.
        checkpoint: Storage for the unfinished pack, or None. If training resumes from a checkpoint, the results are
            bit-for-bit identical to those of an uninterrupted run.
        stop: Criteria for stopping early.
        layout: Placement of the members on devices.

    Returns:
        An `Outcome`, which contains the final variables and the records of all members.
    """
    carry = _start(stepper, members, shared, layout)
    records: list[dict[str, np.ndarray]] = []
    root_sums: list[np.ndarray] = []
    done, call_steps = 0, 1
    saved = None if checkpoint is None else checkpoint.load()
    if saved is not None and not _matches(saved, carry):
        warnings.warn(
            "A checkpoint was saved with a different number of devices and cannot be resumed, so its cell is "
            "recomputed from the beginning.",
            stacklevel=2,
        )
    elif saved is not None:
        carry, records, root_sums, done = _unpack(saved, carry)
        on_steps(done)
    for snapshot in map(int, snapshots[len(records) :]):
        while True:
            if checkpoint is not None and records and checkpoint.due():
                checkpoint.save(done, _pack(carry, records, root_sums, done))
            last = min(snapshot, done + call_steps)
            begin = time.perf_counter()
            carry, record = _advance(
                stepper, measure, carry, members, shared, done, last, last == snapshot, stop, layout
            )
            jax.block_until_ready(carry)
            if last > done:
                call_steps = layout.agreed(max(1, int(CALL_SECONDS * (last - done) / (time.perf_counter() - begin))))
                on_steps(last - done)
            done = last
            if done == snapshot:
                break
        records.append({name: np.asarray(value, np.float64) for name, value in layout.to_host(record).items()})
        root_sums.append(np.sum([np.asarray(part, np.float64) for part in layout.to_host(carry.root_sum)], axis=0))
    stacked = {name: np.stack([record[name] for record in records], axis=1) for name in records[0]}
    stacked["loss_root_sum"] = np.stack(root_sums, axis=1)
    variables = _read(stepper, carry, members, shared)
    return Outcome(variables, stacked, *layout.to_host((carry.diverged_at, carry.stopped_at)))


def _pack(
    carry: Carry, records: list[dict[str, np.ndarray]], root_sums: list[np.ndarray], done: int
) -> dict[str, np.ndarray]:
    return {
        **{f"carry/{i:03d}": np.asarray(_raw(leaf)) for i, leaf in enumerate(jax.tree.leaves(carry))},
        **{f"records/{name}": np.stack([record[name] for record in records]) for name in records[0]},
        "root_sums": np.stack(root_sums),
        "done": np.asarray(done),
    }


def _matches(saved: dict[str, np.ndarray], carry: Carry) -> bool:
    """Return whether the saved arrays have the shapes that the carry has with the current number of devices."""
    shapes = {f"carry/{i:03d}": _raw(leaf).shape for i, leaf in enumerate(jax.tree.leaves(carry))}
    return shapes == {name: array.shape for name, array in saved.items() if name.startswith("carry/")}


def _unpack(
    saved: dict[str, np.ndarray], carry: Carry
) -> tuple[Carry, list[dict[str, np.ndarray]], list[np.ndarray], int]:
    leaves, structure = jax.tree.flatten(carry)
    for i, leaf in enumerate(leaves):
        # Dtypes that NumPy lacks, such as bfloat16, are stored as bytes.
        values = jnp.asarray(saved[f"carry/{i:03d}"].view(_raw(leaf).dtype))
        leaves[i] = jax.random.wrap_key_data(values, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else values
        if len(leaf.sharding.device_set) > 1:
            leaves[i] = jax.device_put(leaves[i], leaf.sharding)
    names = [name for name in saved if name.startswith("records/")]
    root_sums = list(saved["root_sums"])
    records = [{name.removeprefix("records/"): saved[name][i] for name in names} for i in range(len(root_sums))]
    return jax.tree.unflatten(structure, leaves), records, root_sums, int(saved["done"])


def _raw(leaf: Array) -> Array:
    """Return the data underlying an array of random keys, or any other array unchanged."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@compiled(static_argnames=("stepper", "layout"))
def _start(stepper: Stepper, members: Member, shared: Shared, layout: Layout) -> Carry:
    def start(member: Member) -> Carry:
        zero, never = jnp.zeros_like(shared["learning_rate"]), jnp.full((), NEVER, jnp.int32)
        return Carry(stepper.start(member, shared), zero, never, never, zero, jnp.zeros_like(never), (zero, zero))

    return layout.spread(jax.vmap(start)(members))


@compiled(static_argnames="stepper")
def _read(stepper: Stepper, carry: Carry, members: Member, shared: Shared) -> Variables:
    return jax.vmap(lambda state, member: stepper.read(state, member, shared))(carry.state, members)


@compiled(static_argnames=("stepper", "measure", "stop", "layout"), donate_argnames="carry")
def _advance(
    stepper: Stepper,
    measure: Measure,
    carry: Carry,
    members: Member,
    shared: Shared,
    first: Array | int,
    last: Array | int,
    is_snapshot: Array | bool,
    stop: Stop | None,
    layout: Layout,
) -> tuple[Carry, dict[str, Array]]:
    """Take the steps from `first` to `last` - 1 for every member, then measure the members if `is_snapshot` is true.

    The step numbers are traced, so that a single compiled program can be used for all snapshots.
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
        # The loss and the gradient are computed before the step, so a member that stops does not take this step.
        met = _met(stop, loss, gradient, t - best_at) & (diverged_at == NEVER)
        stepped = jax.tree.map(partial(jnp.where, met), carry._replace(stopped_at=t), stepped)
        return jax.tree.map(partial(jnp.where, _is_running(carry)), stepped, carry)

    def advance(carry: Carry, member: Member) -> Carry:
        return jax.lax.fori_loop(first, last, lambda t, carry: step(t, carry, member), carry)

    # With `jax.jit`, this function is traced once for both `zero_measures` and `jax.lax.cond`.
    @partial(jax.jit, inline=True)
    def take_measures(state: State, member: Member) -> dict[str, Array]:
        return measure(stepper.read(state, member, shared), member, shared) | stepper.quantities(state)

    def zero_measures(state: State, member: Member) -> dict[str, Array]:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(take_measures, state, member))

    if stop is None:
        carry = jax.vmap(advance)(carry, members)
    else:
        # The step number is not batched over members, so that a `jax.lax.cond` on it remains a branch under `jax.vmap`.
        _, carry = jax.lax.while_loop(
            lambda at: (at[0] < last) & jnp.any(_is_running(at[1])),
            lambda at: (at[0] + 1, jax.vmap(partial(step, at[0]))(at[1], members)),
            (first, carry),
        )
    record = jax.vmap(
        lambda carry, member: jax.lax.cond(is_snapshot, take_measures, zero_measures, carry.state, member)
    )(carry, members)
    return layout.spread(carry), record


def _is_running(carry: Carry) -> Array:
    """Return a mask of the members that have neither stopped nor diverged."""
    return (carry.stopped_at == NEVER) & (carry.diverged_at == NEVER)


def _met(stop: Stop, loss: Array, squared_norm: Array, steps_since_best: Array) -> Array:
    """Return whether a member meets a stopping criterion; `squared_norm` is the squared norm of its gradient."""
    met = jnp.zeros((), bool)
    if stop.loss is not None:
        met |= loss <= stop.loss
    if stop.gradient is not None:
        met |= squared_norm <= stop.gradient**2
    if stop.plateau is not None:
        met |= steps_since_best >= stop.plateau
    return met
