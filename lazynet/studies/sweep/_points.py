"""Points in a sweep. A point has a single value for each axis other than width and seed."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from lazynet.arguments import described
from lazynet.measures import catalog
from lazynet.typing import DataArray, Result


def axes_of(result: Result) -> list[str]:
    """Return the names of a result's axes other than width and seed.

    Raises:
        ValueError: If `result` is not the result of a sweep.
    """
    _check_dataset(result)
    if "settings" not in result.attrs:
        raise ValueError("result must be the result of lazynet.sweep, but it has no attribute 'settings'.")
    return [name for name in json.loads(result.attrs["settings"]).get("axes", {}) if name in result.dims]


def ordered(result: Result) -> Result:
    """Return a result that has the dimensions width, seed and step, with each of these coordinates in ascending order.

    After values have been selected or results combined with xarray, a dimension may be missing, or its coordinates may
    be in a different order.

    Raises:
        ValueError: If `result` is not a Dataset, if a coordinate is missing or not numeric, if there are no widths,
            seeds or steps, if one of them occurs more than once, or if the variable `stopped_step` or `status` has
            the dimension `step`.
    """
    _check_dataset(result)
    for name in ("width", "seed", "step"):
        if name not in result.coords:
            raise ValueError(f"result must have the coordinates width, seed and step, but {name} is missing.")
        if name not in result.dims:
            lacking = [
                variable
                for variable in result.data_vars
                if variable in catalog() and name in catalog()[str(variable)].dims
            ]
            result = result.drop_vars(lacking).drop_vars(name).merge(result[lacking].expand_dims(name))
        values = result[name].values
        if values.dtype.kind not in "iuf":
            raise ValueError(f"result must have a numeric coordinate {name}, got the dtype {values.dtype}.")
        if not len(values):
            raise ValueError(f"result must contain at least one {name}, got none.")
        if len(np.unique(values)) < len(values):
            raise ValueError(f"result must contain each {name} only once, got {values.tolist()}.")
        if (np.diff(values) < 0).any():
            result = result.sortby(name)
    lengthened = [name for name in ("stopped_step", "status") if name in result and "step" in result[name].dims]
    if lengthened:
        raise ValueError(
            f"result must not have the dimension step in its variable {lengthened[0]}. When concatenating results "
            "along step, pass data_vars='minimal'."
        )
    return result


def _check_dataset(result: Any) -> None:
    import xarray

    if not isinstance(result, xarray.Dataset):
        raise ValueError(f"result must be the result of lazynet.sweep (an xarray.Dataset), got {described(result)}.")


def check_contains(result: Result, *names: str) -> None:
    """Raise a ValueError unless a result contains variables with the given names.

    Args:
        result: Result of a sweep.
        names: Names of the variables.
    """
    for name in names:
        if name not in result.variables:
            raise ValueError(f"result must contain the variable {name}, but it is missing.")


def while_training(result: Result) -> DataArray:
    """Return whether each member was still training at each snapshot, in an array over width, seed and step.

    A member that has stopped training keeps its last values, but the predictions for it keep changing.
    """
    if "stopped_step" not in result:
        return result.step >= 0
    return result.step <= result.stopped_step


def at_one_point(result: Result) -> Result:
    """Check that a result has a single point, sort it, and drop the variables that are undefined at this point.

    Raises:
        ValueError: If the result has axes other than width and seed, or if a coordinate is missing or has duplicate
            values. A width exponent can be fitted only at a single point of the other axes.
    """
    axes = axes_of(result)
    if axes:
        values = ", ".join(f"{name}={result[name].values[0].item()!r}" for name in axes)
        raise ValueError(
            f"result must have no axes other than width and seed, got {', '.join(axes)}. Select one point, for example "
            f"with result.sel({values})."
        )
    result = ordered(result)
    # Some variables are defined only for some ways of training, and are NaN at the other points.
    absent = [
        name
        for name, quantity in catalog().items()
        if quantity.defined_with in result and result[quantity.defined_with].isnull().all()
    ]
    return result.drop_vars(absent, errors="ignore")


def points(result: Result) -> Iterator[tuple[dict[str, Any], Result]]:
    """Iterate over the points in a result.

    Args:
        result: Result of a sweep.

    Yields:
        The value of each axis at the point, keyed by name, and the result at the point. The last axis varies fastest.
    """
    axes = axes_of(result)
    for place in product(*(range(result.sizes[name]) for name in axes)):
        at = dict(zip(axes, place, strict=True))
        yield {name: result[name].values[i].item() for name, i in at.items()}, result.isel(at)


def settings_of(result: Result) -> dict[str, Any]:
    """Return the settings of a result, including the value of each axis that has only one value.

    If the result has only one point, the settings also include the network traits at that point.
    """
    settings = json.loads(result.attrs["settings"])
    axes = settings.get("axes", {})
    lost = [name for name in axes if name not in result.coords]
    if lost:
        raise ValueError(
            f"result must have the coordinate {lost[0]}, which is an axis of the sweep, but it is missing. Select a "
            "value without drop=True."
        )
    chosen = {name: result[name].item() for name in axes if not result[name].ndim}
    if isinstance(settings["traits"], list) and len(chosen) == len(axes):
        place = [values.index(chosen[name]) for name, values in axes.items()]
        number = np.ravel_multi_index(place, [len(values) for values in axes.values()])
        settings["traits"] = settings["traits"][number]
    return settings | chosen


def is_plain(settings: dict[str, Any]) -> bool:
    """Return whether networks are trained by plain full-batch gradient descent on the squared loss.

    The answer is no if a setting of the training is an axis with several values.

    Args:
        settings: Settings of a result, as from `settings_of`.
    """
    full = settings.get("batch_size") in (None, settings.get("n_train"))
    others = (settings.get(name) for name in ("momentum", "weight_decay", "ridge", "schedule"))
    return full and settings.get("loss", "squared") == "squared" and settings["optimizer"] == "sgd" and not any(others)
