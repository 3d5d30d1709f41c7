"""Infinite-width training as a study for the runner, with one task for the complexity and one for the predictions."""

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lazynet.data import Dataset, label_noise
from lazynet.dynamics import EXACT, kernel_descent
from lazynet.execution import Arrays, Output, Task, TaskProgress, provenance, result_files
from lazynet.experiment import DIVERGENCE, CellCheckpoint, as_json, fingerprint, limit_settings
from lazynet.kernels import CrossOperator, Error, KernelOperator, kernel_operator, largest_eigenvalue, solve
from lazynet.measures import label_result, zero_one_error
from lazynet.networks import Network
from lazynet.training._keys import noise_key
from lazynet.typing import Result

KIND = "infinite_width"
LABELS = ("true", "random")
# Relative tolerance for the complexity. The predictions have a separate tolerance in `kernel_descent`.
COMPLEXITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class InfiniteWidth:
    """Full-batch gradient descent for an infinitely wide network, with a data set's labels and with random labels.

    Attributes:
        network: The network.
        data: The data, with labels as targets.
        kernel: The network's analytic kernel.
        steps: Number of training steps.
        snapshots: Number of log-spaced steps at which predictions are made.
        learning_rate: Learning rate eta, or None for 1 / lambda_max.
        dtype: Dtype of the kernel's entries.
        storage: How to store the kernel, or None for the fastest option that fits in memory.
        tolerance: Tolerance for the predictions, or None for the default.
    """

    kind: ClassVar[str] = KIND
    network: Network
    data: Dataset
    kernel: Callable[..., np.ndarray]
    steps: int
    snapshots: int
    learning_rate: float | None
    dtype: str
    storage: str | None
    tolerance: float | None

    @property
    def output(self) -> Output:
        """The functions that assemble the labeled result and return the contents of the files to write."""
        return OUTPUT

    def request(self) -> str:
        """Return the specification of the study as canonical JSON."""
        data = self.data
        arrays = data.x_train, data.y_train, data.x_test, data.y_test
        return as_json(self._settings() | {"tolerance": self.tolerance, "data": fingerprint(*arrays)})

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the settings and the time at which the study was started."""
        return {"settings": json.loads(as_json(self._settings())), "begun": stored.get("begun", time.time())}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return the tasks for the complexity and the predictions, in one group because they share the kernel."""
        return [
            Task("complexity", "complexity", 1, self._complexity, group="kernel"),
            Task("predictions", "predictions", 1, self._predictions, group="kernel"),
        ]

    def _settings(self) -> dict[str, Any]:
        return {
            **limit_settings(self.network, self.data),
            "steps": self.steps,
            "snapshots": self.snapshots,
            "learning_rate": self.learning_rate,
            "dtype": self.dtype,
            "storage": self.storage,
        }

    @cached_property
    def _operators(self) -> list[KernelOperator]:
        return []

    def _operator(self, progress: TaskProgress) -> KernelOperator:
        """Return the kernel as an operator, which is built once and used by both tasks."""
        if not self._operators:
            operator = kernel_operator(
                self.kernel,
                self.data.x_train,
                dtype=self.dtype,
                storage=self.storage,
                progress=lambda share: progress.stage("kernel", share),
            )
            self._operators.append(operator)
        return self._operators[0]

    @cached_property
    def _random(self) -> np.ndarray:
        return np.asarray(label_noise(self.data.y_train, 1.0, noise_key()))

    @property
    def _targets(self) -> np.ndarray:
        """True and random labels, alternating along the last axis."""
        return np.stack([self.data.y_train, self._random], axis=-1).reshape(self.data.n_train, -1)

    def _complexity(self, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        inverse = solve(
            self._operator(progress),
            self._targets,
            tolerance=2 * COMPLEXITY_TOLERANCE,
            progress=lambda products, error: progress.stage("complexity", float(products)),
        )
        squares = np.sum((inverse.forms * (np.nan if inverse.singular else 1.0)).reshape(-1, 2), axis=0)
        return {
            "complexity": np.sqrt(2 * squares / self.data.n_train),
            "complexity_error": np.array([part / 2 for part in inverse.error]),
            "singular": np.asarray(inverse.singular),
        }

    def _predictions(self, progress: TaskProgress, checkpoint: CellCheckpoint | None) -> Arrays:
        data, k, y = self.data, self._operator(progress), self._targets
        lambda_max = largest_eigenvalue(k)
        eta = 1 / lambda_max if self.learning_rate is None else self.learning_rate
        steps = np.unique(np.concatenate([[0], np.geomspace(1, self.steps, self.snapshots).round()])).astype(np.int64)
        if eta > 2 / lambda_max and data.n_train > EXACT:
            train, test, error = (
                _unknown(steps, y.shape),
                _unknown(steps, (data.n_test, y.shape[1])),
                Error(np.nan, np.nan),
            )
        else:
            path = kernel_descent(
                k,
                y,
                learning_rate=eta,
                steps=steps,
                k_test=CrossOperator(self.kernel, data.x_test, data.x_train, self.dtype) if data.n_test else None,
                tolerance=self.tolerance,
                progress=lambda products, error: progress.stage("predictions", float(products)),
            )
            train, test, error = path.train, path.test, path.error
        return {
            **_scores(data, self._random, train, test if data.n_test else None, steps),
            "step": steps,
            "lambda_max": np.asarray(lambda_max),
            "learning_rate": np.asarray(eta),
            "prediction_error": np.array(list(error)),
            # The prediction error is relative to the combined norm of the true and random labels.
            "resolved_loss": np.asarray(0.5 * error.total**2 * np.sum(y**2)),
            "storage": np.asarray(k.storage),
        }


def _unknown(steps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return predictions that are zero at step 0 and NaN at all later steps."""
    later = (steps > 0).reshape(-1, *(1 for _ in shape))
    return np.where(later, np.nan, np.zeros((len(steps), *shape)))


@DIVERGENCE
def _scores(data: Dataset, random: np.ndarray, train: Any, test: Any, step: np.ndarray) -> Arrays:
    """Return the losses and error rates for the predictions.

    The predictions alternate between outputs for true labels and outputs for random labels.
    """
    y = data.y_train.reshape(data.n_train, -1)
    f_train = train.reshape(len(step), *y.shape, 2)
    losses, errors = [], []
    for targets, f in zip((y, random.reshape(y.shape)), np.moveaxis(f_train, -1, 0), strict=True):
        losses.append(np.sum((f - targets) ** 2, axis=(1, 2)) / 2)
        errors.append(_errors(f, targets, step))
    arrays = {"train_loss": np.stack(losses), "train_error": np.stack(errors)}
    if test is not None:
        targets = data.y_test.reshape(data.n_test, -1)
        f = test.reshape(len(step), *targets.shape, 2)[..., 0]
        arrays |= {
            "test_loss": np.sum((f - targets) ** 2, axis=(1, 2)) / 2,
            "test_error": _errors(f, targets, step),
        }
    return arrays


def _errors(f: np.ndarray, y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the error rate at each step.

    All outputs are zero at step 0, so the value returned for this step is the error rate of random guessing.
    """
    if y.shape[1] == 1:
        f, y = f[..., 0], y[..., 0]
    errors = np.array(zero_one_error(f, y))
    return np.where(step == 0, 1 - 1 / max(2, y.shape[-1] if y.ndim == 2 else 2), errors)


def _assemble(record: dict[str, Any], cells: list[Arrays]) -> Result:
    import xarray

    inverse, predictions = cells
    if inverse["singular"]:
        warnings.warn("The kernel is singular to working precision, so the complexity is NaN.", stacklevel=2)
    rate, limit = float(predictions["learning_rate"]), 2 / float(predictions["lambda_max"])
    if rate > limit:
        unknown = f" With more than {EXACT} examples, its predictions are NaN."
        warnings.warn(
            f"learning_rate is {rate:.6g}, above 2 / lambda_max = {limit:.6g}, so kernel descent diverges."
            + unknown * (record["settings"]["n_train"] > EXACT),
            stacklevel=2,
        )
    dims = {"train": ("labels", "step"), "test": ("step",)}
    table = {
        f"{part}_{score}": (dims[part], predictions[f"{part}_{score}"])
        for part in ("train", "test")
        for score in ("loss", "error")
        if f"{part}_{score}" in predictions
    }
    coords = {"labels": list(LABELS), "step": predictions["step"]}
    result = xarray.Dataset(table | {"complexity": (("labels",), inverse["complexity"])}, coords=coords)
    result["lambda_max"] = float(predictions["lambda_max"])
    result.attrs["resolved_loss"] = float(predictions["resolved_loss"])
    for name, errors in (("prediction_error", predictions), ("complexity_error", inverse)):
        result.attrs[name] = errors[name].tolist()
    settings = record["settings"] | {
        "learning_rate": float(predictions["learning_rate"]),
        "storage": str(predictions["storage"]),
    }
    result.attrs |= provenance(json.dumps(settings), settings["dtype"], record["begun"])
    label_result(result, KIND)
    return result


OUTPUT = Output(_assemble, result_files)
