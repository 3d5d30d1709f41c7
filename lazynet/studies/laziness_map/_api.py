"""`lz.laziness_map`: how lazy a network is over width and output scale, and where it stops being lazy."""

import json
import warnings
from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log, log2, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lazynet.data import Dataset
from lazynet.execution._store import write_file
from lazynet.experiment._spec import check_count, check_new_folder, check_seeds, check_widths
from lazynet.networks import Centered, Scale, check_members_differ, check_network, traits
from lazynet.studies.laziness_map._boundary import (
    boundary_exponent,
    bracket,
    collapse_spread,
    fit_boundary,
    mean_of_most,
    sharpest_collapse,
    why_steeper,
)
from lazynet.studies.sweep._api import sweep
from lazynet.studies.sweep._verdict import scaling_of
from lazynet.training import Stop
from lazynet.typing import Result

STATUS = ("fitted", "unfinished", "diverged", "dead")
# Neighboring scales between which the boundary is not looked for any further: the change is smooth there.
NEAR = 1.05
# Below any gradient but that of a network none of whose units is active any more.
NO_GRADIENT = 1e-15
# A loss that has not fallen by a thousandth in so many steps stands still.
STILL = 1000

# An exponent that lies further below its prediction is told why, as far as one knows.
BAND = 0.1

MEANING = {
    "kernel_change": "norm(K_T - K_0) / norm(K_0) of the empirical kernel, once the network fits",
    "train_loss": "loss at the end",
    "test_loss": "test loss, once the network fits",
    "test_error": "share of misclassified test examples, once the network fits",
    "activation_flips": "share of pre-activation signs that differ from the start, once the network fits",
    "relative_displacement": "norm of params - params(0) over the norm of params(0), once the network fits",
    "time": "time of the gradient flow at the end",
    "stopped_step": "number of steps at the end",
    "boundary": "output scale at which the mean kernel change is the one asked for",
    "boundary_low": "lower end of its 95% interval over seeds",
    "boundary_high": "upper end of its 95% interval over seeds",
    "tried_scale": "output scale of each round of the bisection",
    "tried_change": "kernel_change there",
    "control": "control parameter m^p alpha in which curves of all widths should be one",
}
# What a member that does not fit has none of.
OF_FITTED = ("kernel_change", "test_loss", "test_error", "activation_flips", "relative_displacement", "time")


# Of each width the scale that was tried in a round of the bisection, and the change of each seed there.
Round = dict[int, tuple[float, np.ndarray]]


class Setting(NamedTuple):
    """What all sweeps of a map share."""

    network: Any
    data: Dataset
    seeds: tuple[int, ...]
    steps: int
    stop: Stop
    dtype: str
    out: Path | None
    resume: bool
    progress: bool

    def trained(self, widths: Sequence[int], output_scale: Any, folder: str) -> Result:
        """Networks trained by gradient flow at these scales, at the end."""
        return sweep(
            self.network,
            self.data,
            widths,
            self.seeds,
            self.steps,
            optimizer="flow",
            output_scale=output_scale,
            compare=False,
            snapshots=[self.steps],
            stop=self.stop,
            dtype=self.dtype,
            out=None if self.out is None else self.out / folder,
            resume=self.resume,
            progress=self.progress,
        ).isel(step=-1)

    def status(self, result: Result) -> Result:
        """How members ended, as places in STATUS."""
        # The loss that was looked at in training, in its dtype, is this one to rounding.
        fits = result.train_loss <= (1 + 1e-3) * float(self.stop.loss or 0)
        ended = np.where(result.status == 1, 2, np.where(result.status == 2, 3, 1))
        return result.status.copy(data=np.where(fits, 0, ended).astype(np.int8))


def laziness_map(
    network: Any,
    data: Dataset,
    widths: Sequence[int],
    output_scales: Sequence[float],
    seeds: int | Sequence[int] = 8,
    *,
    change: float = 0.3,
    fitted: float = 0.01,
    steps: int = 20_000,
    dtype: str = "float32",
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Map how far kernels move and how well networks generalize over width m and output scale alpha.

    Networks alpha (f - f_0) are trained on the squared loss 1/2 sum ||alpha (f - f_0) - y||^2 until it is a small share
    of its first value (Chizat, Oyallon and Bach 2019; Geiger et al. 2019), by gradient flow as
    `lazynet.sweep(..., optimizer="flow")` has it. In the NTK parametrization sqrt(m) alpha decides: where it is large
    the network is lazy, where it is small it learns features, and the boundary goes as alpha ~ m^(-1/2). At each width
    it is bracketed by `output_scales` and found by bisection, with `lazynet.sweep` at every round.

    Args:
        network: the family, with an `output_scale`; its own width and output scale are replaced. The start is taken off
            where it is not zero by symmetry.
        data: on what to train.
        widths: numbers of hidden units.
        output_scales: at least two values of alpha.
        seeds: a number, for 0 .. seeds - 1, or a list of seeds.
        change: the relative kernel change at the boundary.
        fitted: the share of the first training loss at which a network fits, and stops.
        steps: the largest number of steps.
        dtype: "float32" or "float64".
        out: a new folder, for the sweeps that it takes and for result.nc.
        resume: whether `out` may exist: then only what is not stored there is computed, also with another `change`.
        progress: whether to show progress on a terminal.

    Returns:
        `xarray.Dataset` over width, output_scale and seed: status (fitted, unfinished after the last step, diverged, or
        dead: at a standstill above the loss that fits), train_loss, stopped_step, and of networks that fit
        kernel_change, test_loss, test_error, relative_displacement, time and, where it is known, activation_flips; NaN
        of others. Over width: boundary, boundary_low, boundary_high; over width and `round`: tried_scale and, with
        seed, tried_change. Where fewer than half of the networks fit there is no point of the boundary. The coordinate
        `control` is m^p alpha with p the attribute `control_exponent`, minus the predicted exponent of the boundary
        (minus the fitted one where nothing is predicted, 0 where there is none). Other attributes: `change`;
        boundary_exponent with _low, _high (95%) and _predicted; collapse_spread, the RMS of the log of the change about
        the mean curve over m^p alpha, and collapse_exponent, the p where it is least; `reason`, why the boundary is
        steeper than predicted, where one knows.

    Raises:
        ValueError: if an argument is not as described, before any work starts.

    Warns:
        UserWarning: if the change at some width is not above `change` at one of `output_scales` and below at a larger.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=16, n_test=8)
    >>> result = lz.laziness_map(lz.TwoLayer(width=2, train="both"), data, [64, 256], [0.1, 1.0, 10.0], seeds=2)
    >>> bool(result.boundary[1] < result.boundary[0])
    True
    """
    check_network(network, data.x_train)
    scales = _checked_scales(network, output_scales)
    for name, value, top in (("change", change, np.inf), ("fitted", fitted, 1.0)):
        if not (isinstance(value, int | float) and 0 < value < top):
            limit = "positive and finite" if top == np.inf else "between 0 and 1"
            raise ValueError(f"{name} is {value!r}, but must be {limit}.")
    if jax.process_count() > 1:
        raise ValueError("laziness_map decides between sweeps and runs on one host; shard a sweep of your own instead.")
    check_count("steps", steps)
    ordered, chosen = check_widths(widths, network, None), check_seeds(seeds)
    check_members_differ(network, ordered, chosen, data.x_train)
    _check_folder(out, resume)
    stop = Stop(loss=fitted * 0.5 * float(np.sum(data.y_train**2)), gradient=NO_GRADIENT, plateau=STILL)
    if not stop.loss:
        raise ValueError("All targets are zero, which a network fits at its start; there is nothing to learn.")
    family = network if traits(network).starts_at_zero else Centered(network)
    folder = None if out is None else Path(out)
    setting = Setting(family, data, chosen, steps, stop, dtype, folder, resume, progress)
    grid = setting.trained(ordered, scales, "map")
    result = _on_grid(setting, grid)
    tried = _bisection(setting, result, change)
    result = _with_boundary(result, grid, tried, change)
    settings = {"change": change, "fitted": fitted, **json.loads(grid.attrs["settings"])}
    steeper = result.attrs["boundary_exponent"] < result.attrs["boundary_exponent_predicted"] - BAND
    result.attrs |= {**grid.attrs, "settings": json.dumps(settings), "reason": why_steeper(settings) if steeper else ""}
    if folder is not None:
        write_file(folder / "result.nc", bytes(result.to_netcdf(engine="h5netcdf")))
    return result


def _checked_scales(network: Any, output_scales: Sequence[float]) -> list[float]:
    """Scales in ascending order."""
    if "output_scale" not in traits(network).fields:
        raise ValueError(f"A map needs a network with an output_scale, which {traits(network).name} has not.")
    try:
        scales = sorted(float(scale) for scale in output_scales)
    except (TypeError, ValueError):
        scales = []
    if len(set(scales)) < 2 or len(set(scales)) < len(scales) or not all(0 < scale < np.inf for scale in scales):
        raise ValueError(f"output_scales is {output_scales}, but must be at least two different positive numbers.")
    return scales


def _on_grid(setting: Setting, grid: Result) -> Result:
    """The variables of a map over width, output scale and seed."""
    named = grid.rename(kernel_drift="kernel_change").transpose("width", "output_scale", "seed", ...)
    status = setting.status(named)
    result = named[[name for name in (*OF_FITTED, "train_loss", "stopped_step") if name in named]]
    result = result.drop_vars([name for name in result.coords if name not in result.dims])
    result = result.assign({name: result[name].where(status == 0) for name in OF_FITTED if name in result})
    result["status"] = status.variable
    result["status"].attrs = {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)}
    return result


def _check_folder(out: str | Path | None, resume: bool) -> None:
    check_new_folder(out, resume)
    if out is None or not Path(out).is_dir():
        return
    if any(Path(out).iterdir()) and not (Path(out) / "map").is_dir():
        raise ValueError(f"out is {str(out)!r}, which holds something else than a map; name a new folder.")


def _bisection(setting: Setting, result: Result, change: float) -> list[Round]:
    """The rounds that halve the bracket of each width, as far as most networks in its middle fit."""
    grid = result.output_scale.values
    widest = max(b / a for a, b in pairwise(grid.tolist()))
    rounds = max(0, ceil(log2(log(widest) / log(NEAR))))
    found: list[Round] = []
    for number in range(1, rounds + 1):
        middle: dict[int, float] = {}
        for width in result.width.values.tolist():
            scales, changes = _curve(result, found, width)
            between = bracket(scales, mean_of_most(changes), change)
            if between is not None and width not in _given_up(found):
                middle[width] = sqrt(between[0] * between[1])
        if not middle:
            break
        # Another change has another boundary on the same map.
        at = setting.trained(list(middle), _of_width(middle), f"boundary-{change:g}-{number}")
        values = at.kernel_drift.where(setting.status(at) == 0)
        found.append({width: (middle[width], values.sel(width=width).values) for width in middle})
    return found


def _given_up(tried: list[Round]) -> set[int]:
    """The widths in the middle of whose brackets most networks do not fit."""
    return {width for each in tried for width, (_, changes) in each.items() if np.isnan(mean_of_most(changes))}


def _of_width(scales: dict[int, float]) -> Scale:
    def middle_of_bracket(width: int) -> float:
        return scales[width]

    return middle_of_bracket


def _curve(result: Result, found: list[Round], width: int) -> tuple[np.ndarray, np.ndarray]:
    """All scales (a,) that were trained at a width, ascending, and the changes there, (a, s)."""
    more = [tried[width] for tried in found if width in tried]
    scales = np.array([*result.output_scale.values, *(scale for scale, _ in more)])
    grid = result.kernel_change.sel(width=width).transpose("output_scale", "seed").values
    changes = np.concatenate([grid, *(values[None] for _, values in more)])
    order = np.argsort(scales)
    return scales[order], changes[order]


def _with_boundary(result: Result, grid: Result, tried: list[Round], change: float) -> Result:
    """The boundary, its exponent, and how well curves of all widths collapse."""
    widths, given_up = result.width.values, _given_up(tried)
    curves = [_curve(result, tried, width) for width in widths.tolist()]
    known = [changes * (np.nan if width in given_up else 1) for width, (_, changes) in zip(widths, curves, strict=True)]
    boundary = fit_boundary(widths, [scales for scales, _ in curves], known, change)
    missing = [str(width) for width, scale in zip(widths, boundary.scale, strict=True) if np.isnan(scale)]
    if missing:
        count = [f"{int((result.status == i).sum())} {name}" for i, name in enumerate(STATUS)]
        warnings.warn(
            f"The kernel change does not come down through {change:g} within output_scales at widths "
            f"{', '.join(missing)}, which have no boundary; of the networks {', '.join(count)}.",
            stacklevel=3,
        )
    predicted = boundary_exponent(scaling_of(grid.isel(output_scale=0)))
    # Where nothing is known of the width it is left out.
    power = float(next((-p for p in (predicted, boundary.fit.exponent) if np.isfinite(p)), 0.0))
    scales, means = result.output_scale.values, mean_of_most(result.kernel_change.values)
    shape = len(widths), len(tried)
    tried_scale, tried_change = np.full(shape, np.nan), np.full((*shape, result.sizes["seed"]), np.nan)
    for number, of_width in enumerate(tried):
        for width, (scale, changes) in of_width.items():
            place = int(np.flatnonzero(widths == width)[0])
            tried_scale[place, number], tried_change[place, number] = scale, changes
    result = result.assign_coords(control=(("width", "output_scale"), widths[:, None] ** power * scales))
    result = result.assign(
        boundary=("width", boundary.scale),
        boundary_low=("width", boundary.low),
        boundary_high=("width", boundary.high),
        tried_scale=(("width", "round"), tried_scale),
        tried_change=(("width", "round", "seed"), tried_change),
    )
    for name, meaning in MEANING.items():
        if name in result:
            result[name].attrs = {"long_name": meaning}
    result.attrs = {
        "change": change,
        "control_exponent": power,
        "boundary_exponent": boundary.fit.exponent,
        "boundary_exponent_low": boundary.fit.low,
        "boundary_exponent_high": boundary.fit.high,
        "boundary_exponent_predicted": predicted,
        "collapse_spread": collapse_spread(widths, scales, means, power),
        "collapse_exponent": sharpest_collapse(widths, scales, means, power),
    }
    return result
