"""Points of a sweep: the results at single values of its axes."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from lazynet.measures import catalogue
from lazynet.typing import Result


def axes_of(result: Result) -> list[str]:
    """Return the axes that a result has besides width and seed."""
    return [name for name in json.loads(result.attrs["settings"]).get("axes", {}) if name in result.dims]


def at_one_point(result: Result) -> Result:
    """Return the result without the variables that do not exist at its point.

    Raises:
        ValueError: if the result has further axes than width and seed: an exponent in the width describes one point.
    """
    axes = axes_of(result)
    if axes:
        values = ", ".join(f"{name}={result[name].values[0].item()!r}" for name in axes)
        raise ValueError(
            f"result must have no axes besides width and seed, got {', '.join(axes)}. Take one point of them, such as "
            f"result.sel({values})."
        )
    # Kernel descent follows the full batch only; at other batch sizes of the same sweep its variables are NaN.
    if "kernel_train_loss" in result and result.kernel_train_loss.isnull().all():
        absent = [name for name, quantity in catalogue().items() if quantity.full_batch]
        return result.drop_vars(absent, errors="ignore")
    return result


def points(result: Result) -> Iterator[tuple[dict[str, Any], Result]]:
    """Yield the values of the axes at each point, the last axis fastest, and the result there."""
    axes = axes_of(result)
    for place in product(*(range(result.sizes[name]) for name in axes)):
        at = dict(zip(axes, place, strict=True))
        yield {name: result[name].values[i].item() for name, i in at.items()}, result.isel(at)


def settings_of(result: Result) -> dict[str, Any]:
    """Return the settings of a result, with the value of each axis that has a single value, and that point's traits."""
    settings = json.loads(result.attrs["settings"])
    axes = settings.get("axes", {})
    chosen = {name: result[name].item() for name in axes if not result[name].ndim}
    if isinstance(settings["traits"], list) and len(chosen) == len(axes):
        place = [values.index(chosen[name]) for name, values in axes.items()]
        number = np.ravel_multi_index(place, [len(values) for values in axes.values()])
        settings["traits"] = settings["traits"][number]
    return settings | chosen
