"""The axes of a study other than width and seed, and the grid of points that they span."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from lazynet.arguments import check_count
from lazynet.data import Dataset, label_noise
from lazynet.experiment._training import Training
from lazynet.networks import Network, Scale, traits
from lazynet.plan import MOST
from lazynet.training import Optimizer, get_optimizer
from lazynet.training._keys import noise_key, subsample_key

# The parts of a study that an axis can vary.
Source = Literal["network", "inputs", "labels", "learning_rate", "training"]
DATA_AXES: dict[str, Source] = {"n_train": "inputs", "label_noise": "labels"}
OPTIMIZER_AXES = tuple(field.name for field in dataclasses.fields(Optimizer) if field.name != "name")
TRAINING_AXES: dict[str, Source] = {
    "learning_rate": "learning_rate",
    "batch_size": "training",
    "optimizer": "training",
    **dict.fromkeys(OPTIMIZER_AXES, "training"),
}
COUNTS = ("n_train", "batch_size")
NUMBERS = ("label_noise", "learning_rate", "momentum", "weight_decay", "ridge")


class Axis(NamedTuple):
    """An axis of the grid, along which one setting of the study varies.

    Attributes:
        name: Name of the setting.
        source: The part of the study to which the setting belongs.
        values: The values of the setting.
        labels: The label of each value, in the same order.
    """

    name: str
    source: Source
    values: tuple[Any, ...]
    labels: tuple[Any, ...]


class Point(NamedTuple):
    """A point in the grid, at which each axis has a single value and only the width and the seed vary.

    Attributes:
        labels: The label of this point's value on each axis that has several values, keyed by the name of the axis.
        network: The network family.
        data: The examples and labels at this point.
        training: Settings used to train and measure the members.
        learning_rate: Learning rate eta, as a number or a function of the width, or None for the default.
        kernel_key: Key that differs between points with different infinite-width kernels.
        program_key: Key that identifies the compiled programs that train the members.
    """

    labels: dict[str, Any]
    network: Network
    data: Dataset
    training: Training
    learning_rate: Scale | None
    kernel_key: tuple[Any, ...]
    program_key: tuple[Any, ...]


def make_axes(axes: Any, network: Network) -> list[Axis]:
    """Return the axes described by a mapping from names to lists of values, in the order of the mapping.

    Raises:
        ValueError: If a name does not uniquely identify a setting of the network, data or training, if a list is
            empty, repeats a value, or contains an invalid value, or if there are too many points.
    """
    if axes is None:
        return []
    if not isinstance(axes, Mapping):
        raise ValueError(f"axes must map names to lists of values, got {axes!r}.")
    fields = tuple(name for name in traits(network).fields if name != "outputs")
    made = [_axis(name, values, network, fields) for name, values in axes.items()]
    points = math.prod(len(axis.values) for axis in made)
    if points > MOST:
        raise ValueError(f"axes must span at most {MOST} points, got {points}.")
    return made


def points_of(
    network: Network, data: Dataset, training: Training, learning_rate: Scale | None, axes: list[Axis]
) -> list[Point]:
    """Return all points in the grid, with the last axis varying fastest.

    Raises:
        ValueError: If a value is invalid for the data or the network.
    """
    datasets: dict[tuple[int | None, float], Dataset] = {}
    points = []
    for places in product(*(range(len(axis.values)) for axis in axes)):
        values = {axis.name: axis.values[i] for axis, i in zip(axes, places, strict=True)}
        labels = {axis.name: axis.labels[i] for axis, i in zip(axes, places, strict=True) if len(axis.values) > 1}
        subset = values.get("n_train"), values.get("label_noise", 0.0)
        if subset not in datasets:
            datasets[subset] = _subset(data, *subset)
        family = {axis.name: values[axis.name] for axis in axes if axis.source == "network"}
        kernel_key = tuple(labels.get(axis.name) for axis in axes if axis.source in ("network", "inputs"))
        program_key = tuple(
            labels.get(axis.name)
            for axis in axes
            # With gradient flow, points that differ only in their output scale share a program, which takes the scale
            # as an argument.
            if axis.source in ("network", "inputs") and not (training.is_flow and axis.name == "output_scale")
        )
        points.append(
            Point(
                labels,
                network.clone(**family),
                datasets[subset],
                _training_at(training, values, datasets[subset]),
                values.get("learning_rate", learning_rate),
                kernel_key,
                program_key,
            )
        )
    return points


def _axis(name: Any, values: Any, network: Network, fields: tuple[str, ...]) -> Axis:
    sources = [source for source, names in ((None, fields), (name, (DATA_AXES | TRAINING_AXES))) if name in names]
    if not sources:
        allowed = ", ".join((*fields, *DATA_AXES, *TRAINING_AXES))
        raise ValueError(f"axes must be chosen from {allowed} for {traits(network).name}, got {name!r}.")
    if len(sources) > 1:
        raise ValueError(
            f"axes must have unambiguous names, got {name!r}, which is both a field of the network and a setting of "
            "the sweep. Rename the field of the network."
        )
    if isinstance(values, np.ndarray | jax.Array):
        values = np.asarray(values).tolist()
    if not isinstance(values, list | tuple | range):
        raise ValueError(f"axes[{name!r}] must be a list of values, got {values!r}.")
    if not values:
        raise ValueError(f"axes[{name!r}] must contain at least one value, got an empty list.")
    source: Source = "network" if name in fields else (DATA_AXES | TRAINING_AXES)[name]
    checked = tuple(_value(name, value, network if source == "network" else None) for value in values)
    labels = tuple(_label(value) for value in checked)
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise ValueError(f"axes[{name!r}] must have distinct values, got {repeated[0]!r} more than once.")
    if len({isinstance(label, str) for label in labels}) > 1:
        labels = tuple(map(str, labels))
    return Axis(name, source, checked, labels)


def _value(name: str, value: Any, network: Network | None) -> Any:
    """Check the type of an axis value and convert the value to a Python object."""
    if isinstance(value, np.generic):
        value = value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in COUNTS:
        check_count(name, value)
    elif name in NUMBERS and not is_number and not (name == "learning_rate" and callable(value)):
        functions = " or functions of the width" if name == "learning_rate" else ""
        raise ValueError(f"axes[{name!r}] must contain only numbers{functions}, got {value!r}.")
    # Scales are floats, even if the user writes 1 instead of 1.0.
    is_scale = network is not None and (callable(now := getattr(network, name)) or isinstance(now, float))
    return float(value) if is_number and (is_scale or name in NUMBERS) else value


def _label(value: Any) -> Any:
    """Return the label of a value: numbers and strings are their own labels, and functions are labeled by name."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Optimizer):
        settings = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        changed = [f"{f.name}={settings[f.name]}" for f in dataclasses.fields(value) if settings[f.name] != f.default]
        return " ".join([value.name, *(each for each in changed if not each.startswith("name="))])
    return str(getattr(value, "__name__", value))


def _training_at(training: Training, values: dict[str, Any], data: Dataset) -> Training:
    """Return the training settings at one point."""
    batch_size = values.get("batch_size", training.batch_size)
    # If each batch contains all examples, use full-batch training, for which the batch size is None.
    if isinstance(batch_size, int | np.integer) and batch_size == data.n_train:
        batch_size = None
    optimizer = get_optimizer(values["optimizer"]) if "optimizer" in values else training.optimizer
    settings = {name: values[name] for name in OPTIMIZER_AXES if name in values}
    if settings:
        if not isinstance(optimizer, Optimizer):
            raise ValueError(
                f"optimizer must be a name or a lazynet.Optimizer if an axis varies {next(iter(settings))!r}, "
                f"got {optimizer!r}."
            )
        optimizer = replace(optimizer, **settings)
    return replace(training, batch_size=batch_size, optimizer=optimizer)


def check_not_twice(axes: list[Axis], learning_rate: Any, training: Training) -> None:
    """Raise an error if an axis varies a setting that is also passed as an argument."""
    optimizer = training.optimizer
    given: dict[str, Callable[[], bool]] = {
        "learning_rate": lambda: learning_rate is not None,
        "batch_size": lambda: training.batch_size is not None,
        "optimizer": lambda: optimizer != Optimizer(),
        **{
            name: lambda name=name: (  # type: ignore[misc]
                isinstance(optimizer, Optimizer) and getattr(optimizer, name) != getattr(Optimizer(), name)
            )
            for name in OPTIMIZER_AXES
        },
    }
    for axis in axes:
        if axis.name in given and given[axis.name]():
            raise ValueError(f"axes must not vary a setting that is also passed as an argument, got {axis.name!r}.")


def _subset(data: Dataset, n_train: int | None, noise: float) -> Dataset:
    """Keep n_train random training examples in their original order, and redraw a fraction `noise` of their labels."""
    if n_train is not None and n_train > data.n_train:
        raise ValueError(f"n_train must be at most the number of training examples ({data.n_train}), got {n_train}.")
    if not 0 <= noise <= 1:
        raise ValueError(f"label_noise must be between 0 and 1, got {noise}.")
    if n_train not in (None, data.n_train):
        order = np.asarray(jax.random.permutation(subsample_key(), np.arange(data.n_train, dtype=np.int32)))
        rows = np.sort(order[:n_train])
        data = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
    return replace(data, y_train=label_noise(data.y_train, noise, noise_key())) if noise else data
