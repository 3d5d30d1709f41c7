"""`lz.sweep`, `lz.merge` and `lz.train`: networks beside their kernels, over widths and seeds."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from lazynet.data import Dataset
from lazynet.data import label_noise as redraw_labels
from lazynet.kernels import analytic_kernel, largest_eigenvalue
from lazynet.losses import Loss, get_loss
from lazynet.networks import Scale, TwoLayer, at_width
from lazynet.sweep.cells import Cell, compute_cell, network_variables
from lazynet.sweep.members import prepare, train_members
from lazynet.sweep.packing import packs_of
from lazynet.sweep.plan import sweep_jobs
from lazynet.sweep.predictions import (
    Limit,
    largest_empirical_eigenvalue,
    limit_of,
    warn_of_learning_rate,
    warn_of_singular_kernel,
)
from lazynet.sweep.progress import Progress
from lazynet.sweep.provenance import provenance
from lazynet.sweep.result import Pack, assemble
from lazynet.sweep.settings import (
    Training,
    as_json,
    check_count,
    check_new_folder,
    check_seeds,
    check_shard,
    check_widths,
    sweep_settings,
    tried,
)
from lazynet.sweep.store import RunFolder, fingerprint, finished_run, open_run
from lazynet.theory import verify
from lazynet.training import NEVER, choose_path, get_optimizer
from lazynet.training.keys import member_key, noise_key, start_key
from lazynet.typing import Result, Variables


class Run(NamedTuple):
    """One trained network.

    Attributes:
        variables: its variables after the last step.
        variables_0: its variables at the start.
        snapshots: `xarray.Dataset` over `step`: train_loss, test_loss, train_error, test_error, residual_norm,
            displacement, relative_displacement, max_neuron_displacement, activation_flips, kernel_drift, and the
            predictions train_prediction and test_prediction; the attribute `settings` is how it was trained, as JSON.
        status: "finished" or "diverged".

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> bool(run.snapshots.train_loss[-1] < run.snapshots.train_loss[0])
    True
    """

    variables: Variables
    variables_0: Variables
    snapshots: Any
    status: str


def train(
    network: TwoLayer,
    data: Dataset,
    key: Array,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: str | Callable = "sgd",
    batch_size: int | None = None,
    snapshots: int = 20,
    dtype: str = "float32",
    path: str = "auto",
) -> Run:
    """Train one network and measure it on the way.

    Args:
        network: what to train.
        data: on what.
        key: a jax random key; the member (width, seed) of a sweep has fold_in(fold_in(key(0), width), seed).
        steps: number of steps.
        learning_rate: eta, a number or a function of the width; left out, 1 / lambda_max of the analytic kernel
            (squared loss only).
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: "sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop", "lion", or a function of the
            learning rate that returns an optax optimiser.
        batch_size: examples to a batch; all of them when left out.
        snapshots: about how many log-spaced snapshots to take.
        dtype: "float32" or "float64".
        path: "auto" takes the quickest way of computing the same numbers; "autodiff", "hidden" and "preactivation"
            force one.

    Returns:
        Run; measures are float64 whatever the dtype of training.

    Raises:
        ValueError: if an argument is not as described, before any work starts.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> run.status
    'finished'
    """
    import xarray

    training = Training(steps, snapshots, get_loss(loss), optimizer, batch_size, dtype, path)
    _check(network, data, training, learning_rate)
    if learning_rate is None:
        kernel = analytic_kernel(network)
        lambda_max = None if kernel is None else largest_eigenvalue(kernel(data.x_train))
        learning_rate = _default_learning_rate(network, data, lambda_max, key)
    rate = at_width(learning_rate, network.width)
    trained = train_members(network, data, [key], training, rate, prepare(network, data, training))
    variables, stopped = network_variables(network, data, trained, training)
    table: dict[str, tuple] = {name: ("step", values[0]) for name, values in variables.items()}
    for name in ("train_prediction", "test_prediction"):
        values = trained.records[name][0]
        table[name] = (("step", name.replace("prediction", "example"), "output")[: values.ndim], values)
    settings = sweep_settings(network, data, training, width=network.width, learning_rate=rate, plain=training.plain)
    diverged = stopped[0] != NEVER
    table["stopped_step"] = ((), np.int64(stopped[0] if diverged else steps))
    return Run(
        jax.tree.map(lambda leaf: leaf[0], trained.variables),
        jax.tree.map(lambda leaf: leaf[0], trained.variables_0),
        xarray.Dataset(table, coords={"step": training.snapshot_steps}, attrs={"settings": as_json(settings)}),
        "diverged" if diverged else "finished",
    )


def sweep(
    network: TwoLayer,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: str | Callable = "sgd",
    batch_size: int | None = None,
    label_noise: float = 0.0,
    snapshots: int = 20,
    dtype: str = "float32",
    path: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> Any:
    """Train networks of growing width beside their kernels and measure how far they move apart.

    Args:
        network: the family; its own width is replaced by each of `widths`.
        data: on what to train.
        widths: numbers of hidden units.
        seeds: a number, for 0 .. seeds - 1, or a list of seeds.
        steps: number of steps.
        learning_rate: eta, one number for all widths or a function of the width; left out, 1 / lambda_max of the
            analytic kernel (squared loss only).
        loss: as in `lazynet.train`.
        optimizer: as in `lazynet.train`.
        batch_size: examples to a batch; all of them when left out.
        label_noise: share of the training labels that is drawn anew; one draw for all members.
        snapshots: about how many log-spaced snapshots to take.
        dtype: "float32" or "float64".
        path: as in `lazynet.train`.
        out: a new folder for settings.json, cells/ with what is finished, and in the end result.nc and verdict.json.
        resume: whether `out` may exist: then only those cells are computed that are not stored there. The sweep must be
            the same; the result is, bit for bit, that of one that was never stopped.
        shard: (k, N), to compute only every N-th cell from the k-th on and store it in `out`, which all N shards share
            and may find begun; `lazynet.merge` puts the result together, and this returns None.
        progress: whether to show progress on a terminal.

    Returns:
        `xarray.Dataset` over width, seed and step. Of the networks: train_loss, test_loss, train_error, test_error,
        residual_norm, displacement, relative_displacement, max_neuron_displacement, activation_flips, kernel_drift,
        status, stopped_step, initial_kernel_error. Beside the predictions: linearization_gap, start_gap and kernel_gap,
        each _train and _test. Of the limit: kernel_train_loss, kernel_test_loss, kernel_train_error,
        kernel_test_error, linearised_displacement, lambda_min, lambda_max, label_norm, complexity. Bounds on
        max_neuron_displacement: lemma_bound (Arora et al. 2019, Lemma C.1) and path_bound. Everything is float64; a
        diverged member is NaN from its stopped_step on.

    Raises:
        ValueError: if an argument is not as described, `out` is a folder of another sweep or another process is at work
            on it, before any work starts.

    Warns:
        UserWarning: if the learning rate is above 2 / lambda_max, or the kernel has no inverse.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10)
    >>> dict(result.train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    training = Training(steps, snapshots, get_loss(loss), optimizer, batch_size, dtype, path)
    widths, seeds = check_sweep(network, data, widths, seeds, training, learning_rate, label_noise)
    network = network.clone(width=widths[-1])
    check_shard(shard, out)
    check_new_folder(out, resume or shard is not None)
    prepared = prepare(network, data, training)
    for job in sweep_jobs(network, data, widths, seeds, training, prepared):
        job.check()
    begun = time.time()
    given = None if learning_rate is None else {width: at_width(learning_rate, width) for width in widths}
    asked = sweep_settings(
        network, data, training, widths=widths, seeds=seeds, label_noise=label_noise, learning_rate=given
    )
    scales = {
        name: {width: at_width(getattr(network, name), width) for width in widths}
        for name in ("init_scale", "output_scale")
    }
    with (
        nullcontext()
        if out is None
        else open_run(out, _told_apart(asked | scales, training, data), resume, shard) as run
    ):
        if label_noise:
            data = replace(data, y_train=redraw_labels(data.y_train, label_noise, noise_key()))
        limits = _limits(network, data, widths)
        widest = limits[widths[-1]]
        rates = given or (run and run.learning_rates) or _default_learning_rates(network, data, widths, widest)
        if widest is not None:
            warn_of_singular_kernel(widest)
        if training.plain:
            warn_of_learning_rate(rates, limits)
        settings = asked | {"learning_rate": rates}
        engine = {
            "by_width": scales,
            "target_rms": float(np.sqrt(np.mean(data.y_train**2))),
            "packs": [(width, pack) for width in widths for pack in packs_of(seeds, network.clone(width=width), data)],
            "keys": {width: _key_data(width, seeds) for width in widths},
        }
        record = json.loads(as_json(settings | {"engine": engine}))
        if run is not None:
            # Of shards that begin at once, the first one's hold for all.
            record = run.begin(record)
            rates = run.learning_rates or rates
        # Label noise changes the targets that paths share.
        prepared = prepare(network, data, training) if label_noise else prepared

        def compute(number: int, width: int, pack: list[int], report: Callable[[int], None]) -> Cell:
            at_this, keys = network.clone(width=width), [member_key(width, seed) for seed in pack]
            kept = None if run is None else run.checkpoint(number)
            return compute_cell(at_this, data, keys, training, rates[width], prepared, limits[width], report, kept)

        with Progress(len(seeds) * steps * sum(widths), shown=progress) as bar:
            packs = [(width, pack) for width, pack in record["engine"]["packs"]]
            cells = _all_cells(packs, compute, run, bar, steps, shard or (1, 1))
        if shard is not None:
            return None
        result = assemble(cells, record)
        result.attrs |= provenance(as_json(settings), training.dtype, begun)
        if run is not None:
            run.finish(result, verify(result))
    return result


def merge(out: str | Path) -> Result:
    """Put the cells together that the shards of a sweep have stored in a folder; write result.nc and verdict.json.

    Args:
        out: the folder that all shards were given.

    Returns:
        What `lazynet.sweep` returns of the same sweep without shards.

    Raises:
        ValueError: if the folder holds no sweep, a process is at work on it, or a cell is missing or damaged.

    >>> import tempfile, lazynet as lz
    >>> data, out = lz.load_dataset("digits", n_train=32, n_test=8), tempfile.mkdtemp()
    >>> for k in (1, 2):
    ...     lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10, out=out, shard=(k, 2))
    >>> dict(lz.merge(out).train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    begun = time.time()
    with finished_run(out) as run:
        found = [run.get(number) for number in range(len(run.packs))]
        missing = [number for number, cell in enumerate(found) if cell is None]
        if missing:
            raise ValueError(
                f"{str(out)!r} lacks {len(missing)} of {len(found)} cells, the first of them number {missing[0] + 1}; "
                "run its shards once more, which compute only what is missing."
            )
        result = assemble([cell for cell in found if cell is not None], run.settings)
        result.attrs |= provenance(as_json(run.asked_settings), run.settings["dtype"], begun)
        run.finish(result, verify(result))
    return result


def _all_cells(
    packs: list[Pack],
    compute: Callable[[int, int, list[int], Callable[[int], None]], Cell],
    run: RunFolder | None,
    bar: Progress,
    steps: int,
    shard: tuple[int, int],
) -> list[Cell]:
    """The cells of a shard's packs, those that the run has stored from there, the others computed and stored."""
    part, parts = shard
    cells = []
    for number, (width, pack) in list(enumerate(packs))[part - 1 :: parts]:
        report = bar.steps_of(width)
        cell = None if run is None else run.get(number)
        if cell is None:
            cell = compute(number, width, pack, report)
            if run is not None:
                run.put(number, cell)
        else:
            report(steps * len(pack))
        cells.append(cell)
    return cells


def _told_apart(asked: dict[str, Any], training: Training, data: Dataset) -> str:
    """What is asked, as JSON; what names do not tell apart is there too: what functions do, the digits of the data."""
    digits = fingerprint(data.x_train, data.y_train, data.x_test, data.y_test)
    return as_json(asked | tried(training, data) | {"data": digits})


def _key_data(width: int, seeds: Sequence[int]) -> list[list[int]]:
    """The key of each member, as the numbers behind it."""
    return [jax.random.key_data(member_key(width, seed)).tolist() for seed in seeds]


def check_sweep(
    network: TwoLayer,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int],
    training: Training,
    learning_rate: Scale | None,
    label_noise: float,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Every refusal of a sweep that needs no work; its widths in ascending order, and its seeds."""
    ordered, chosen = check_widths(widths, network, learning_rate), check_seeds(seeds)
    _check(network.clone(width=ordered[-1]), data, training, learning_rate)
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is {label_noise}, but must be a share from 0 to 1.")
    return ordered, chosen


def _check(network: TwoLayer, data: Dataset, training: Training, learning_rate: Scale | None) -> None:
    """Every refusal that needs no work."""
    check_count("width", network.width)
    get_optimizer(training.optimizer)
    training.check(network, data, learning_rate)
    if training.path != "auto":
        optimizer, batch_size = training.optimizer, training.batch_size
        choose_path(network, training.loss, optimizer, batch_size, data.x_train, path=training.path)


def _limits(network: TwoLayer, data: Dataset, widths: Sequence[int]) -> dict[int, Limit | None]:
    """The limit kernel of each width; one and the same where the scales do not depend on the width."""
    found: dict[tuple[float, float], Limit | None] = {}
    limits = {}
    for width in widths:
        scales = at_width(network.init_scale, width), at_width(network.output_scale, width)
        if scales not in found:
            found[scales] = limit_of(network.clone(width=width), data)
        limits[width] = found[scales]
    return limits


def _default_learning_rates(
    network: TwoLayer, data: Dataset, widths: Sequence[int], widest: Limit | None
) -> dict[int, float]:
    """One default for all widths, from the largest."""
    lambda_max = None if widest is None else widest.lambda_max
    return dict.fromkeys(widths, _default_learning_rate(network, data, lambda_max, member_key(widths[-1], 0)))


def _default_learning_rate(network: TwoLayer, data: Dataset, lambda_max: float | None, key: Array) -> float:
    """1 / lambda_max of the analytic kernel, or of the empirical one where there is none."""
    if lambda_max is not None:
        return 1 / lambda_max
    variables = dict(network.init(start_key(key), jax.numpy.asarray(data.x_train, "float32")))
    return 1 / largest_empirical_eigenvalue(network, variables, data)
