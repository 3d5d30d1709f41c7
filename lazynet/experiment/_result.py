"""The labeled result of a sweep: one `xarray.Dataset` over width, seed and step."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from lazynet.experiment._cell import Cell, join_cells
from lazynet.experiment._record import Record
from lazynet.measures import OWN, catalog, label_result, settings_by_width
from lazynet.training import NEVER, snapshot_steps
from lazynet.typing import Result

# The leading dimensions of variables that are measured for each member. Any further dimensions follow these.
MEMBER = ("width", "seed", "step")


class MemberStatus(IntEnum):
    """Values of the variable `status`, which indicate how each member's training ended."""

    FINISHED = 0
    DIVERGED = 1
    STOPPED = 2


class Values(NamedTuple):
    """An array and the names of its dimensions."""

    dims: tuple[str, ...]
    values: np.ndarray


def assemble(cells: Sequence[Cell], record: Record) -> Result:
    """Combine the cells of a sweep into one labeled result.

    Args:
        cells: Cells in the order of `record.packs`.
        record: Record of the sweep.

    Returns:
        An `xarray.Dataset`. Its dimensions are width, seed, step, the axes of the sweep, and further dimensions such as
        layer. Each variable has only the dimensions on which it depends.

    Raises:
        ValueError: If the sweep measured a user-registered quantity that is not registered in this process.
    """
    import xarray

    settings = record.settings
    _check_registered(settings.get("registered_quantities", []))
    axes, tables = settings.get("axes", {}), _tables(cells, record)
    # If all points share one learning rate, the variable `learning_rate` needs no axes.
    constant = ("learning_rate",) if settings["learning_rate"] is not None else ()
    table = {
        name: _over_axes(
            [table.get(name) for table in tables], axes, () if name in constant else _own_axes(name, record.axes)
        )
        for name in dict.fromkeys(name for table in tables for name in table)
        if name not in axes
    }
    coordinates = [name for name, quantity in catalog().items() if quantity.coordinate and name in table]
    coords = {
        "width": settings["widths"],
        "seed": settings["seeds"],
        "step": snapshot_steps(settings["steps"], settings["snapshots"]),
        **axes,
        **{name: table.pop(name) for name in coordinates},
    }
    if "layer" in {dim for values in table.values() for dim in values.dims}:
        coords["layer"] = settings["layers"]
    result = xarray.Dataset(table, coords=coords)
    label_result(result, "sweep")
    # The catalog does not describe the fields of user-supplied networks.
    for name in axes:
        result[name].attrs.setdefault("long_name", f"field {name} of the network")
        result[name].attrs.setdefault("references", OWN)
    result["status"].attrs |= flags(MemberStatus)
    return result


def _check_registered(names: Sequence[str]) -> None:
    """Check that the catalog contains every user-defined quantity that a sweep measured.

    Raises:
        ValueError: If a quantity is not registered.
    """
    missing = [name for name in names if name not in catalog()]
    if missing:
        raise ValueError(
            f"The sweep measured the quantity {missing[0]!r}, which is not registered in this process. Before "
            "calling lazynet.merge_shards, call lazynet.register_quantity as you did in the processes that computed "
            "the sweep."
        )


def flags(codes: type[IntEnum]) -> dict[str, Any]:
    """Return the netCDF attributes that describe the codes of a variable.

    Args:
        codes: Enumeration of the codes.

    Returns:
        The attributes `flag_values`, a list of the codes, and `flag_meanings`, a string of their lowercase names.
    """
    return {
        "flag_values": [code.value for code in codes],
        "flag_meanings": " ".join(code.name.lower() for code in codes),
    }


def outcome(diverged_at: np.ndarray, stopped_at: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Determine how and when the training of each member ended.

    Args:
        diverged_at: Step at which each member diverged, or NEVER if it did not, as an integer array of any shape.
        stopped_at: Step at which each member stopped early, or NEVER if it did not, as an integer array of the same
            shape.
        steps: Number of training steps.

    Returns:
        The `MemberStatus` of each member as int8, and the step at which its training ended as int64. Both arrays have
        the shape of `diverged_at`.
    """
    diverged, stopped = diverged_at != NEVER, stopped_at != NEVER
    ended_early = np.where(stopped, MemberStatus.STOPPED, MemberStatus.FINISHED)
    status = np.where(diverged, MemberStatus.DIVERGED, ended_early).astype(np.int8)
    return status, np.where(diverged, diverged_at, np.where(stopped, stopped_at, steps)).astype(np.int64)


def _own_axes(name: str, sources: dict[str, str]) -> tuple[str, ...]:
    """Return the axes on which a variable depends; user-supplied quantities depend on all axes."""
    quantity = catalog().get(name)
    if quantity is None:
        return tuple(sources)
    return tuple(axis for axis, source in sources.items() if source in quantity.depends_on)


def _tables(cells: Sequence[Cell], record: Record) -> list[dict[str, Values]]:
    """Return the variables at each point as arrays over width, seed and step."""
    widths, points, layers = record.settings["widths"], record.points, record.settings["layers"]
    by_width = [name for name in settings_by_width() if name in points[0].by_width]
    one_rate = all(len(set(point.by_width["learning_rate"])) == 1 for point in points)
    one_kernel = all(point.one_kernel for point in points)
    cells_at: dict[tuple[int, int], list[Cell]] = {}
    for cell, pack in zip(cells, record.packs, strict=True):
        cells_at.setdefault((pack.point, pack.width), []).append(cell)
    tables = []
    for i, point in enumerate(points):
        cells_by_width = [join_cells(cells_at[i, width]) for width in widths]
        table = _member_variables(cells_by_width, record.settings["steps"])
        table |= _limit_variables(cells_by_width, one_kernel, one_kernel and one_rate)
        table["target_rms"] = Values((), np.asarray(point.target_rms))
        if point.test_target_rms is not None:
            table["test_target_rms"] = Values((), np.asarray(point.test_target_rms))
        table |= {name: Values(("width",), np.array(point.by_width[name])) for name in by_width}
        tables.append({name: _on_layers(values, point.layers, layers) for name, values in table.items()})
    return tables


def _on_layers(values: Values, own: Sequence[str], layers: Sequence[str]) -> Values:
    """Extend values to all layers in the study, inserting NaN for layers that the network does not have."""
    if "layer" not in values.dims or list(own) == list(layers):
        return values
    axis = values.dims.index("layer")
    shape = list(values.values.shape)
    shape[axis] = len(layers)
    result = np.full(shape, np.nan)
    places = [layers.index(name) for name in own]
    np.moveaxis(result, axis, 0)[places] = np.moveaxis(values.values, axis, 0)
    return Values(values.dims, result)


def _member_variables(cells: list[Cell], steps: int) -> dict[str, Values]:
    """Stack the members' measurements over width and seed, given one cell for each width."""
    table = {}
    for name in cells[0].variables:
        values = np.stack([cell.variables[name] for cell in cells])
        quantity = catalog().get(name)
        further = tuple(f"{name}_dim_{i}" for i in range(values.ndim - 3)) if quantity is None else quantity.dims[3:]
        table[name] = Values((*MEMBER[: values.ndim], *further), values)
    diverged_at, stopped_at = (np.stack([getattr(c, name) for c in cells]) for name in ("diverged_at", "stopped_at"))
    status, stopped = outcome(diverged_at, stopped_at, steps)
    table["status"] = Values(("width", "seed"), status)
    table["stopped_step"] = Values(("width", "seed"), stopped)
    return table


def _limit_variables(cells: list[Cell], one_kernel: bool, one_limit: bool) -> dict[str, Values]:
    """Return the predictions at infinite width, with a width axis unless they are the same at all widths."""
    table = {}
    for name, values in cells[0].limit_variables.items():
        dims = ("seed", "step")[2 - values.ndim :]
        if (one_limit and values.ndim == 1) or (one_kernel and not values.ndim):
            table[name] = Values(dims, values)
        else:
            table[name] = Values(("width", *dims), np.stack([cell.limit_variables[name] for cell in cells]))
    return table


def _on_common_dims(parts: list[Values | None]) -> list[Values | None]:
    """Broadcast values to common dimensions; predictions may depend on the seed at some points but not at others."""
    present = [part for part in parts if part is not None]
    sizes = {dim: size for part in present for dim, size in zip(part.dims, part.values.shape, strict=True)}
    dims = tuple(sorted(sizes, key=lambda dim: MEMBER.index(dim) if dim in MEMBER else len(MEMBER)))
    shape = tuple(sizes[dim] for dim in dims)

    def on_all(part: Values) -> Values:
        own = tuple(sizes[dim] if dim in part.dims else 1 for dim in dims)
        return Values(dims, np.broadcast_to(part.values.reshape(own), shape))

    return [None if part is None else on_all(part) for part in parts]


def _over_axes(parts: list[Values | None], axes: dict[str, list], own_axes: tuple[str, ...]) -> Values:
    """Join the values of one variable at all points, and place the axes of the study after width, seed and step.

    The result is NaN at points that lack the variable. An axis is left out if it affects neither the values of the
    variable nor which points lack the variable.
    """
    parts = _on_common_dims(parts)
    like = next(part for part in parts if part is not None)
    missing = np.full_like(like.values, np.nan, dtype=np.float64)
    sizes = [len(values) for values in axes.values()]
    values = np.stack([missing if part is None else part.values for part in parts])
    values = values.reshape((*sizes, *like.values.shape))
    exists = np.reshape([part is not None for part in parts], sizes)
    kept: list[str] = []
    for i, name in reversed(list(enumerate(axes))):
        if name not in own_axes:
            alike = np.all(exists == exists.take([0], axis=i))
            if alike:
                values, exists = values.take(0, axis=i), exists.take(0, axis=i)
                continue
        kept.insert(0, name)
    common = sum(dim in MEMBER for dim in like.dims)
    places = range(common, common + len(kept))
    dims = (*like.dims[:common], *kept, *like.dims[common:])
    return Values(dims, np.moveaxis(values, range(len(kept)), places))
