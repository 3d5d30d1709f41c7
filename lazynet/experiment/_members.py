"""Train packs of members; the members of a pack have the same width and share one compiled program."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.experiment._devices import Spread, mesh_for, on_all, padded, splits_neurons
from lazynet.experiment._measure import OwnMeasures, examples
from lazynet.experiment._shared_inputs import SharedInputs
from lazynet.experiment._training import Training
from lazynet.kernels import average_ntk, layer_kernels
from lazynet.measures import (
    array_displacements,
    array_norms,
    displacement,
    max_neuron_displacement,
    parameter_norm,
    relative_distance,
    sharpness,
    sign_changes,
)
from lazynet.networks import Linearized, Model, Network, at_width, traits
from lazynet.precision import arithmetic
from lazynet.programs import compiled
from lazynet.training import (
    DIVERGED_RATIO,
    NEVER,
    AutodiffStepper,
    Checkpoint,
    FlowStepper,
    HiddenStepper,
    Member,
    Stepper,
    Units,
    batch_key,
    simulate,
    start_key,
)
from lazynet.typing import Variables

# Relative rounding error in a displacement above which a warning is issued.
NOTICEABLE = 0.1


@runtime_checkable
class CellCheckpoint(Checkpoint, Protocol):
    """Storage for the state of an unfinished cell, with a separate part for each training run."""

    def part(self, name: str) -> "CellCheckpoint":
        """Return the storage for one training run within the cell.

        Args:
            name: Name of the training run.

        Returns:
            The storage for this training run.
        """
        ...


class Trained(NamedTuple):
    """Trained members, all of the same width.

    Attributes:
        variables_0: The variables before training, stacked over members.
        variables: The variables after training, stacked over members.
        records: Measurements with shape (members, snapshots, ...), keyed by name.
        diverged_at: The step at which each member diverged, or NEVER if the member did not diverge.
        stopped_at: The step at which each member stopped early, or NEVER if the member did not stop early.
    """

    variables_0: Variables
    variables: Variables
    records: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray

    def warn_of_rounding(self, training: Training, width: int) -> None:
        """Warn if the weights of a member have moved so little that rounding errors in their updates are noticeable.

        Each update of a weight has a rounding error of about eps times the weight, so the relative error in the
        displacement is about eps sqrt(steps) / relative_displacement.

        Args:
            training: Settings used to train the members.
            width: Width of the members.
        """
        if "relative_displacement" not in self.records:
            return
        # A displacement of exactly zero occurs if there is nothing to learn.
        final = self.records["relative_displacement"][:, -1]
        noise = float(np.finfo(training.dtype).eps) * training.steps**0.5
        small = (final > 0) & (final * NOTICEABLE < noise)
        if small.any():
            advice = "Scale the rows of the data to unit norm or reduce output_scale."
            if training.dtype == "float32":
                advice = "Scale the rows of the data to unit norm, reduce output_scale, or train in float64."
            warnings.warn(
                f"At width {width}, the weights of {small.sum()} of {len(small)} networks moved by only "
                f"{final[small].min():.1e} times their norm, so rounding errors in {training.dtype} noticeably affect "
                f"the results. {advice}",
                stacklevel=2,
            )


class Start(NamedTuple):
    """Quantities of a member at initialization.

    Attributes:
        norm: The norm of the vector of all parameters.
        norms: The norm of each trained array.
        kernel: The empirical kernel, split into parts, with shape (parts, n, n).
    """

    norm: Array
    norms: Array
    kernel: Array


@dataclass(frozen=True)
class Snapshot:
    """The measurements made on the device at each snapshot.

    Attributes:
        stepper: The stepper of the network.
        own: User-supplied measurement functions and their names.
        network: The network passed to user-supplied measurement functions, or None if there are no such functions.
        sharpness: Whether to measure the sharpness.
        kernel_drift: Whether to measure the empirical kernel.
        rows: Number of training examples to use for the measurements, or None for all.
    """

    stepper: Stepper
    own: OwnMeasures = ()
    network: Network | None = None
    sharpness: bool = False
    kernel_drift: bool = True
    rows: int | None = None

    def context(self, variables: Variables, norms: tuple[Array, Array], shared: dict[str, Array]) -> Start:
        """Return the initial quantities with which later snapshots are compared."""
        return Start(*norms, self._kernel(variables, shared["x"][: self.rows]))

    def __call__(self, variables: Variables, member: Member, shared: dict[str, Array]) -> dict[str, Any]:
        """Return predictions, displacements and other quantities, keyed by their names in the result."""
        start, x, network = member.variables, shared["x"][: self.rows], self.stepper.network
        at_start: Start = member.context
        facts = traits(network)
        moved = displacement(variables["params"], start["params"])
        data = examples(shared, self.rows)
        more = {name: measure(self.network, variables, start, data) for name, measure in self.own}
        if self.sharpness:
            fixed = {name: value for name, value in variables.items() if name != "params"}

            def outputs(params: Any) -> Any:
                return network.apply({**fixed, "params": params}, x)

            more["sharpness"] = sharpness(outputs, variables["params"])
            more["learning_rate_over_stability_limit"] = shared["learning_rate"] * more["sharpness"] / 2
        if facts.neurons is not None:
            more["max_neuron_displacement"] = max_neuron_displacement(facts.neurons(variables), facts.neurons(start))
        if facts.preactivations is not None:
            more["activation_flips"] = sign_changes(facts.preactivations(variables, x), facts.preactivations(start, x))
        kernel = self._kernel(variables, x)
        if len(at_start.norms) > 1 and facts.hidden_layer is None:
            arrays = array_displacements(variables["params"], start["params"])
            more["layer_displacement"] = arrays
            # A bias that is initialized to zero has no relative displacement.
            more["layer_relative_displacement"] = jnp.where(at_start.norms > 0, arrays / at_start.norms, jnp.nan)
        if len(kernel) > 1:
            contributes = jnp.any(at_start.kernel != 0, axis=(1, 2))
            drift = jax.vmap(relative_distance)(kernel, at_start.kernel)
            more["layer_kernel_drift"] = jnp.where(contributes, drift, jnp.nan)
        if len(kernel):
            total, total_at_start = jnp.sum(kernel, axis=0), jnp.sum(at_start.kernel, axis=0)
            more["kernel_drift"] = relative_distance(total, total_at_start)
        return {
            "train_prediction": self.stepper.outputs(variables, x, shared),
            "test_prediction": self.stepper.outputs(variables, shared["x_test"], shared),
            "displacement": moved,
            "relative_displacement": moved / at_start.norm,
            **more,
        }

    def _kernel(self, variables: Variables, x: Array) -> Array:
        """Return the empirical kernel, with shape (parts, n, n).

        There is one part for each trained array, except that the kernel of a network with one hidden layer has a single
        part, the sum over its trained arrays. If the kernel is not measured, there are no parts.
        """
        network = self.stepper.network
        layer = traits(network).hidden_layer
        if not self.kernel_drift:
            return jnp.zeros((0, len(x), len(x)), x.dtype)
        if layer is None:
            parts, arrays = layer_kernels(network, variables, x), len(jax.tree.leaves(variables["params"]))
            nothing = jnp.zeros((len(x), len(x)), x.dtype)
            return jnp.stack([parts.get(place, nothing) for place in range(arrays)])
        by_counting = layer.signs and layer.train == "hidden" and layer.binary_slope
        return average_ntk(network, variables, x, by_counting=by_counting)[None]


@dataclass(frozen=True)
class Predictions:
    """A measurement function that returns only the predictions of a network."""

    network: Model

    def __call__(self, variables: Variables, member: Member, shared: dict[str, Array]) -> dict[str, Array]:
        """Return the predictions on the training and test sets."""
        return {
            "train_prediction": self.network.apply(variables, shared["x"]),
            "test_prediction": self.network.apply(variables, shared["x_test"]),
        }


def train_members(
    network: Network,
    data: Dataset,
    keys: Sequence[Array],
    training: Training,
    learning_rate: float,
    inputs: SharedInputs,
    on_steps: Callable[[int], None] = lambda steps: None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train and measure one member for each key.

    Args:
        network: Network with the same width as the members.
        data: Training and test sets.
        keys: Random key for each member.
        training: Settings used to train and measure the members.
        learning_rate: Learning rate eta.
        inputs: Inputs that all members share.
        on_steps: Function that is called with the number of newly completed steps, summed over all members.
        checkpoint: Storage for the state of an unfinished pack, or None.

    Returns:
        The trained members, in the order of the keys, as NumPy arrays.
    """
    mesh, facts = mesh_for(len(keys), network.width), traits(network)
    own = training.own_measures
    # Without user-supplied measurement functions, points that differ only in their scales share programs.
    measured_network = network if own else None
    alpha = 1.0
    field = "output_scale"
    if isinstance(inputs.stepper, FlowStepper) and field in facts.fields:
        alpha, network = at_width(getattr(network, field), network.width), network.clone(**{field: 1.0})
    # Networks that differ only in their initialization share the program that trains them.
    trained_network = network.clone(**dict.fromkeys(facts.start_fields, 1.0))
    stepper, units = replace(inputs.stepper, network=trained_network), Units(mesh if splits_neurons(mesh) else None)
    if isinstance(stepper, HiddenStepper):
        stepper = replace(stepper, units=units)
    wanted = training.measure
    measure = Snapshot(stepper, own, measured_network, wanted.sharpness, wanted.kernel_drift, wanted.rows)
    data = inputs.seen(data)
    # Extra members keep all devices busy; their results are discarded.
    padding = [keys[-1]] * (padded(len(keys), mesh) - len(keys))
    with arithmetic(training.dtype):
        scalars = {"learning_rate": learning_rate, "output_scale": alpha}
        shared = on_all(_share(inputs.arrays, data, scalars, training.dtype), mesh)
        numbers = on_all(jax.random.key_data(jnp.stack([*keys, *padding])), mesh)
        layout = Spread(mesh, units.lengths(network.width))
        members = _members(network, measure, numbers, shared, layout, jax.random.key_impl(keys[0]))
        report = _times(on_steps, len(keys))
        steps, stop = training.snapshot_steps, training.stop
        outcome = simulate(stepper, measure, members, shared, steps, report, checkpoint, stop, layout)
        arrays = layout.to_host((members.variables, *outcome))
    trained = Trained(*jax.tree.map(lambda leaf: leaf[: len(keys)], arrays))
    if facts.starts_at_zero:
        # In exact arithmetic, the initial outputs are zero, so remove their rounding errors.
        for name in ("train_prediction", "test_prediction"):
            trained.records[name][:, 0] = 0
    return trained


def train_polynomials(
    polynomial: Linearized,
    data: Dataset,
    trained: Trained,
    keys: Sequence[Array],
    training: Training,
    learning_rate: float,
    checkpoint: CellCheckpoint | None = None,
) -> dict[str, np.ndarray]:
    """Train the Taylor polynomial of each member and return the predictions.

    The network is expanded about each member's initial parameters, and the resulting polynomial is trained on the same
    batches as the member.

    Args:
        polynomial: Taylor polynomial of the network.
        data: Training and test sets.
        trained: Trained members.
        keys: Random key for each member.
        training: Settings used to train the members.
        learning_rate: Learning rate eta.
        checkpoint: Storage for the state of an unfinished cell, or None.

    Returns:
        The predictions on the training and test sets, keyed by name, each of shape (members, snapshots, ...).
    """
    stepper = AutodiffStepper(polynomial, training.loss, training.optimizer, training.batch_size)
    with arithmetic(training.dtype):
        shared = _share(stepper.share(data.x_train), data, {"learning_rate": learning_rate}, training.dtype)
        records = []
        for i, key in enumerate(keys):
            start = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], trained.variables_0)
            members = Member(polynomial.at(start), batch_key(key)[None], None)
            part = None if checkpoint is None else checkpoint.part(f"{type(polynomial).__name__}-{i}")
            measure, steps = Predictions(polynomial), training.snapshot_steps
            records.append(simulate(stepper, measure, members, shared, steps, checkpoint=part).records)
    return {name: np.concatenate([record[name] for record in records]) for name in records[0]}


def first_diverged(trained: Trained, loss: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
    """Return the first step at which each member was found to have diverged, or NEVER if the member did not diverge.

    Divergence is detected both during training and at snapshots.
    """
    # The training loop does not check the loss after the last step, so check the losses at the snapshots as well.
    return np.minimum(trained.diverged_at, diverged_snapshots(loss, snapshots))


def diverged_snapshots(loss: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
    """Return the first snapshot at which each member's loss had diverged, or NEVER, for losses (members, snapshots)."""
    broken = ~(np.isfinite(loss) & (loss <= DIVERGED_RATIO * (loss[:, :1] + 1)))
    return np.where(broken.any(axis=1), snapshots[np.argmax(broken, axis=1)], NEVER)


@compiled(static_argnames=("network", "measure", "layout", "generator"))
def _members(
    network: Network,
    measure: Snapshot,
    numbers: Array,
    shared: dict[str, Array],
    layout: Spread,
    generator: Any,
) -> Member:
    """Initialize members from the raw data of their random keys, and distribute the members across the devices."""
    span = shared.get("span")

    def draw(key: Array) -> Variables:
        return dict(network.init(start_key(key), shared["x"] if span is None else span.T))

    def make(key: Array, variables: Variables) -> Member:
        norms = parameter_norm(variables["params"]), array_norms(variables["params"])
        if span is not None:
            variables = {
                group: {name: array @ span if name == "hidden" else array for name, array in arrays.items()}
                for group, arrays in variables.items()
            }
        return Member(variables, batch_key(key), measure.context(variables, norms, shared))

    keys = layout.spread(jax.random.wrap_key_data(numbers, impl=generator))
    # A loop over draws compiles three times as fast as one batched draw.
    variables = jax.lax.map(draw, keys) if layout.mesh is None else jax.vmap(draw)(keys)
    return layout.spread(jax.vmap(make)(keys, variables))


def _share(arrays: dict[str, np.ndarray], data: Dataset, scalars: dict[str, float], dtype: str) -> dict[str, Array]:
    labels = {"y": data.y_train, "y_test": data.y_test}
    rows = {name: network_rows(array, dtype) for name, array in {**arrays, "x_test": data.x_test}.items()}
    return rows | {name: jnp.asarray(value, dtype) for name, value in {**labels, **scalars}.items()}


def _times(on_steps: Callable[[int], None], members: int) -> Callable[[int], None]:
    return lambda steps: on_steps(steps * members)
