"""`lazynet.sweep`: train networks over widths, seeds and other axes, and compare them with their kernels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder, run
from lazynet.experiment import Measure, check_memory_of, make_spec, make_training
from lazynet.hosts import is_first, together
from lazynet.losses import Loss
from lazynet.networks import GivenNetwork, Scale
from lazynet.programs import entry
from lazynet.studies.sweep._study import SweepStudy
from lazynet.training import AnyOptimizer, Stop
from lazynet.typing import MaybeNone, Result


@entry
def sweep(
    network: GivenNetwork,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    snapshots: int | Sequence[int] | np.ndarray | None = None,
    stop: Stop | None = None,
    measure: Measure | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Train networks with several widths and seeds, and compare them with their kernels.

    Args:
        network: The family of networks; its own width is replaced by each width in `widths`.
        data: The training and test examples.
        widths: Numbers of hidden units.
        seeds: A list of seeds, or an integer s for the seeds 0, ..., s - 1.
        steps: Number of training steps.
        learning_rate: Learning rate eta, either a number that applies to all widths or a function of the width.
            Defaults to 1 / lambda_max of the analytic kernel at the largest width, or of the empirical kernel of seed 0
            if there is no analytic kernel. If the network has a parametrization, the default scales with the width as
            the parametrization prescribes and does not exceed 1 / lambda_max at any width. There is a default only for
            the squared loss and the optimizers "sgd" and "flow".
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: The name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an
            optax optimizer.
        batch_size: Number of examples per batch; defaults to the full batch.
        axes: Mapping from names to lists of values. The names may be fields of the network, n_train, label_noise,
            learning_rate, batch_size, optimizer, or fields of `lazynet.Optimizer`. Networks are trained at every
            combination of values, and each name with several values becomes a dimension of the result. Networks with
            the same width and seed share their random draws: the examples for a smaller n_train are a random subset of
            the examples for a larger n_train, and the labels changed by a smaller label_noise (the fraction of training
            labels that are redrawn) are a subset of the labels changed by a larger label_noise. A value that is a
            function is labeled with the function's name.
        snapshots: Number of log-spaced snapshots, or a list of the steps at which to take them. Step 0 and the last
            step are always included. By default, there are at least 20 snapshots, and each snapshot's step is at most
            1.5 times the previous snapshot's step, up to rounding.
        stop: Criteria for ending a network's training before the last step. The network then keeps its last values.
        measure: What to measure, and what to compare the networks with.
        dtype: Dtype used for training, "float32" or "float64". Kernels and predictions are always float64.
        out: A new folder for settings.json, cells/, result.nc and verdict.json, or a `lazynet.RunFolder` to resume a
            sweep, share it among processes or limit its run time.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`. A shard, and every host except the first (see `jax.distributed`), returns None instead. The
        dimensions are width, seed and step, followed by the axes with several values, in the given order.
        `lazynet.measures.catalog()` describes the variables. Measurements of the networks have the dimensions width,
        seed and step; predictions for the infinite-width limit have only the dimensions on which they depend. All
        values are float64. If a network diverges, its values are NaN from its `stopped_step` onward. Variables that
        are defined only for some optimizers, losses or batch sizes are NaN at other points.

    Raises:
        ValueError: If an argument is invalid, if `out` contains a different study, or if another process is using
            `out`. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the sweep can be resumed.

    Warns:
        UserWarning: If the learning rate exceeds 2 (1 + momentum) / (lambda_max + ridge), or if the kernel is singular.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10)
    >>> dict(result.train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    with together():
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
        if folder is not None and is_first():
            folder.check()
        check_memory_of(spec)
    return run(SweepStudy(spec), folder, progress)
