"""Tasks that train packs of networks, for all studies over widths and seeds."""

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from lazynet.execution import Arrays, Task, provenance
from lazynet.experiment import Pack, Record, References, Spec, units_of
from lazynet.typing import DataArray


def rates_of(spec: Spec, references: References, stored: dict[str, Any]) -> list[dict[int, float]]:
    """Return the learning rates at each point in the study, keyed by width.

    Default rates are read from the stored record. If the record is empty or does not match the study's points and
    widths, they are computed.
    """
    before = _stored_rates(stored)
    if [list(rates) for rates in before] != [list(spec.widths)] * len(spec.points):
        before = []
    return [
        before[i] if before and point.learning_rate is None else references.rates(point, spec.widths)
        for i, point in enumerate(spec.points)
    ]


def _stored_rates(stored: dict[str, Any]) -> list[dict[int, float]]:
    """Return the learning rates in a stored record, or an empty list if it contains none."""
    try:
        return Record.from_json(stored).rates
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def pack_task(
    spec: Spec, number: int, pack: Pack, compute: Callable[..., Arrays], losses: Callable[[Arrays], np.ndarray]
) -> Task:
    """Return the task that trains a pack of networks.

    Args:
        spec: The specification of the study.
        number: Index of the pack.
        pack: The pack of networks.
        compute: Function compute(progress, checkpoint) that returns the pack's arrays.
        losses: Function that takes these arrays and returns each network's final loss.
    """
    point = spec.points[pack.point]

    def by_name(arrays: Arrays) -> dict[str, float]:
        values = losses(arrays).tolist()
        return {f"width {pack.width}, seed {seed}": loss for seed, loss in zip(pack.seeds, values, strict=True)}

    return Task(
        key=f"{number:06d}",
        name=f"width {pack.width}",
        units=units_of(spec, pack),
        compute=compute,
        program=(pack.width, point.program_key, point.training),
        losses=by_name,
    )


def squared_losses(predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return half the sum of squared errors for each network, as an array of shape (member,).

    Args:
        predictions: The networks' predictions, shape (member, n) or (member, n, k).
        y: Targets, shape (n,) or (n, k).
    """
    return np.sum((predictions - y).reshape(len(predictions), -1) ** 2, axis=1) / 2


def warn_of_divergence(diverged: DataArray) -> None:
    """Warn about the widths at which networks diverged, given a flag for each width and seed."""
    for width, count in zip(diverged.width.values.tolist(), diverged.sum("seed").values.tolist(), strict=True):
        if count:
            warnings.warn(f"{count} of {diverged.sizes['seed']} networks of width {width} diverged.", stacklevel=3)


def study_attributes(record: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a result: the settings as JSON and the provenance."""
    settings = Record.from_json(record).settings
    return provenance(json.dumps(settings), settings["dtype"], record["begun"])
