"""Results of sweeps with more axes than width and seed, taken apart into those that have none."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from lazynet.typing import Result

FULL_BATCH = [
    *(f"kernel_{part}_{score}" for part in ("train", "test") for score in ("loss", "error")),
    *(f"{gap}_gap_{part}" for gap in ("start", "kernel") for part in ("train", "test")),
    "linearized_displacement",
    "lemma_bound",
    "path_bound",
]


def axes_of(result: Result) -> list[str]:
    """The axes besides width and seed that a result still has."""
    return [name for name in json.loads(result.attrs["settings"]).get("axes", {}) if name in result.dims]


def at_one_point(result: Result) -> Result:
    """The result of a single learning rate, scale and so on, without what does not exist there.

    Raises:
        ValueError: if it has several of them, which no exponent in the width describes.
    """
    axes = axes_of(result)
    if axes:
        one = ", ".join(f"{name}={result[name].values[0].item()!r}" for name in axes)
        raise ValueError(
            f"The result has the axes {', '.join(axes)}; take one point of them, such as result.sel({one})."
        )
    # Mini-batches beside the full batch: kernel descent follows the latter alone.
    if "kernel_train_loss" in result and result.kernel_train_loss.isnull().all():
        return result.drop_vars(FULL_BATCH, errors="ignore")
    return result


def points(result: Result) -> Iterator[tuple[dict[str, Any], Result]]:
    """The result at each combination of the values of its axes, the last fastest, with those values."""
    axes = axes_of(result)
    for place in product(*(range(result.sizes[name]) for name in axes)):
        at = dict(zip(axes, place, strict=True))
        yield {name: result[name].values[i].item() for name, i in at.items()}, result.isel(at)


def settings_of(result: Result) -> dict[str, Any]:
    """The settings of a result, with the value of each axis that has one left, and the traits of that point."""
    settings = json.loads(result.attrs["settings"])
    axes = settings.get("axes", {})
    chosen = {name: result[name].item() for name in axes if not result[name].ndim}
    if isinstance(settings["traits"], list) and len(chosen) == len(axes):
        place = [values.index(chosen[name]) for name, values in axes.items()]
        number = np.ravel_multi_index(place, [len(values) for values in axes.values()])
        settings["traits"] = settings["traits"][number]
    return settings | chosen
