"""`lazynet.laziness_map`: the kernel change at each width and output scale, and the boundary of the lazy regime."""

import json
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log, log2, sqrt
from pathlib import Path

import numpy as np

from lazynet.arguments import check_count
from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder, open_store, result_files
from lazynet.experiment import check_inputs, check_seeds, check_widths, flags
from lazynet.hosts import agreed, is_first, together
from lazynet.measures import label_result
from lazynet.networks import Centered, GivenNetwork, Network, check_members_differ, traits
from lazynet.programs import entry
from lazynet.studies._parts import Parts
from lazynet.studies.laziness_map._boundary import (
    boundary_exponent,
    bracket,
    collapse_spread,
    fit_boundary,
    mean_of_most,
    sharpest_collapse,
    why_steeper,
)
from lazynet.studies.laziness_map._setting import MapStatus, Setting
from lazynet.studies.sweep import scaling_of
from lazynet.training import Stop
from lazynet.typing import MaybeNone, Result

KIND = "laziness_map"
# Subfolder for the sweep over the given output scales.
GRID = "map"
# The bisection stops when the scales at the ends of the bracket differ by less than this factor.
NEAR = 1.05
# Gradient norm at or below which a network is considered to have no active units.
NO_GRADIENT = 1e-15
# Training has stalled if the loss has not fallen by 0.1% within this number of steps.
STILL = 1000
# If the fitted exponent is below the prediction by more than this amount, the result states the reason, if known.
BAND = 0.1
# Variables that are NaN for networks that do not fit their data.
FITTED_ONLY = ("kernel_change", "test_loss", "test_error", "activation_flips", "relative_displacement", "time")


@dataclass(frozen=True)
class ScaleByWidth:
    """A function that returns the output scale for each width.

    Unlike a closure, an instance of this class is known to be immutable, so networks that use it need not be retraced
    in each sweep.
    """

    scales: tuple[tuple[int, float], ...]

    def __call__(self, width: int) -> float:
        """Return the output scale at a width."""
        return dict(self.scales)[width]


# One round of the bisection: for each width, the scale tried and the kernel changes for all seeds at that scale.
Round = dict[int, tuple[float, np.ndarray]]


@entry
def laziness_map(
    network: GivenNetwork,
    data: Dataset,
    widths: Sequence[int],
    output_scales: Sequence[float],
    seeds: int | Sequence[int] = 8,
    *,
    change: float = 0.3,
    fitted: float = 0.01,
    steps: int = 20_000,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Map how much kernels change and how well networks generalize at each width m and output scale alpha.

    Networks alpha (f - f_0) are trained on the squared loss 1/2 sum ||alpha (f - f_0) - y||^2 until only a small
    fraction of the initial loss remains (Chizat, Oyallon and Bach 2019; Geiger et al. 2019). They are trained by
    gradient flow, with `lazynet.Optimizer("flow")`. In the NTK parametrization, the regime depends on sqrt(m) alpha:
    networks are lazy if this parameter is large and learn features if it is small, and the boundary follows
    alpha ~ m^(-1/2). At each width, `output_scales` should bracket the boundary, which is then located by bisection.

    Args:
        network: The family of networks, with a field `output_scale`; its own width and output scale are replaced by the
            values in `widths` and `output_scales`. The initial output is subtracted unless it is zero by symmetry.
        data: The training and test examples.
        widths: Numbers of hidden units.
        output_scales: At least two values of alpha.
        seeds: A list of seeds, or an integer s for the seeds 0, ..., s - 1.
        change: Relative kernel change that defines the boundary.
        fitted: Fraction of the initial training loss at which a network counts as fitted and its training stops.
        steps: Maximum number of training steps.
        dtype: Dtype used for training, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder`. The folder contains settings.json, result.nc and a subfolder for
            each sweep. A map can be resumed with a different `change`. A shard computes its share of the networks at
            `output_scales`; to find the boundary, resume the map without a shard.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`, or None in a shard or on a host other than the first.

        - By width, output_scale and seed: status, train_loss and stopped_step. The status is one of fitted,
          unfinished (not fitted by the last step), diverged, and dead (training stalled before the network fit its
          data).
        - By width, output_scale and seed, with NaN for networks that do not fit their data: kernel_change, test_loss,
          test_error, relative_displacement, time and, if measured, activation_flips.
        - By width: boundary, boundary_low and boundary_high, which are NaN if the kernel change does not cross `change`
          or if fewer than half of the networks fit their data.
        - By width and `round` (the round of the bisection): tried_scale. By width, `round` and seed: tried_change.

        The coordinate `control` is m^p alpha, where p is the attribute `control_exponent`. This p is the negative
        of the boundary's predicted exponent or, if no exponent is predicted, of the fitted exponent. If there is no
        fitted exponent either, p is 0.

        The other attributes are change; boundary_exponent; boundary_exponent_low and boundary_exponent_high, the ends
        of its 95% interval; boundary_exponent_predicted; collapse_spread, the RMS deviation of the log kernel change,
        as a function of m^p alpha, from its mean over widths; collapse_exponent, the p with the smallest spread; and
        reason, which explains why the fitted exponent is more than 0.1 below the predicted exponent. The reason is
        empty if the exponent is not that far below the prediction, or if no explanation is known.

    Raises:
        ValueError: If an argument is invalid, if `out` contains a different study, or if another process is using
            `out`. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the map can be resumed.

    Warns:
        UserWarning: If no boundary is found at some width, because `output_scales` do not bracket it or because fewer
            than half of the networks fit their data. To bracket the boundary, the kernel change must fall from above
            `change` to below `change` as the output scale grows.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=16, n_test=8)
    >>> result = lz.laziness_map(lz.TwoLayer(width=2, train="both"), data, [16, 64], [0.1, 10.0], seeds=2)
    >>> bool(result.boundary[1] < result.boundary[0])
    True
    """
    with together():
        data = check_inputs(network, data)
        scales = _checked_scales(network, output_scales)
        for name, value, top in (("change", change, np.inf), ("fitted", fitted, 1.0)):
            if not (isinstance(value, int | float) and 0 < value < top):
                allowed = "positive and finite" if top == np.inf else "between 0 and 1"
                raise ValueError(f"{name} must be {allowed}, got {value!r}.")
        check_count("steps", steps)
        ordered, members = check_widths(widths, network, None), check_seeds(seeds)
        check_members_differ(network, ordered, members, data.x_train)
        folder = as_run_folder(out)
        if folder is not None and is_first():
            folder.check()
        stop = Stop(loss=fitted * 0.5 * float(np.sum(data.y_train**2)), gradient=NO_GRADIENT, plateau=STILL)
        if not stop.loss:
            raise ValueError("y_train must contain nonzero targets, got only zeros.")
        family = network if traits(network).starts_at_zero else Centered(network)
        setting = Setting(family, data, members, steps, stop, dtype, Parts.starting_now(folder), progress)
        spec = setting.spec(ordered, scales)
    with ExitStack() as stack:
        store = None
        with together():
            if folder is not None and is_first():
                store = stack.enter_context(open_store(folder, KIND, spec.request()))
                store.begin({}, [])
        grid = setting.train(family, ordered, scales, GRID)
        if folder is not None and folder.shard is not None:
            return None
        on_grid = None if grid is None else _on_grid(setting, grid)
        rounds = _bisection(setting, on_grid, scales, change)
        with together():
            if grid is None or on_grid is None:
                return None
            result = _with_boundary(on_grid, grid, rounds, change)
            settings = {"change": change, "fitted": fitted, **json.loads(grid.attrs["settings"])}
            steeper = result.attrs["boundary_exponent"] < result.attrs["boundary_exponent_predicted"] - BAND
            reason = why_steeper(settings) if steeper else ""
            result.attrs |= {**grid.attrs, "settings": json.dumps(settings), "reason": reason}
            label_result(result, KIND)
            if store is not None:
                store.finish(result_files(result))
    return result


def _checked_scales(network: Network, output_scales: Sequence[float]) -> list[float]:
    """Check the output scales and return them in ascending order."""
    if "output_scale" not in traits(network).fields:
        raise ValueError(f"network must have an output_scale field, got {traits(network).name}.")
    try:
        scales = sorted(float(scale) for scale in output_scales)
    except (TypeError, ValueError):
        scales = []
    if len(set(scales)) < 2 or len(set(scales)) < len(scales) or not all(0 < scale < np.inf for scale in scales):
        raise ValueError(f"output_scales must be two or more different positive numbers, got {output_scales}.")
    return scales


def _on_grid(setting: Setting, grid: Result) -> Result:
    """Return the variables of a map that depend on the width, the output scale and the seed."""
    named = grid.rename(kernel_drift="kernel_change").transpose("width", "output_scale", "seed", ...)
    status = setting.status(named)
    result = named[[name for name in (*FITTED_ONLY, "train_loss", "stopped_step") if name in named]]
    result = result.drop_vars([name for name in result.coords if name not in result.dims])
    result = result.assign(
        {name: result[name].where(status == MapStatus.FITTED) for name in FITTED_ONLY if name in result}
    )
    result["status"] = status.variable
    result["status"].attrs = flags(MapStatus)
    return result


def _bisection(setting: Setting, result: Result | None, scales: list[float], change: float) -> list[Round]:
    """Bisect the bracket at each width as long as at least half of the networks at the midpoint fit their data.

    Args:
        setting: The settings of the map.
        result: The map at the given scales, or None in all processes but the first.
        scales: The given scales, in ascending order.
        change: The kernel change that defines the boundary.

    Returns:
        The rounds of the bisection.
    """
    widest = max(b / a for a, b in pairwise(scales))
    rounds: list[Round] = []
    for number in range(1, 1 + max(0, ceil(log2(log(widest) / log(NEAR))))):
        # All processes train at the scales chosen by the first process.
        middles = {} if result is None else _middles(result, rounds, change)
        middles = {int(width): scale for width, scale in agreed(middles).items()}
        if not middles:
            break
        network = setting.network.clone(width=max(middles), output_scale=ScaleByWidth(tuple(middles.items())))
        # The folder's name includes `change`, because the same map has a different boundary for each value of `change`.
        trained = setting.train(network, list(middles), None, f"boundary-{change:g}-{number}")
        if trained is not None:
            values = trained.kernel_drift.where(setting.status(trained) == MapStatus.FITTED)
            rounds.append({width: (middles[width], values.sel(width=width).values) for width in middles})
    return rounds


def _middles(result: Result, rounds: list[Round], change: float) -> dict[int, float]:
    """Return the geometric mean of the bracket's endpoints for each width at which the bisection continues."""
    middles = {}
    for width in result.width.values.tolist():
        scales, changes = _curve(result, rounds, width)
        between = bracket(scales, mean_of_most(changes), change)
        if between is not None and width not in _given_up(rounds):
            middles[width] = sqrt(between[0] * between[1])
    return middles


def _given_up(rounds: list[Round]) -> set[int]:
    """Return the widths at which more than half of the networks at the bracket's midpoint do not fit their data."""
    return {width for by_width in rounds for width, (_, changes) in by_width.items() if np.isnan(mean_of_most(changes))}


def _curve(result: Result, rounds: list[Round], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all scales tried at a width, in ascending order, and the kernel changes at these scales.

    The arrays have shapes (a,) and (a, s).
    """
    more = [by_width[width] for by_width in rounds if width in by_width]
    scales = np.array([*result.output_scale.values, *(scale for scale, _ in more)])
    grid = result.kernel_change.sel(width=width).transpose("output_scale", "seed").values
    changes = np.concatenate([grid, *(values[None] for _, values in more)])
    order = np.argsort(scales)
    return scales[order], changes[order]


def _with_boundary(result: Result, grid: Result, rounds: list[Round], change: float) -> Result:
    """Return the map with the boundary, its exponent, and measures of how well the curves collapse across widths."""
    widths, given_up = result.width.values, _given_up(rounds)
    curves = [_curve(result, rounds, width) for width in widths.tolist()]
    changes = [values * (np.nan if width in given_up else 1) for width, (_, values) in zip(widths, curves, strict=True)]
    boundary = fit_boundary(widths, [scales for scales, _ in curves], changes, change)
    missing = [str(width) for width, scale in zip(widths, boundary.scale, strict=True) if np.isnan(scale)]
    if missing:
        count = [f"{int((result.status == code).sum())} {code.name.lower()}" for code in MapStatus]
        warnings.warn(
            f"There is no boundary at some widths ({', '.join(missing)}), because the kernel change does not cross "
            f"{change:g} within output_scales, or because fewer than half of the networks fit their data. "
            f"Networks by status: {', '.join(count)}.",
            stacklevel=3,
        )
    predicted = boundary_exponent(scaling_of(grid.isel(output_scale=0)))
    # If there is no exponent, the control parameter is simply the output scale.
    power = float(next((-p for p in (predicted, boundary.fit.exponent) if np.isfinite(p)), 0.0))
    scales, means = result.output_scale.values, mean_of_most(result.kernel_change.values)
    shape = len(widths), len(rounds)
    tried_scale, tried_change = np.full(shape, np.nan), np.full((*shape, result.sizes["seed"]), np.nan)
    for number, by_width in enumerate(rounds):
        for width, (scale, values) in by_width.items():
            place = int(np.flatnonzero(widths == width)[0])
            tried_scale[place, number], tried_change[place, number] = scale, values
    result = result.assign_coords(control=(("width", "output_scale"), widths[:, None] ** power * scales))
    result = result.assign(
        boundary=("width", boundary.scale),
        boundary_low=("width", boundary.low),
        boundary_high=("width", boundary.high),
        tried_scale=(("width", "round"), tried_scale),
        tried_change=(("width", "round", "seed"), tried_change),
    )
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
