"""`lazynet.infinite_width`: predict the training of an infinitely wide network on a whole data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lazynet.arguments import check_count, check_instance
from lazynet.data import Dataset, is_labels
from lazynet.dynamics import check_learning_rate
from lazynet.execution import RunFolder, as_run_folder, run
from lazynet.hosts import is_first, together
from lazynet.kernels import analytic_kernel, check_storage, check_tolerance
from lazynet.networks import GivenNetwork
from lazynet.plan import MOST
from lazynet.programs import entry
from lazynet.studies.infinite_width._study import InfiniteWidth
from lazynet.typing import MaybeNone, Result


@entry
def infinite_width(
    network: GivenNetwork,
    data: Dataset,
    *,
    steps: int = 100_000,
    snapshots: int = 200,
    learning_rate: float | None = None,
    dtype: str = "float32",
    storage: str | None = None,
    tolerance: float | None = None,
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Predict full-batch gradient descent for an infinitely wide network on a data set, with true and random labels.

    No O(n^3) computation is needed: see `lazynet.kernel_operator` and `lazynet.kernel_descent`.

    Args:
        network: The network. Its width does not affect the result.
        data: The data, with labels as targets.
        steps: Number of training steps.
        snapshots: Number of log-spaced steps at which predictions are made.
        learning_rate: Learning rate eta for the loss 1/2 sum ||f - y||^2; defaults to 1 / lambda_max.
        dtype: Dtype of the kernel's entries, "float64" or "float32".
        storage: How to store the kernel, as in `lazynet.kernel_operator`.
        tolerance: Tolerance for the predictions, as in `lazynet.kernel_descent`.
        out: A new folder for settings.json, cells/ and result.nc, or a `lazynet.RunFolder` to resume a prediction or
            limit its run time. The two cells (complexity and predictions) share one kernel, so the first shard computes
            both of them.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset`, or None in a shard or on a host other than the first.

        - By `labels` (true, random) and `step`: train_loss and train_error.
        - By `step`, for the true labels: test_loss and test_error.
        - By `labels`: complexity, which is NaN if the kernel is singular.
        - Scalar: lambda_max.

        The attributes `prediction_error` and `complexity_error` each contain two numbers: a bound on the truncation
        error and a bound on the storage error. Prediction errors are relative to the norm of the targets (the true and
        random labels combined), and complexity errors are relative to the complexity. Losses below the value of the
        attribute `resolved_loss` may consist entirely of prediction error.

    Raises:
        ValueError: If an argument is invalid, if the targets are not labels, if the network has no analytic kernel,
            if there is not enough memory, if `out` contains a different study, or if another process is using
            `out`. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires before a cell starts; the prediction can be resumed.

    Warns:
        UserWarning: If the kernel is singular, if a tolerance cannot be reached, or if kernel descent diverges because
            `learning_rate` is above 2 / lambda_max. With more than 1000 examples, diverging predictions are NaN.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=64, n_test=20)
    >>> result = lz.infinite_width(lz.TwoLayer(width=2), data, steps=1000)
    >>> bool(result.complexity.sel(labels="random") > result.complexity.sel(labels="true"))
    True
    """
    with together():
        folder = as_run_folder(out)
        if folder is not None and is_first():
            folder.check()
        settings = steps, snapshots, learning_rate, dtype, storage, tolerance
        kernel = check_infinite_width(network, data, *settings)
    return run(InfiniteWidth(network, data, kernel, *settings), folder, progress)


def check_infinite_width(
    network: GivenNetwork,
    data: Dataset,
    steps: int,
    snapshots: int,
    learning_rate: float | None,
    dtype: str,
    storage: str | None,
    tolerance: float | None,
) -> Callable[..., np.ndarray]:
    """Check the arguments of `lazynet.infinite_width` and return the network's analytic kernel.

    Args:
        network: Network of any width.
        data: The training and test sets.
        steps: Number of training steps.
        snapshots: Number of log-spaced steps at which predictions are made.
        learning_rate: Learning rate eta, or None for the default.
        dtype: Dtype of the kernel's entries, "float64" or "float32".
        storage: How to store the kernel's entries, as in `lazynet.kernel_operator`, or None for the default.
        tolerance: Tolerance for the predictions, as in `lazynet.kernel_descent`, or None for the default.

    Returns:
        The analytic kernel, as returned by `lazynet.analytic_kernel`.

    Raises:
        ValueError: If an argument is invalid, if the targets are not labels, or if the network has no analytic kernel.
    """
    check_instance("data", data, Dataset)
    check_count("steps", steps, most=2**62)
    check_count("snapshots", snapshots, most=MOST)
    if learning_rate is not None:
        check_learning_rate(learning_rate)
    check_tolerance(tolerance)
    check_storage(dtype, storage)
    if not is_labels(data.y_train):
        raise ValueError("y_train must contain only class labels. For other targets, use lazynet.kernel_descent.")
    kernel = analytic_kernel(network)
    if kernel is None:
        raise ValueError(
            f"network must have an analytic kernel, got {type(network).__name__}, which does not have one."
        )
    return kernel
