"""The record of a study: its settings, points and packs, as stored in a run folder and used to assemble the result."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from lazynet.training import snapshot_steps


class Pack(NamedTuple):
    """Members that are trained together by the same compiled program.

    Attributes:
        point: Index of the point in the grid.
        width: Number of units, m.
        seeds: Seeds of the members.
    """

    point: int
    width: int
    seeds: list[int]


@dataclass(frozen=True)
class PointRecord:
    """One point in the grid.

    Attributes:
        labels: The label of this point's value on each axis that has several values, keyed by the name of the axis.
        by_width: The learning rate and the scales at each width, keyed by name.
        target_rms: RMS of the training targets.
        test_target_rms: RMS of the test targets, or None if there are none.
        one_kernel: Whether all widths have the same infinite-width kernel.
        layers: The names of the trained arrays.
    """

    labels: dict[str, Any]
    by_width: dict[str, tuple[float, ...]]
    target_rms: float
    test_target_rms: float | None
    one_kernel: bool
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """Everything needed to assemble a result, apart from the arrays of its cells.

    Attributes:
        settings: The settings stored in the result.
        axes: The part of the study that each axis varies, keyed by the name of the axis.
        points: The points in the grid.
        packs: The packs of members, one for each cell.
        keys: The random keys of all members at each width, as integers.
    """

    settings: dict[str, Any]
    axes: dict[str, str]
    points: tuple[PointRecord, ...]
    packs: tuple[Pack, ...]
    keys: dict[int, list[list[int]]]

    @property
    def snapshot_steps(self) -> np.ndarray:
        """The steps at which members are measured."""
        return snapshot_steps(self.settings["steps"], self.settings["snapshots"])

    @property
    def rates(self) -> list[dict[int, float]]:
        """The learning rates at each point, keyed by width."""
        widths = self.settings["widths"]
        return [dict(zip(widths, point.by_width["learning_rate"], strict=True)) for point in self.points]

    def to_json(self) -> dict[str, Any]:
        """Convert the record to a JSON-compatible dictionary.

        Returns:
            The dictionary.
        """
        return {**asdict(self), "packs": [list(pack) for pack in self.packs]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """Rebuild a record from a dictionary.

        Args:
            values: Dictionary returned by `to_json`, or a copy that has been stored as JSON.

        Returns:
            The record.
        """
        points = (
            PointRecord(
                **{
                    **point,
                    "by_width": {k: tuple(v) for k, v in point["by_width"].items()},
                    "layers": tuple(point["layers"]),
                }
            )
            for point in values["points"]
        )
        return cls(
            settings=values["settings"],
            axes=values["axes"],
            points=tuple(points),
            packs=tuple(Pack(*pack) for pack in values["packs"]),
            keys={int(width): keys for width, keys in values["keys"].items()},
        )
