"""`lz.sweep` and `lz.merge`: networks beside their kernels, over widths, seeds and other axes."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.data import Dataset
from lazynet.execution._checkpoint import OutOfTime
from lazynet.execution._provenance import provenance
from lazynet.execution._runner import all_cells, deadline_of
from lazynet.execution._store import finished_run, open_run
from lazynet.experiment._cost import sweep_jobs
from lazynet.experiment._devices import agreed_text, is_first, together
from lazynet.experiment._limits import Limits
from lazynet.experiment._record import as_json
from lazynet.experiment._result import Pack, assemble
from lazynet.experiment._spec import Training, as_snapshots, check_new_folder, check_shard, named
from lazynet.experiment._study import rates_of, study_of
from lazynet.losses import Loss, get_loss
from lazynet.networks import Scale
from lazynet.studies.sweep._verdict import verdicts_json
from lazynet.training import Stop
from lazynet.typing import Result


def sweep(
    network: Any,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    learning_rate: Scale | Sequence[float] | None = None,
    loss: str | Loss = "squared",
    optimizer: str | Callable = "sgd",
    batch_size: int | Sequence[int] | None = None,
    label_noise: float | Sequence[float] = 0.0,
    n_train: int | Sequence[int] | None = None,
    activation: str | Sequence[str] | None = None,
    init_scale: Scale | Sequence[float] | None = None,
    output_scale: Scale | Sequence[float] | None = None,
    snapshots: int | Sequence[int] | np.ndarray = 20,
    dtype: str = "float32",
    stepper: str = "auto",
    stop: Stop | None = None,
    measures: Mapping[str, Callable] | None = None,
    sharpness: bool = False,
    compare: bool = True,
    quadratic: bool = False,
    regression: bool = False,
    measured: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    max_seconds: float | None = None,
    progress: bool = True,
) -> Any:
    """Train networks of growing width beside their kernels and measure how far they move apart.

    Each of learning_rate, batch_size, label_noise, n_train, activation, init_scale and output_scale may be a list, and
    then is a dimension of the result; networks are trained at every combination. A member of the same width and seed
    has the same draws at all of them.

    Args:
        network: the family; its own width is replaced by each of `widths`.
        data: on what to train.
        widths: numbers of hidden units.
        seeds: a number, for 0 .. seeds - 1, or a list of seeds.
        steps: number of steps.
        learning_rate: eta, one number for all widths or a function of the width; left out, 1 / lambda_max of the
            analytic kernel at the largest width, or of the empirical one of seed 0 where there is none; of networks
            with a parametrization as many powers of the width as it asks for, nowhere above that (squared loss only).
        loss: as in `lazynet.train`.
        optimizer: as in `lazynet.train`.
        batch_size: examples to a batch; all of them when left out.
        label_noise: share of the training labels that is drawn anew; one draw for all members, where a smaller share is
            part of a larger one.
        n_train: how many of the training examples to take, at random; a smaller number is part of a larger one. All of
            them when left out.
        activation: as in `lazynet.TwoLayer`, as are the next two; that of `network` when left out.
        init_scale: kappa.
        output_scale: alpha.
        snapshots: as in `lazynet.train`.
        dtype: "float32" or "float64".
        stepper: as in `lazynet.train`.
        stop: when a member stops before its last step: it keeps its last values, and a gap that of the last snapshot.
        measures: as in `lazynet.train`; of one shape at all widths.
        sharpness: as in `lazynet.train`.
        compare: whether to set networks beside their linearizations and the limit of infinite width. Without it nothing
            of the size n_train x n_train is computed but kernel_drift, and a learning rate that is left out.
        quadratic: whether to train each network's Taylor polynomial of order 2 at its start too, with the same steps,
            for quadratic_gap_train and _test; it takes some four times as long as the network itself.
        regression: whether to measure errors of kernel regression on the test set, with each network's own kernel at
            the start and at the end and with that of infinite width; of labels only.
        measured: as in `lazynet.train`, for training sets that are too large for a kernel; only without `compare`.
        out: a new folder for settings.json, cells/ with what is finished, and in the end result.nc and verdict.json.
        resume: whether `out` may exist: then only those cells are computed that are not stored there. The sweep must be
            the same; the result is, bit for bit, that of one that was never stopped.
        shard: (k, N), to compute only the k-th of N shares of the cells and store them in `out`, which all N share and
            may find begun; `lazynet.merge` puts the result together, and this returns None.
        max_seconds: the time after which to end, with what was done stored in `out`.
        progress: whether to show progress on a terminal.

    Returns:
        `xarray.Dataset` over width, seed, step and then the axes that have several values, in the order activation,
        init_scale, output_scale, n_train, learning_rate, batch_size, label_noise. Of the networks: train_loss,
        test_loss, train_error, test_error, residual_norm, displacement, relative_displacement, max_neuron_displacement,
        activation_flips, kernel_drift, status, stopped_step, initial_kernel_error. Beside the predictions:
        linearization_gap, start_gap, kernel_gap and quadratic_gap, each _train and _test. Of the limit:
        kernel_train_loss, kernel_test_loss, kernel_train_error, kernel_test_error, linearized_displacement, lambda_min,
        lambda_max, label_norm, complexity, each over those axes on which it depends. Of other networks than `TwoLayer`
        with several trained arrays, over `layer` too: layer_displacement, layer_relative_displacement,
        layer_kernel_drift. Bounds on max_neuron_displacement: lemma_bound (Arora et al. 2019, Lemma C.1) and
        path_bound. With `regression` test_kernel_drift, of the block of the empirical kernel between test and training
        set at the end, and regression_error_start, _end and _limit (K_T is that of the last step), each with _low and
        _high, its 95% binomial interval. Everything is float64; a diverged member is NaN from its stopped_step on. What
        only full-batch descent has is NaN at other batch sizes beside it. On several hosts (see `jax.distributed`) the
        first process reads, writes and returns the result, the others None. Beyond eight widths compiled programs are
        let go by `jax.clear_caches`, yours too, for memory would grow with every width.

    Raises:
        ValueError: if an argument is not as described, `out` is a folder of another sweep or another process is at work
            on it, before any work starts.
        TimeoutError: if max_seconds are over; with `resume` the sweep goes on.

    Warns:
        UserWarning: if the learning rate is above 2 / lambda_max, or the kernel has no inverse.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10)
    >>> dict(result.train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    training = Training(
        steps,
        as_snapshots(snapshots),
        get_loss(loss),
        optimizer,
        None,
        dtype,
        stepper,
        stop,
        named(measures),
        sharpness,
        compare,
        measured,
        quadratic,
        regression,
    )
    given = {
        "activation": activation,
        "init_scale": init_scale,
        "output_scale": output_scale,
        "n_train": n_train,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "label_noise": label_noise,
    }
    study = study_of(network, data, widths, seeds, training, given)
    check_shard(shard, out)
    with together():
        if is_first():
            check_new_folder(out, resume or shard is not None)
    deadline = deadline_of(max_seconds, out)
    for job in sweep_jobs(study):
        job.check()
    begun = time.time()
    with ExitStack() as stack:
        run = None
        with together():
            if out is not None and is_first():
                run = stack.enter_context(open_run(out, study.asked(), resume, shard))
        limits = Limits()
        rates = (run and run.settings and rates_of(run.settings)) or [
            limits.rates(point, study.widths) for point in study.points
        ]
        settings, record = study.record(rates)
        with together():
            if run is not None:
                # Of shards that begin at once, the first one's hold for all.
                record = run.begin(record)
        record = json.loads(agreed_text(json.dumps(record)))
        rates = rates_of(record)
        packs = [Pack(*pack) for pack in record["engine"]["packs"]]
        try:
            cells = all_cells(study, packs, rates, limits, run, progress, shard, deadline)
        except OutOfTime:
            raise TimeoutError(f"max_seconds = {max_seconds:g} are over; with resume=True the sweep goes on.") from None
        if shard is not None or not is_first():
            return None
        result = assemble(cells, record)
        result.attrs |= provenance(as_json(settings), dtype, begun)
        if run is not None:
            run.finish(result, verdicts_json(result))
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
        found = [run.read(number) for number in range(len(run.packs))]
        missing = [number for number, cell in enumerate(found) if cell is None]
        if missing:
            raise ValueError(
                f"{str(out)!r} lacks {len(missing)} of {len(found)} cells, the first of them number {missing[0] + 1}; "
                "run its shards once more, which compute only what is missing."
            )
        result = assemble([cell for cell in found if cell is not None], run.settings)
        result.attrs |= provenance(as_json(run.asked_settings), run.settings["dtype"], begun)
        run.finish(result, verdicts_json(result))
    return result
