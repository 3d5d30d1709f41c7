"""`lazynet.sweep` and `lazynet.merge_shards`: networks and their kernels over widths, seeds and other axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder, run
from lazynet.experiment import Measure, check_memory_of, is_first, make_spec, make_training, together
from lazynet.losses import Loss
from lazynet.networks import Scale
from lazynet.studies.sweep._study import SweepStudy
from lazynet.training import Stop


def sweep(
    network: Any,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: Any = "sgd",
    batch_size: int | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    snapshots: int | Sequence[int] | np.ndarray | None = None,
    stop: Stop | None = None,
    measure: Measure | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Any:
    """Train networks of several widths from several seeds, and measure how far they are from their kernels.

    Args:
        network: the family; its own width is replaced by each of `widths`.
        data: the training and test examples.
        widths: numbers of hidden units.
        seeds: number of seeds, for 0 .. seeds - 1, or a list of seeds.
        steps: number of training steps.
        learning_rate: eta, one number for all widths or a function of the width. By default 1 / lambda_max of the
            analytic kernel at the largest width, or of the empirical kernel of seed 0 if there is no analytic kernel;
            networks with a parametrization follow its power of the width and nowhere exceed that rate. The squared loss
            only has a default.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: the name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an
            optax optimizer.
        batch_size: examples in a batch; by default the full batch.
        axes: lists of values by name, each a dimension of the result if it has several values: fields of the network,
            n_train, label_noise, learning_rate, batch_size, optimizer, and fields of `lazynet.Optimizer`. Networks are
            trained at every combination. A member of one width and seed has the same draws at all of them: a smaller
            n_train takes part of the examples of a larger one, chosen at random, and a smaller label_noise (the share
            of training labels that are drawn anew) changes part of the labels of a larger one. A function is labeled by
            its name.
        snapshots: number of log-spaced snapshots, or their steps; step 0 and the last step are always among them. By
            default at least 20, and enough that each is at most 1.5 times as late as the one before.
        stop: when a member stops before its last step. It then keeps its last values.
        measure: what to measure, and what to compare the networks with.
        dtype: "float32" or "float64", of the training. Kernels and predictions are always float64.
        out: a new folder for settings.json, cells/, result.nc and verdict.json, or a `lazynet.RunFolder` to resume a
            sweep, share it among processes or limit its time.
        progress: whether to show progress on a terminal.

    Returns:
        `xarray.Dataset` over width, seed, step and then the axes with several values, in the order given.
        `lazynet.measures.catalogue()` describes its variables. Measures of the networks are over width, seed and step;
        predictions of the infinite-width limit are over those axes on which they depend. Everything is float64. A
        diverged member is NaN from its `stopped_step` on. Variables of full-batch descent are NaN at other batch sizes.
        None in a shard, and on all hosts but the first (see `jax.distributed`).

    Raises:
        ValueError: if an argument is not as described, `out` holds another study, or another process works on it;
            before any work starts.
        TimeoutError: if the time limit of `out` is over; the sweep can be resumed.

    Warns:
        UserWarning: if the learning rate exceeds 2 / lambda_max, or the kernel has no inverse.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10)
    >>> dict(result.train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    training = make_training(
        steps,
        loss=loss,
        optimizer=optimizer,
        batch_size=batch_size,
        snapshots=snapshots,
        stop=stop,
        measure=measure,
        dtype=dtype,
    )
    spec = make_spec(network, data, widths, seeds, training, learning_rate, axes)
    folder = as_run_folder(out)
    with together():
        if folder is not None and is_first():
            folder.check()
    check_memory_of(spec)
    return run(SweepStudy(spec), folder, progress)
