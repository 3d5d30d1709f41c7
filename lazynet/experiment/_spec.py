"""The specification of a study, which is validated before any work starts, and its canonical JSON form."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import jax
import numpy as np

from lazynet.arrays import input_dtype
from lazynet.data import Dataset
from lazynet.experiment._arguments import check_inputs, check_seeds, check_widths
from lazynet.experiment._grid import Axis, Point, check_not_twice, make_axes, points_of
from lazynet.experiment._packing import packs_of
from lazynet.experiment._record import Pack, PointRecord, Record
from lazynet.experiment._settings import (
    as_json,
    fingerprint,
    function_values,
    layer_names_of,
    sweep_settings,
    traits_record,
)
from lazynet.experiment._training import Training
from lazynet.kernels import limit_key
from lazynet.measures import catalog, rms, settings_by_width
from lazynet.networks import GivenNetwork, Network, Scale, at_width, check_members_differ, traits
from lazynet.plan import check_memory
from lazynet.training import member_key

Rates = dict[int, float]


@dataclass(frozen=True)
class Spec:
    """The validated specification of a study over widths, seeds and axes.

    Attributes:
        network: The network family.
        data: The full data set, before axes such as `n_train` and `label_noise` change it.
        widths: Numbers of hidden units, in ascending order.
        seeds: The seeds.
        training: Settings used to train and measure every member, except for the settings that an axis varies.
        learning_rate: Learning rate eta, as a number or a function of the width, or None for the default.
        axes: The axes in the given order, including axes with a single value.
    """

    network: Network
    data: Dataset
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    training: Training
    learning_rate: Scale | None
    axes: tuple[Axis, ...]

    @cached_property
    def points(self) -> list[Point]:
        """The points in the grid, with the last axis varying fastest."""
        widest = self.network.clone(width=self.widths[-1])
        return points_of(widest, self.data, self.training, self.learning_rate, list(self.axes))

    @cached_property
    def packs(self) -> list[Pack]:
        """The packs of members, grouped by the program that their points share and then ordered by width."""
        by_program: dict[tuple[Any, ...], list[int]] = {}
        for number, point in enumerate(self.points):
            by_program.setdefault(point.program_key, []).append(number)
        return [
            Pack(number, width, seeds)
            for numbers in by_program.values()
            for width, number in product(self.widths, numbers)
            for seeds in self._packs_at(self.points[number], width)
        ]

    @property
    def varied(self) -> dict[str, list[Any]]:
        """The labels of each axis that has several values and therefore becomes a dimension of the result."""
        return {axis.name: list(axis.labels) for axis in self.axes if len(axis.values) > 1}

    @cached_property
    def layers(self) -> list[str]:
        """The distinct names of all arrays that are trained at one or more points."""
        names = (layer_names_of(point.network, self.data) for point in self.points)
        return list(dict.fromkeys(name for layers in names for name in layers))

    def settings(self, rates: Rates | None) -> dict[str, Any]:
        """Return the settings for the study.

        If an axis varies a setting, the value of that setting is the list of axis labels.

        Args:
            rates: Learning rate at each width, or None if the points have different learning rates.

        Returns:
            The settings, keyed by name.
        """
        point = self.points[0]
        settings = sweep_settings(point.network, point.data, point.training)
        settings |= {"widths": self.widths, "seeds": self.seeds, "label_noise": 0.0, "learning_rate": rates}
        settings |= {axis.name: axis.labels[0] for axis in self.axes if axis.source != "learning_rate"}
        # If the traits differ between points, record them for every point.
        records = [traits_record(point.network) for point in self.points]
        settings["traits"] = records[0] if all(record == records[0] for record in records) else records
        return settings | {"layers": self.layers} | ({"axes": self.varied, **self.varied} if self.varied else {})

    def request(self) -> str:
        """Return the specification of the study.

        The specification includes a hash of the data. User-supplied functions are identified by their values at fixed
        inputs.

        Returns:
            The specification as canonical JSON.
        """
        data = self.data
        rates = [
            None if point.learning_rate is None else _by_width(point.learning_rate, self.widths)
            for point in self.points
        ]
        scales = [self._scales(point) for point in self.points]
        one_rate = rates[0] if all(rate == rates[0] for rate in rates) else None
        return as_json(
            self.settings(one_rate)
            | {"scales": scales[0] if all(scale == scales[0] for scale in scales) else scales, "rates": rates}
            | function_values(self.points, self.widths[0], data)
            | {"data": fingerprint(data.x_train, data.y_train, data.x_test, data.y_test)},
            canonical=True,
        )

    def record(self, rates: list[Rates]) -> Record:
        """Return the record to store in a run folder.

        Args:
            rates: Learning rates at each point, keyed by width.

        Returns:
            The record.
        """
        one_rate = all(point_rates == rates[0] for point_rates in rates)
        points = tuple(
            PointRecord(
                labels=point.labels,
                by_width={
                    name: tuple(values[width] for width in self.widths)
                    for name, values in {"learning_rate": point_rates, **self._scales(point)}.items()
                },
                target_rms=float(rms(point.data.y_train, point.data.y_train.ndim)),
                test_target_rms=float(rms(point.data.y_test, point.data.y_test.ndim)) if point.data.n_test else None,
                one_kernel=len({limit_key(point.network.clone(width=width)) for width in self.widths}) == 1,
                layers=tuple(layer_names_of(point.network, point.data)),
            )
            for point, point_rates in zip(self.points, rates, strict=True)
        )
        return Record(
            settings=json.loads(as_json(self.settings(rates[0] if one_rate else None))),
            axes={axis.name: axis.source for axis in self.axes if len(axis.values) > 1},
            points=points,
            packs=tuple(self.packs),
            keys={width: _key_data(width, self.seeds) for width in self.widths},
        )

    def _packs_at(self, point: Point, width: int) -> list[list[int]]:
        rows = point.training.batch_size or point.data.n_train
        dtype = input_dtype(point.data.x_train, "float32")
        return packs_of(self.seeds, point.network.clone(width=width), rows, point.data.dim, dtype)

    def _scales(self, point: Point) -> dict[str, Rates]:
        return {
            name: _by_width(getattr(point.network, name), self.widths)
            for name in settings_by_width()
            if name in traits(point.network).fields
        }


def make_spec(
    network: GivenNetwork,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int],
    training: Training,
    learning_rate: Scale | None = None,
    axes: Any = None,
) -> Spec:
    """Check the arguments of a study and return its specification.

    Args:
        network: Network of any width.
        data: Training and test sets, before axes such as `n_train` and `label_noise` change them.
        widths: Distinct numbers of units m, in any order.
        seeds: Number of seeds, or a list of distinct nonnegative seeds.
        training: Settings used to train and measure every member, except for the settings that an axis varies.
        learning_rate: Learning rate eta, as a positive number or a function of the width. Defaults to a rate that is
            computed from the largest eigenvalue of the kernel; this default exists only for the squared loss with the
            optimizer "sgd" or "flow".
        axes: Mapping from names of settings to lists of values, as in `lazynet.sweep`. Defaults to no axes.

    Returns:
        The specification.

    Raises:
        ValueError: If an argument is invalid. The message states the allowed values.
    """
    data = check_inputs(network, data)
    checked_axes = make_axes(axes, network)
    check_not_twice(checked_axes, learning_rate, training)
    rates = next((axis.values for axis in checked_axes if axis.name == "learning_rate"), (learning_rate,))
    for rate in rates:
        ordered = check_widths(widths, network, rate)
    members = check_seeds(seeds)
    _check_size(len(ordered) * len(members) * math.prod(len(axis.values) for axis in checked_axes), training)
    check_members_differ(network, ordered, members, data.x_train)
    spec = Spec(network, data, ordered, members, training, learning_rate, tuple(checked_axes))
    for point in spec.points:
        point.training.check(point.network, point.data, point.learning_rate)
    _check_shapes(spec)
    return spec


def _check_size(networks: int, training: Training) -> None:
    """Check that the result of a study fits in memory.

    Args:
        networks: Number of networks.
        training: Settings used to train and measure every network.

    Raises:
        ValueError: If the result does not fit, or if the number of steps or snapshots is invalid.
    """
    training.check_steps()
    check_memory(f"The result for {networks} networks", 8 * networks * len(training.snapshot_steps) * len(catalog()))


def _check_shapes(spec: Spec) -> None:
    """Raise an error if the shape of a user-supplied quantity differs between points or widths."""
    if not spec.training.own_measures:
        return
    expected = None
    for point in spec.points:
        for width in spec.widths:
            shapes = point.training.own_shapes(point.network.clone(width=width), point.data)
            expected = expected or shapes
            if shapes != expected:
                place = ", ".join(f"{name}={value}" for name, value in {"width": width, **point.labels}.items())
                raise ValueError(
                    "each function in measure.own must return arrays of the same shape at all points and widths, got "
                    f"{shapes} at {place}, but {expected} elsewhere."
                )


def _by_width(value: Scale, widths: Sequence[int]) -> Rates:
    return {width: at_width(value, width) for width in widths}


def _key_data(width: int, seeds: Sequence[int]) -> list[list[int]]:
    """Return the random key of every member as integers, which depend on JAX's random number generator."""
    return [np.asarray(jax.random.key_data(member_key(width, seed))).tolist() for seed in seeds]
