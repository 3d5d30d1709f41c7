"""`lazynet.required_width`: how wide a network must be to follow a prediction to a tolerance."""

from collections.abc import Sequence
from pathlib import Path

from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder
from lazynet.hosts import together
from lazynet.losses import Loss
from lazynet.networks import GivenNetwork, Scale
from lazynet.programs import entry
from lazynet.studies.required_width._run import run_search
from lazynet.studies.required_width._settings import MAX_WIDTH, TOLERANCE, make_search
from lazynet.training import AnyOptimizer
from lazynet.typing import MaybeNone, Result


@entry
def required_width(
    network: GivenNetwork,
    data: Dataset,
    tolerance: float = TOLERANCE,
    of: str = "linearization",
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    pilots: Sequence[int] | None = None,
    max_width: int = MAX_WIDTH,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Find the width at which networks begin to follow a prediction to within a tolerance: predict it, then verify it.

    First, the pilots are trained: networks with the widths in `pilots`, in ascending order, up to the first width that
    is lazy in the sense of `lazynet.verify`. From the pilots, the crossing is predicted, the width at which the mean
    over seeds of the largest gap equals the tolerance, with a 95% interval (see `lazynet.theory.predict_crossing`). The
    prediction is stored before wider networks are trained. Then, networks near the predicted width are trained, up to
    `max_width` and at most eight more widths, to find the required width: the smallest trained width such that it and
    all larger trained widths are lazy. The crossing is also measured between trained widths (see
    `lazynet.theory.crossing`). The required width is at least the crossing, because the whole interval of the mean must
    lie within the tolerance.

    By default, all networks are trained with the same learning rate, or with rates that scale with the width as the
    parametrization prescribes. Gaps can grow with further training, so the required width holds only for the given
    number of steps.

    Args:
        network: The family of networks; its own width is replaced.
        data: The training and test examples.
        tolerance: Largest gap at which networks count as lazy, as a fraction of the RMS of the targets.
        of: "linearization" for the gap between each network and its own linearization, or "infinite_width" for the gap
            to the prediction of the analytic kernel.
        seeds: A list of at least two seeds, or an integer s for the seeds 0, ..., s - 1.
        steps: Number of training steps.
        pilots: Pilot widths, at most `max_width`. The prediction uses the five largest, and a power law if there are
            fewer than four. Defaults to 64, 128, 256, 512, 1024 and 2048, as far as they are at most `max_width`.
        max_width: Largest width that may be trained. If the predicted width is larger, it is not verified.
        learning_rate: Learning rate eta, either a number that applies to all widths or a function of the width. By
            default, the rate that `lazynet.sweep` chooses for the widths in `pilots`.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: The name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an
            optax optimizer.
        batch_size: Number of examples per batch; defaults to the full batch.
        dtype: Dtype used for training, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder`. The folder contains settings.json, result.nc, the prediction, and a
            subfolder for the sweep at each width. A search in the same folder with a different `tolerance`, `of` or
            `max_width` reuses the trained networks and replaces the result. `out.shard` must be None, because the
            widths to train depend on earlier results.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`, or None on a host other than the first. It contains the measurements of a sweep, with the
        dimensions width, seed and step; `pilot`, with the dimension width, which is 1 for pilots and 0 for widths
        trained later; and, as numbers of hidden units, `required_width` (NaN if no width was verified),
        `predicted_width`, which is the predicted crossing, and `crossing`, with `_low` and `_high` for the ends of
        their 95% intervals. Its attributes include `tolerance`, `of` and `reason`, the reason why no width was
        predicted or verified (empty if one was verified). `lazynet.verify(result).answer` states the outcome in words.

    Raises:
        ValueError: If an argument is invalid, if `out` contains a different study, or if another process is using
            `out`. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the search can be resumed.

    Warns:
        UserWarning: If the learning rate is above the stability limit, or if a stored prediction is damaged.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.required_width(lz.TwoLayer(width=2), data, tolerance=0.1, seeds=4, steps=10, pilots=[16, 64, 256])
    >>> int(result.required_width) in result.width.values
    True
    """
    with together():
        search = make_search(
            network,
            data,
            tolerance,
            of,
            seeds,
            steps,
            pilots=pilots,
            max_width=max_width,
            learning_rate=learning_rate,
            loss=loss,
            optimizer=optimizer,
            batch_size=batch_size,
            dtype=dtype,
            folder=as_run_folder(out),
            progress=progress,
        )
    return run_search(search)
