"""Results of sweeps with more axes than width and seed, taken apart into those that have none."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

from lazynet.typing import Result


def axes_of(result: Result) -> list[str]:
    """The axes besides width and seed that a result still has."""
    return [name for name in json.loads(result.attrs["settings"]).get("axes", {}) if name in result.dims]


def check_one_point(result: Result) -> None:
    """Refuse a result of several learning rates, scales and so on, which no exponent in the width describes."""
    axes = axes_of(result)
    if axes:
        one = ", ".join(f"{name}={result[name].values[0].item()!r}" for name in axes)
        raise ValueError(
            f"The result has the axes {', '.join(axes)}; take one point of them, such as result.sel({one})."
        )


def points(result: Result) -> Iterator[tuple[dict[str, Any], Result]]:
    """The result at each combination of the values of its axes, the last fastest, with those values."""
    axes = axes_of(result)
    for place in product(*(range(result.sizes[name]) for name in axes)):
        at = dict(zip(axes, place, strict=True))
        yield {name: result[name].values[i].item() for name, i in at.items()}, result.isel(at)


def settings_of(result: Result) -> dict[str, Any]:
    """The settings of a result, with the value of each axis that has one left."""
    settings = json.loads(result.attrs["settings"])
    return settings | {name: result[name].item() for name in settings.get("axes", {}) if not result[name].ndim}
