"""What a sweep is asked for: every refusal that needs no work, its cells, and the record that its folder keeps."""

import json
from collections.abc import Sequence
from itertools import groupby, product
from typing import Any, NamedTuple

import jax
import numpy as np

from lazynet.data import Dataset
from lazynet.experiment._grid import Point, points_of, split_axes
from lazynet.experiment._packing import packs_of
from lazynet.experiment._record import as_json, fingerprint, layers, sweep_settings, traits_record, tried
from lazynet.experiment._result import Pack
from lazynet.experiment._spec import Training, check_seeds, check_widths
from lazynet.kernels import limit_key
from lazynet.measures._catalogue import SCALES
from lazynet.networks import at_width, check_members_differ, check_network, traits
from lazynet.training._keys import member_key

Settings = dict[str, Any]
Rates = dict[int, float]


class Study(NamedTuple):
    """A sweep: widths in ascending order, seeds, axes with their values, the points where those meet, single values."""

    data: Dataset
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    axes: dict[str, list]
    points: list[Point]
    single: dict[str, Any]

    @property
    def packs(self) -> list[Pack]:
        """Every cell: what shares a kernel or a program together, width by width."""
        return [
            Pack(number, width, pack)
            for _, alike in groupby(enumerate(self.points), key=lambda numbered: numbered[1].of_program)
            for width, (number, point) in product(self.widths, list(alike))
            for pack in packs_of(
                self.seeds,
                point.network.clone(width=width),
                point.training.batch_size or point.data.n_train,
                point.data.dim,
            )
        ]

    @property
    def layers(self) -> list[str]:
        """The names of trained arrays."""
        return layers(self.points[0].network, self.data)

    @property
    def given_rates(self) -> Rates | None:
        """The learning rate at each width, where one was given."""
        given = self.single.get("learning_rate")
        return None if given is None else {width: at_width(given, width) for width in self.widths}

    def settings(self, learning_rate: Rates | None) -> Settings:
        """All settings; what is an axis is a list."""
        network, data, training = self.points[0].network, self.points[0].data, self.points[0].training
        more = {"widths": self.widths, "seeds": self.seeds, "label_noise": self.single.get("label_noise")}
        settings = sweep_settings(network, data, training, **more, learning_rate=learning_rate)
        # One record for each point, if they differ.
        records = [traits_record(point.network) for point in self.points]
        alike = all(record == records[0] for record in records)
        settings["traits"] = records[0] if alike else records
        return settings | ({"axes": self.axes, **self.axes} if self.axes else {})

    def asked(self) -> str:
        """What is asked, as JSON, with what names do not tell apart: what functions do, the digits of the data."""
        data = self.data
        digits = fingerprint(data.x_train, data.y_train, data.x_test, data.y_test)
        scales = self._scales(self.points[0])
        return as_json(
            self.settings(self.given_rates)
            | {name: values for name, values in scales.items() if name not in self.axes}
            | tried(self.points[0].training, self.points[0].network.clone(width=self.widths[0]), data)
            | {"data": digits}
        )

    def record(self, rates: list[Rates]) -> tuple[Settings, Settings]:
        """The settings of the result, and with them what the engine has to know again to go on."""
        settings = self.settings(rates[0] if all(of_point == rates[0] for of_point in rates) else None)
        engine = {
            "points": [
                {
                    "labels": point.labels,
                    "by_width": {"learning_rate": of_point, **self._scales(point)},
                    "target_rms": float(np.sqrt(np.mean(point.data.y_train**2))),
                    "one_kernel": len({limit_key(point.network.clone(width=width)) for width in self.widths}) == 1,
                }
                for point, of_point in zip(self.points, rates, strict=True)
            ],
            "packs": self.packs,
            "keys": {width: _key_data(width, self.seeds) for width in self.widths},
        }
        return settings, json.loads(as_json(settings | {"engine": engine}))

    def _scales(self, point: Point) -> dict[str, dict[int, float]]:
        return {
            name: {width: at_width(getattr(point.network, name), width) for width in self.widths}
            for name in SCALES
            if name in traits(point.network).fields
        }


def study_of(
    network: Any,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int],
    training: Training,
    given: dict[str, Any],
) -> Study:
    """The sweep that is asked for, `given` a value or several for each of AXES.

    Raises:
        ValueError: naming the argument, what came and what is allowed.
    """
    check_network(network, data.x_train)
    axes, single = split_axes(given)
    rates = axes.get("learning_rate") or [single["learning_rate"]]
    for rate in rates:
        ordered = check_widths(widths, network, rate)
    chosen = check_seeds(seeds)
    check_members_differ(network, ordered, chosen, data.x_train)
    points = points_of(network.clone(width=ordered[-1]), data, training, axes, single)
    for point in points:
        point.training.check(point.network, point.data, point.learning_rate)
    expected = training.shapes(points[0].network.clone(width=ordered[0]), points[0].data)
    for point in points:
        for width in ordered:
            shapes = training.shapes(point.network.clone(width=width), point.data)
            if shapes != expected:
                at = ", ".join(f"{name}={value}" for name, value in {"width": width, **point.labels}.items())
                raise ValueError(
                    f"measures give arrays of shapes {expected}, but {shapes} at {at}; they must not differ."
                )
    return Study(data, ordered, chosen, axes, points, single)


def rates_of(record: Settings) -> list[Rates]:
    """The learning rates by width at each point, of a sweep that was begun."""
    found = [point["by_width"]["learning_rate"] for point in record["engine"]["points"]]
    return [{int(width): rate for width, rate in rates.items()} for rates in found]


def _key_data(width: int, seeds: Sequence[int]) -> list[list[int]]:
    """The key of each member, as the numbers behind it."""
    return [jax.random.key_data(member_key(width, seed)).tolist() for seed in seeds]
