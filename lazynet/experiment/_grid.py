"""The axes of a sweep besides width and seed, and the points where their values meet."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from lazynet.data import Dataset, label_noise
from lazynet.experiment._spec import Training, check_count
from lazynet.measures._catalogue import OF_KERNEL
from lazynet.networks import Scale, traits
from lazynet.training import FLOW
from lazynet.training._keys import noise_key, subsample_key

# In the order of the result's dims; points of one kernel are neighbors.
AXES = (*OF_KERNEL, "learning_rate", "batch_size", "label_noise")
WHOLE = ("n_train", "batch_size")


class Point(NamedTuple):
    """One value of each axis: a sweep over widths and seeds alone.

    `labels` has the value of each axis with several, `data` the examples and labels of this point.
    """

    labels: dict[str, Any]
    network: Any
    data: Dataset
    training: Training
    learning_rate: Scale | None

    @property
    def of_kernel(self) -> tuple:
        """What tells apart the points with another kernel of infinite width."""
        return tuple(self.labels.get(name) for name in OF_KERNEL)

    @property
    def of_program(self) -> tuple:
        """What tells apart the points whose members are trained by other programs: to a flow alpha is an argument."""
        given = () if self.training.optimizer != FLOW else ("output_scale",)
        return tuple(self.labels.get(name) for name in OF_KERNEL if name not in given)


def split_axes(given: dict[str, Any]) -> tuple[dict[str, list], dict[str, Any]]:
    """Axes that were given as several values, in the order of AXES, and the single values of all others.

    Raises:
        ValueError: if a list is empty, repeats a value or holds what an axis cannot be labeled with.
    """
    axes: dict[str, list] = {}
    single: dict[str, Any] = {}
    for name in AXES:
        value = given[name]
        if isinstance(value, np.ndarray | jax.Array):
            value = np.asarray(value).tolist()
        if not isinstance(value, list | tuple | range):
            single[name] = value
            continue
        values = [_label(name, one) for one in value]
        if not values:
            raise ValueError(f"{name} is an empty list, but must have at least one value.")
        repeated = [one for i, one in enumerate(values) if one in values[:i]]
        if repeated:
            raise ValueError(f"{name} has {repeated[0]} more than once, but every value may stand there once.")
        if len(values) == 1:
            single[name] = values[0]
        else:
            axes[name] = values
    return axes, single


def points_of(
    network: Any, data: Dataset, training: Training, axes: dict[str, list], single: dict[str, Any]
) -> list[Point]:
    """All points, the last axis fastest.

    Raises:
        ValueError: if a value is one that data or network cannot have.
    """
    return list(_points(network, data, training, axes, single))


def _points(
    network: Any, data: Dataset, training: Training, axes: dict[str, list], single: dict[str, Any]
) -> Iterator[Point]:
    found: dict[tuple[int | None, float], Dataset] = {}
    for values in product(*axes.values()):
        labels = dict(zip(axes, values, strict=True))
        at = single | labels
        family = {name: at[name] for name in OF_KERNEL[:3] if at[name] is not None}
        known = traits(network)
        for name in family:
            if name not in known.fields:
                raise ValueError(f"{name} is given, but a network from {known.name} has none; leave it out.")
        examples = at["n_train"], at["label_noise"]
        if examples not in found:
            found[examples] = _data_of(data, *examples)
        here = found[examples]
        batch = at["batch_size"]
        # A batch of all examples is none.
        whole = isinstance(batch, int | np.integer) and batch == here.n_train
        own = replace(training, batch_size=None if whole else batch)
        yield Point(labels, network.clone(**family), here, own, at["learning_rate"])


def _data_of(data: Dataset, n_train: int | None, noise: float) -> Dataset:
    """n_train of the examples at random, in their order, and this share of their labels drawn anew."""
    if n_train is not None:
        check_count("n_train", n_train)
        if n_train > data.n_train:
            raise ValueError(f"n_train is {n_train}, but the data set has {data.n_train} training examples.")
    if not 0 <= noise <= 1:
        raise ValueError(f"label_noise is {noise}, but must be a share from 0 to 1.")
    if n_train not in (None, data.n_train):
        order = np.asarray(jax.random.permutation(subsample_key(), np.arange(data.n_train, dtype=np.int32)))
        rows = np.sort(order[:n_train])
        data = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
    return replace(data, y_train=label_noise(data.y_train, noise, noise_key())) if noise else data


def _label(name: str, value: Any) -> Any:
    """A value of an axis as its coordinate has it."""
    if name == "activation" and isinstance(value, str):
        return value
    number = not isinstance(value, bool) and isinstance(value, int | float | np.number)
    if name == "activation" or not number:
        allowed = "names" if name == "activation" else "numbers"
        raise ValueError(f"{name} has {value!r} in its list, but a list must hold {allowed}; a function stands alone.")
    if name in WHOLE:
        check_count(name, value)
        return int(value)
    return float(value)
