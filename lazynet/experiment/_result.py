"""The labeled result of a sweep: one `xarray.Dataset` over width, seed and step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lazynet.experiment._cell import Cell, join_cells
from lazynet.measures._catalogue import BY_WIDTH, MEANING, OF_KERNEL, OF_LAYERS, SCALES
from lazynet.training import NEVER, snapshot_steps
from lazynet.typing import Result


class Pack(NamedTuple):
    """A cell: the number of its point, its width and its seeds."""

    point: int
    width: int
    seeds: list[int]


STATUS = ("finished", "diverged", "stopped")

# The axes on which the limit depends; what is not named here depends on all.
LABELS = (*OF_KERNEL, "label_noise")
DESCENT = (*LABELS, "learning_rate")
OF = {
    **dict.fromkeys(("lambda_min", "lambda_max", "learning_rate"), OF_KERNEL),
    **dict.fromkeys(("label_norm", "complexity"), LABELS),
    **{f"kernel_{part}_{score}": DESCENT for part in ("train", "test") for score in ("loss", "error")},
    **{f"regression_error_limit{end}": LABELS for end in ("", "_low", "_high")},
    "linearized_displacement": DESCENT,
    "target_rms": ("n_train", "label_noise"),
    **dict.fromkeys(SCALES, ()),
}


class Values(NamedTuple):
    """Values with the names of their dimensions."""

    dims: tuple[str, ...]
    values: np.ndarray


def assemble(cells: Sequence[Cell], settings: dict[str, Any]) -> Result:
    """All cells of a sweep, in their order, as one data set; settings are those of settings.json."""
    import xarray

    axes, tables = settings.get("axes", {}), _tables(cells, settings)
    # One learning rate for all points is no matter of theirs.
    alone = ("learning_rate",) if settings["learning_rate"] is not None else ()
    table = {
        name: _over_axes(
            [table.get(name) for table in tables], axes, () if name in alone else OF.get(name, tuple(axes))
        )
        for name in dict.fromkeys(name for table in tables for name in table)
        if name not in axes
    }
    coords = {
        "width": settings["widths"],
        "seed": settings["seeds"],
        "step": snapshot_steps(settings["steps"], settings["snapshots"]),
        **axes,
        **{name: table.pop(name) for name in (*BY_WIDTH, "target_rms") if name in table},
    }
    if "layer" in {dim for values in table.values() for dim in values.dims}:
        coords["layer"] = settings["layers"]
    result = xarray.Dataset(table, coords=coords)
    for name, meaning in MEANING.items():
        if name in result:
            result[name].attrs["long_name"] = meaning
    result["status"].attrs |= {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)}
    return result


def _tables(cells: Sequence[Cell], settings: dict[str, Any]) -> list[dict[str, Values]]:
    """What is known at each point, over width, seed and step."""
    widths, points = settings["widths"], settings["engine"]["points"]
    known = [name for name in BY_WIDTH if name in points[0]["by_width"]]
    one_rate = all(len(set(point["by_width"]["learning_rate"].values())) == 1 for point in points)
    one_kernel = all(point["one_kernel"] for point in points)
    of_place: dict[tuple[int, int], list[Cell]] = {}
    for cell, (point, width, _) in zip(cells, settings["engine"]["packs"], strict=True):
        of_place.setdefault((point, width), []).append(cell)
    tables = []
    for i, point in enumerate(points):
        of_width = [join_cells(of_place[i, width]) for width in widths]
        table = _of_members(of_width, settings["steps"])
        table |= _of_limit(of_width, one_kernel, one_kernel and one_rate)
        table["target_rms"] = Values((), np.asarray(point["target_rms"]))
        for name in known:
            table[name] = Values(("width",), np.array([point["by_width"][name][str(width)] for width in widths]))
        tables.append(table)
    return tables


def _of_members(of_width: list[Cell], steps: int) -> dict[str, Values]:
    """What is measured of networks, by width and seed."""
    table = {}
    for name in of_width[0].variables:
        values = np.stack([cell.variables[name] for cell in of_width])
        own = ("layer",) if name in OF_LAYERS else tuple(f"{name}_dim_{i}" for i in range(values.ndim - 3))
        table[name] = Values((*("width", "seed", "step")[: values.ndim], *own), values)
    diverged_at, stopped_at = (np.stack([getattr(c, name) for c in of_width]) for name in ("diverged_at", "stopped_at"))
    status, stopped = outcome(diverged_at, stopped_at, steps)
    table["status"] = Values(("width", "seed"), status)
    table["stopped_step"] = Values(("width", "seed"), stopped)
    return table


def outcome(diverged_at: np.ndarray, stopped_at: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """How members ended, as places in STATUS, and after how many steps."""
    diverged, stopped = diverged_at != NEVER, stopped_at != NEVER
    status = np.where(diverged, 1, np.where(stopped, 2, 0)).astype(np.int8)
    return status, np.where(diverged, diverged_at, np.where(stopped, stopped_at, steps)).astype(np.int64)


def _of_limit(of_width: list[Cell], one_kernel: bool, one_limit: bool) -> dict[str, Values]:
    """What is predicted in the limit of infinite width: by width where scales or learning rates depend on it."""
    table = {}
    for name, values in of_width[0].limit_variables.items():
        dims = ("seed", "step")[2 - values.ndim :]
        if (one_limit and values.ndim == 1) or (one_kernel and not values.ndim):
            table[name] = Values(dims, values)
        else:
            table[name] = Values(("width", *dims), np.stack([cell.limit_variables[name] for cell in of_width]))
    return table


def _over_axes(parts: list[Values | None], axes: dict[str, list], on: tuple[str, ...]) -> Values:
    """One variable at all points, with those axes that it depends on after width, seed and step.

    Where it does not exist it is NaN; an axis on which neither it nor its existence depends is left out.
    """
    like = next(part for part in parts if part is not None)
    missing = np.full_like(like.values, np.nan, dtype=np.float64)
    sizes = [len(values) for values in axes.values()]
    values = np.stack([missing if part is None else part.values for part in parts])
    values = values.reshape((*sizes, *like.values.shape))
    exists = np.reshape([part is not None for part in parts], sizes)
    kept: list[str] = []
    for i, name in reversed(list(enumerate(axes))):
        if name not in on:
            alike = np.all(exists == exists.take([0], axis=i))
            if alike:
                values, exists = values.take(0, axis=i), exists.take(0, axis=i)
                continue
        kept.insert(0, name)
    common = sum(dim in ("width", "seed", "step") for dim in like.dims)
    places = range(common, common + len(kept))
    dims = (*like.dims[:common], *kept, *like.dims[common:])
    return Values(dims, np.moveaxis(values, range(len(kept)), places))
