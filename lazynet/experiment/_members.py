"""Training a pack of members of one width, which share one compiled program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.data import Dataset
from lazynet.experiment._devices import Spread, mesh_for, on_all, padded, splits_neurons
from lazynet.experiment._shared_inputs import Prepared
from lazynet.experiment._spec import Measures, Training, examples
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
from lazynet.networks import Linearized, at_width, traits
from lazynet.precision import arithmetic
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
    get_optimizer,
    simulate,
)
from lazynet.training._keys import batch_key, start_key
from lazynet.typing import Variables


class Trained(NamedTuple):
    """Members of one width: variables before and after (stacked), and what was measured, (members, snapshots, ...)."""

    variables_0: Variables
    variables: Variables
    records: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray


class Start(NamedTuple):
    """The norm of a member's parameters at the start, that of each array, and the empirical kernel (parts, n, n)."""

    norm: Array
    norms: Array
    kernel: Array


@dataclass(frozen=True)
class Snapshot:
    """What is measured on the device at each snapshot, of a stepper's network.

    `own` are a user's measures; `measured` is the number of training examples to look at, if not at all.
    """

    stepper: Stepper
    own: Measures = ()
    sharpness: bool = False
    measured: int | None = None

    def context(self, variables: Variables, norms: tuple[Array, Array], shared: dict[str, Array]) -> Start:
        """What is known of the start."""
        return Start(*norms, self._kernel(variables, shared["x"][: self.measured]))

    def __call__(self, variables: Variables, member: Member, shared: dict[str, Array]) -> dict[str, Any]:
        """Predictions and movement, by the names of the result."""
        start, x, network = member.variables, shared["x"][: self.measured], self.stepper.network
        moved = displacement(variables["params"], start["params"])
        more = {name: measure(variables, start, examples(shared, self.measured)) for name, measure in self.own}
        if self.sharpness:
            fixed = {name: value for name, value in variables.items() if name != "params"}

            def outputs(params: Any) -> Any:
                return network.apply({**fixed, "params": params}, x)

            more["sharpness"] = sharpness(outputs, variables["params"])
            more["learning_rate_over_stability_limit"] = shared["learning_rate"] * more["sharpness"] / 2
        known, facts = member.context, traits(network)
        if facts.neurons is not None:
            more["max_neuron_displacement"] = max_neuron_displacement(facts.neurons(variables), facts.neurons(start))
        if facts.preactivations is not None:
            more["activation_flips"] = sign_changes(facts.preactivations(variables, x), facts.preactivations(start, x))
        kernel = self._kernel(variables, x)
        if len(known.norms) > 1 and facts.hidden_layer is None:
            arrays = array_displacements(variables["params"], start["params"])
            more["layer_displacement"] = arrays
            # A bias may start at zero, and is then no part of anything.
            more["layer_relative_displacement"] = jnp.where(known.norms > 0, arrays / known.norms, jnp.nan)
        if len(kernel) > 1:
            there = jnp.any(known.kernel != 0, axis=(1, 2))
            more["layer_kernel_drift"] = jnp.where(there, jax.vmap(relative_distance)(kernel, known.kernel), jnp.nan)
        return {
            "train_prediction": self.stepper.outputs(variables, x, shared),
            "test_prediction": self.stepper.outputs(variables, shared["x_test"], shared),
            "displacement": moved,
            "relative_displacement": moved / known.norm,
            "kernel_drift": relative_distance(jnp.sum(kernel, axis=0), jnp.sum(known.kernel, axis=0)),
            **more,
        }

    def _kernel(self, variables: Variables, x: Array) -> Array:
        """The empirical kernel by trained array, (arrays, n, n), or the whole of it as (1, n, n)."""
        network = self.stepper.network
        layer = traits(network).hidden_layer
        if layer is None:
            parts, arrays = layer_kernels(network, variables, x), len(jax.tree.leaves(variables["params"]))
            nothing = jnp.zeros((len(x), len(x)), x.dtype)
            return jnp.stack([parts.get(place, nothing) for place in range(arrays)])
        by_counting = layer.signs and layer.train == "hidden" and layer.binary_slopes
        return average_ntk(network, variables, x, by_counting=by_counting)[None]


@dataclass(frozen=True)
class Predictions:
    """Only the predictions of a network."""

    network: Any

    def __call__(self, variables: Variables, member: Member, shared: dict[str, Array]) -> dict[str, Array]:
        """Predictions on the training and the test set."""
        return {
            "train_prediction": self.network.apply(variables, shared["x"]),
            "test_prediction": self.network.apply(variables, shared["x_test"]),
        }


def train_members(
    network: Any,
    data: Dataset,
    keys: Sequence[Array],
    training: Training,
    learning_rate: float,
    prepared: Prepared,
    on_steps: Callable[[int], None] = lambda steps: None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train one member for each key side by side, all of this network's width, and measure them."""
    mesh, facts = mesh_for(len(keys), network.width), traits(network)
    alpha = 1.0
    if isinstance(prepared.stepper, FlowStepper) and "output_scale" in facts.fields:
        alpha, network = at_width(network.output_scale, network.width), network.clone(output_scale=1.0)
    # Networks that differ in their start alone share the program that trains them.
    trains = network.clone(**dict.fromkeys(facts.start_fields, 1.0))
    stepper, units = replace(prepared.stepper, network=trains), Units(mesh if splits_neurons(mesh) else None)
    if isinstance(stepper, HiddenStepper):
        stepper = replace(stepper, units=units)
    measure = Snapshot(stepper, training.measures, training.sharpness, training.measured)
    data = prepared.seen(data)
    # What fills devices up is thrown away.
    every = [*keys, *[keys[-1]] * (padded(len(keys), mesh) - len(keys))]
    with arithmetic(training.dtype):
        scalars = {"learning_rate": learning_rate, "output_scale": alpha}
        shared = on_all(_share(prepared.arrays, data, scalars, training.dtype), mesh)
        numbers = on_all(jax.random.key_data(jnp.stack(every)), mesh)
        layout = Spread(mesh, units.lengths(network.width))
        members = _members(network, measure, numbers, shared, layout)
        report = _times(on_steps, len(keys))
        steps, stop = training.snapshot_steps, training.stop
        outcome = simulate(stepper, measure, members, shared, steps, report, checkpoint, stop, layout)
        trained = layout.to_host((members.variables, *outcome))
    found = Trained(*jax.tree.map(lambda leaf: leaf[: len(keys)], trained))
    if facts.starts_at_zero:
        # What is there is the rounding of a sum that cancels.
        for name in ("train_prediction", "test_prediction"):
            found.records[name][:, 0] = 0
    return found


def train_polynomials(
    polynomial: Linearized,
    data: Dataset,
    trained: Trained,
    keys: Sequence[Array],
    training: Training,
    learning_rate: float,
) -> dict[str, np.ndarray]:
    """Predictions of a Taylor polynomial of the members at their starts, trained as they were: steps, loss, batches."""
    stepper = AutodiffStepper(polynomial, training.loss, get_optimizer(training.optimizer), training.batch_size)
    with arithmetic(training.dtype):
        shared = _share(stepper.share(data.x_train), data, {"learning_rate": learning_rate}, training.dtype)
        records = []
        for i, key in enumerate(keys):
            start = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], trained.variables_0)
            members = Member(polynomial.at(start), batch_key(key)[None], None)
            records.append(simulate(stepper, Predictions(polynomial), members, shared, training.snapshot_steps).records)
    return {name: np.concatenate([record[name] for record in records]) for name in records[0]}


def first_diverged(trained: Trained, loss: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
    """The step at which each member had diverged, seen in the scan or at a snapshot; NEVER where it had not."""
    # No step looks at the loss after the last one.
    broken = ~(np.isfinite(loss) & (loss <= DIVERGED_RATIO * (loss[:, :1] + 1)))
    at_snapshot = np.where(broken.any(axis=1), snapshots[np.argmax(broken, axis=1)], NEVER)
    return np.minimum(trained.diverged_at, at_snapshot)


@partial(jax.jit, static_argnames=("network", "measure", "layout"))
def _members(network: Any, measure: Snapshot, numbers: Array, shared: dict[str, Array], layout: Spread) -> Member:
    """The members whose keys have these numbers at their start, where they are to be."""
    span = shared.get("span")

    def drawn(key: Array) -> Variables:
        return dict(network.init(start_key(key), shared["x"] if span is None else span.T))

    def one(key: Array, variables: Variables) -> Member:
        norms = parameter_norm(variables["params"]), array_norms(variables["params"])
        if span is not None:
            variables = {
                group: {name: array @ span if name == "hidden" else array for name, array in arrays.items()}
                for group, arrays in variables.items()
            }
        return Member(variables, batch_key(key), measure.context(variables, norms, shared))

    keys = layout.spread(jax.random.wrap_key_data(numbers))
    # Drawn one after the other where they are all on one device, which compiles in a third of the time.
    variables = jax.lax.map(drawn, keys) if layout.mesh is None else jax.vmap(drawn)(keys)
    return layout.spread(jax.vmap(one)(keys, variables))


def _share(arrays: dict[str, np.ndarray], data: Dataset, scalars: dict[str, float], dtype: str) -> dict[str, Array]:
    labels = {"y": data.y_train, "y_test": data.y_test}
    every = {**arrays, **labels, "x_test": data.x_test, **scalars}
    return {name: jnp.asarray(value, dtype) for name, value in every.items()}


def _times(on_steps: Callable[[int], None], members: int) -> Callable[[int], None]:
    return lambda steps: on_steps(steps * members)
