"""What the infinite-width kernel predicts of training on a whole data set, on true and on random labels."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.data import Dataset, is_labels, label_noise
from lazynet.dynamics import Trajectory, check_learning_rate, kernel_descent
from lazynet.execution._provenance import provenance
from lazynet.execution._store import write_run
from lazynet.experiment._record import as_json, limit_settings
from lazynet.experiment._spec import check_count, check_new_folder
from lazynet.kernels import CrossOperator, analytic_kernel, kernel_operator, largest_eigenvalue, solve
from lazynet.kernels._krylov import check_tolerance
from lazynet.kernels._storage import check_storage
from lazynet.measures import zero_one_error
from lazynet.networks import traits
from lazynet.training._keys import noise_key
from lazynet.typing import Result

LABELS = ("true", "random")
MEANING = {
    "train_loss": "loss of the infinite-width prediction on the training set",
    "train_error": "share of misclassified training examples",
    "test_loss": "loss of the infinite-width prediction on the test set",
    "test_error": "share of misclassified test examples",
    "complexity": "sqrt(2 y' K^-1 y / n)",
    "lambda_max": "largest eigenvalue of K on the training set",
}
# Of the complexity; that of the predictions is what `kernel_descent` takes.
COMPLEXITY_TOLERANCE = 1e-3


def predict(
    network: Any,
    data: Dataset,
    *,
    steps: int = 100_000,
    snapshots: int = 200,
    learning_rate: float | None = None,
    dtype: str = "float32",
    storage: str | None = None,
    tolerance: float | None = None,
    out: str | Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Result:
    """Full-batch descent of the infinitely wide network on all of a data set, on its labels and on random ones.

    Nothing of the size n^3 is computed: see `lazynet.kernel_operator` and `lazynet.kernel_descent`.

    Args:
        network: the network; its width plays no part.
        data: with labels as targets.
        steps: the number of steps.
        snapshots: about how many log-spaced steps to predict.
        learning_rate: eta for the loss 1/2 sum ||f - y||^2; 1 / lambda_max when left out.
        dtype: of the kernel's entries, "float64" or "float32".
        storage: of the kernel, as in `lazynet.kernel_operator`.
        tolerance: of predictions, as in `lazynet.kernel_descent`.
        out: a new folder for settings.json and result.nc.
        progress: is called with what is done and the share or number of it.

    Returns:
        Over `labels` (true, random) and `step`: train_loss, train_error; over `step`, for the true labels: test_loss,
        test_error; over `labels`: complexity; lambda_max. The attributes `prediction_error` (relative to the norm of
        the targets) and `complexity_error` (relative) say how wrong they may be, each as truncation and storage; losses
        below the attribute `resolved_loss` may be nothing but that error. Where the kernel has no inverse, complexity
        is NaN.

    Warns:
        UserWarning: if the kernel has no inverse, or a tolerance could not be reached.

    Raises:
        ValueError: before any work, if an argument is not as above, the targets are no labels, the network has no
            analytic kernel, or the memory does not suffice.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=64, n_test=20)
    >>> result = lz.predict(lz.TwoLayer(width=2), data, steps=1000)
    >>> bool(result.complexity.sel(labels="random") > result.complexity.sel(labels="true"))
    True
    """
    check_new_folder(out)
    kernel = check_prediction(network, data, steps, snapshots, learning_rate, dtype, storage, tolerance)
    begun = time.time()
    tell = progress or (lambda what, amount: None)
    k = kernel_operator(
        kernel, data.x_train, dtype=dtype, storage=storage, progress=lambda share: tell("kernel", share)
    )
    random = label_noise(data.y_train, 1.0, noise_key())
    y = np.stack([data.y_train, random], axis=-1).reshape(data.n_train, -1)
    inverse = solve(k, y, tolerance=2 * COMPLEXITY_TOLERANCE, progress=lambda m, error: tell("complexity", float(m)))
    if inverse.singular:
        warnings.warn("The kernel has no inverse to rounding, so that complexity is NaN.", stacklevel=2)
    lambda_max = largest_eigenvalue(k)
    eta = 1 / lambda_max if learning_rate is None else learning_rate
    at = np.unique(np.concatenate([[0], np.geomspace(1, steps, snapshots).round()])).astype(np.int64)
    path = kernel_descent(
        k,
        y,
        learning_rate=eta,
        steps=at,
        k_test=CrossOperator(kernel, data.x_test, data.x_train, dtype) if data.n_test else None,
        tolerance=tolerance,
        progress=lambda m, error: tell("predictions", float(m)),
    )
    result = _labeled(data, random, path, at, inverse.forms * (np.nan if inverse.singular else 1.0))
    result["lambda_max"] = lambda_max
    # The error is relative to the norm of both sets of labels together.
    result.attrs["resolved_loss"] = float(0.5 * path.error.total**2 * np.sum(y**2))
    result.attrs |= {"prediction_error": list(path.error), "complexity_error": [part / 2 for part in inverse.error]}
    settings = {
        **limit_settings(network, data),
        "steps": steps,
        "snapshots": snapshots,
        "learning_rate": eta,
        "dtype": dtype,
        "storage": k.storage,
    }
    result.attrs |= provenance(as_json(settings), dtype, begun)
    if out is not None:
        write_run(out, result)
    return result


def check_prediction(
    network: Any,
    data: Dataset,
    steps: int,
    snapshots: int,
    learning_rate: float | None,
    dtype: str,
    storage: str | None,
    tolerance: float | None,
) -> Callable[..., np.ndarray]:
    """Every refusal of `predict` that needs no work; the network's kernel."""
    check_count("steps", steps)
    check_count("snapshots", snapshots)
    if learning_rate is not None:
        check_learning_rate(learning_rate)
    check_tolerance(tolerance)
    check_storage(dtype, storage)
    if not is_labels(data.y_train):
        raise ValueError("predict compares labels with random ones, but the targets of this data set are no labels.")
    kernel = analytic_kernel(network)
    if kernel is None:
        raise ValueError(f"{traits(network).name} has no analytic kernel, so there is nothing to predict with.")
    return kernel


def _labeled(data: Dataset, random: np.ndarray, path: Trajectory, step: np.ndarray, forms: np.ndarray) -> Result:
    """Losses, errors and complexity; outputs of the true and of the random labels take turns in the predictions."""
    import xarray

    y = data.y_train.reshape(data.n_train, -1)
    train = path.train.reshape(len(step), *y.shape, 2)
    table: dict[str, tuple] = {}
    losses, errors = [], []
    for targets, f in zip((y, random.reshape(y.shape)), np.moveaxis(train, -1, 0), strict=True):
        losses.append(np.sum((f - targets) ** 2, axis=(1, 2)) / 2)
        errors.append(_errors(f, targets, step))
    table["train_loss"] = (("labels", "step"), np.stack(losses))
    table["train_error"] = (("labels", "step"), np.stack(errors))
    if path.test is not None:
        targets = data.y_test.reshape(data.n_test, -1)
        f = path.test.reshape(len(step), *targets.shape, 2)[..., 0]
        table["test_loss"] = ("step", np.sum((f - targets) ** 2, axis=(1, 2)) / 2)
        table["test_error"] = ("step", _errors(f, targets, step))
    squares = np.sum(forms.reshape(-1, 2), axis=0)
    table["complexity"] = ("labels", np.sqrt(2 * squares / data.n_train))
    result = xarray.Dataset(table, coords={"labels": list(LABELS), "step": step})
    for name, meaning in MEANING.items():
        if name in result:
            result[name].attrs["long_name"] = meaning
    return result


def _errors(f: np.ndarray, y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Share of misclassified examples; the prediction at step 0 is zero and classifies nothing."""
    if y.shape[1] == 1:
        f, y = f[..., 0], y[..., 0]
    found = np.array(zero_one_error(f, y))
    return np.where(step == 0, 1 - 1 / max(2, y.shape[-1] if y.ndim == 2 else 2), found)
