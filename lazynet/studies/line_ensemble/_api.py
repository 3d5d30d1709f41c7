"""`lazynet.line_ensemble`: networks from many random initializations, evaluated on the line through two inputs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lazynet.arrays import float64_array
from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder, run
from lazynet.experiment import DIVERGENCE, check_inputs, check_memory_of, make_spec, make_training
from lazynet.hosts import is_first, together
from lazynet.networks import GivenNetwork, Scale
from lazynet.programs import entry
from lazynet.studies.line_ensemble._study import LineEnsemble
from lazynet.typing import MaybeNone, Result


@DIVERGENCE
@entry
def line_ensemble(
    network: GivenNetwork,
    data: Dataset,
    ends: Sequence[Any] | np.ndarray | jax.Array,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 100,
    steps: int = 1000,
    *,
    places: Sequence[float] | np.ndarray | None = None,
    snapshots: int | Sequence[int] = 4,
    learning_rate: Scale | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Train networks from many random initializations and evaluate them on the line a x_1 + (1 - a) x_2.

    At infinite width, the outputs at any time during full-batch gradient descent form a Gaussian process (Lee et al.
    2019, Figure 2). `lazynet.kernel_ensemble` computes the mean and covariance of this process. The gap is the
    difference between a network and the infinite-width prediction from the same initialization. The mean square of the
    gap over seeds is split into two parts: E gap^2 = bias^2 + variance.

    Args:
        network: The family of networks; its own width is replaced by each width in `widths`. If the initialization is
            symmetric, the infinite-width limit is not random.
        data: The training examples, used for full-batch gradient descent on the squared loss; the test examples are
            ignored.
        ends: The inputs x_1 and x_2, each of shape (d,).
        widths: Numbers of hidden units.
        seeds: A list of seeds, or an integer s for the seeds 0, ..., s - 1. At least two seeds are required.
        steps: Number of training steps.
        places: Values of the coordinate a; by default 51 equally spaced values from -2 to 3.
        snapshots: Number of log-spaced snapshots, or a list of the steps at which to take them.
        learning_rate: Learning rate eta, as in `lazynet.sweep`.
        dtype: Dtype used for training, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder` to resume the study, share it among processes or limit its run time.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`, or None in a shard or on a host other than the first. Multiple outputs are stored along the
        dimension `output`.

        - By width, seed, step and place: prediction.
        - By width, step and place: mean and deviation.
        - By step and place, and by width if the limit depends on the width: kernel_mean and kernel_deviation.
        - By width and step, averaged over points and outputs: gap_squared, gap_bias_squared and gap_variance. The
          last two are unbiased estimates, so the estimate of a small squared bias may be negative. With at least three
          seeds, the jackknife standard errors of these estimates are gap_bias_squared_error and gap_variance_error.

        If the network has no analytic kernel, the result contains only prediction, mean and deviation.

    Raises:
        ValueError: If an argument is invalid. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the study can be resumed.

    Warns:
        UserWarning: If networks diverge; statistics that include a diverged network are NaN.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=16, n_test=0)
    >>> network = lz.TwoLayer(width=64, symmetric=False)
    >>> result = lz.line_ensemble(network, data, data.x_train[:2], [64], seeds=10, steps=20)
    >>> dict(result.kernel_mean.sizes)
    {'step': 5, 'place': 51}
    """
    with together():
        data = check_inputs(network, data)
        inputs, coordinates = _line(data, ends, np.linspace(-2, 3, 51) if places is None else places)
        line = replace(data, x_test=inputs, y_test=np.zeros((len(coordinates), *data.y_train.shape[1:])))
        training = make_training(steps, snapshots=snapshots, dtype=dtype)
        spec = make_spec(network, line, widths, seeds, training, learning_rate)
        if len(spec.seeds) < 2:
            raise ValueError(
                f"seeds must specify at least two seeds, got {len(spec.seeds)}. With a single seed, the standard "
                "deviation over seeds is undefined."
            )
        folder = as_run_folder(out)
        if folder is not None and is_first():
            folder.check()
        check_memory_of(spec)
    return run(LineEnsemble(spec, np.asarray(ends, np.float64), coordinates), folder, progress)


def _line(data: Dataset, ends: Any, places: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs on the line and their coordinates."""
    rows, coordinates = float64_array("ends", ends), float64_array("places", places)
    if rows.shape != (2, data.dim):
        raise ValueError(f"ends must have shape (2, {data.dim}), got shape {rows.shape}.")
    if coordinates.ndim != 1 or not len(coordinates):
        raise ValueError(f"places must be a nonempty list of numbers, got an array of shape {coordinates.shape}.")
    for name, values in (("ends", rows), ("places", coordinates)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must contain only finite numbers, got {values[~np.isfinite(values)][0]}.")
    inputs = coordinates[:, None] * rows[0] + (1 - coordinates[:, None]) * rows[1]
    zero = ~inputs.any(axis=1)
    if zero.any():
        raise ValueError(
            f"places must not include the coordinate of the zero input, got {coordinates[zero][0]:g}. The kernel is "
            "undefined at the zero input."
        )
    return inputs, coordinates
