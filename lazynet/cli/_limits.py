"""The infinitely wide network on the command line: `lazynet predict` and `lazynet complexity`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

import lazynet as lz
from lazynet.cli._common import Data, Network, print_json, print_plan
from lazynet.execution._progress import Stages
from lazynet.execution._store import write_run
from lazynet.experiment._cost import predict_jobs
from lazynet.experiment._spec import check_new_folder
from lazynet.kernels import largest_eigenvalue
from lazynet.kernels._solve import FACTORED, complexity_and_smallest
from lazynet.studies.infinite_width._api import check_prediction


@dataclass
class Predict:
    """Predict training of the infinitely wide network on a whole data set, on true and on random labels.

    All 60,000 images of MNIST take some four minutes and 10 GB on two cores; --n-train takes fewer.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    steps: int = 100_000
    """Number of steps of full-batch descent."""
    snapshots: int = 200
    """About how many log-spaced steps to predict."""
    learning_rate: float | None = None
    """Learning rate for the loss 1/2 sum (f - y)^2; 1 / lambda_max of the kernel when left out."""
    dtype: str = "float32"
    """float32 or float64, of the kernel's entries; sums are always float64."""
    storage: str | None = None
    """Where the kernel is kept: memory, disk, or none (computed anew for each product); what fits when left out."""
    tolerance: float | None = None
    """Error of the predictions to reach, relative to the norm of the targets."""
    out: Path | None = None
    """New folder for settings.json, result.nc and figures/."""
    json: bool = False
    """Print one JSON object instead of tables."""
    plan: bool = False
    """Print what it takes at least, in memory and operations, and do nothing."""

    def run(self) -> int:
        """Predict; the exit code."""
        check_new_folder(self.out)
        data = self.data.load()
        network = self.network.of_width(2, data.outputs)
        if self.plan:
            check_prediction(
                *(network, data, self.steps, self.snapshots),
                *(self.learning_rate, self.dtype, self.storage, self.tolerance),
            )
            return print_plan(predict_jobs(data, self.dtype, self.storage), self.json)
        with Stages(shown=not self.json) as stages:
            result = lz.predict(
                network,
                data,
                steps=self.steps,
                snapshots=self.snapshots,
                learning_rate=self.learning_rate,
                dtype=self.dtype,
                storage=self.storage,
                tolerance=self.tolerance,
                progress=stages.tell,
            )
        if self.out is not None:
            write_run(self.out, result, figures={"predict": lz.plot(result)})
        last = result.isel(step=-1)
        found = {
            "complexity": dict(zip(result.labels.values.tolist(), result.complexity.values.tolist(), strict=True)),
            "train_loss": dict(zip(result.labels.values.tolist(), last.train_loss.values.tolist(), strict=True)),
            "test_error": float(last.test_error) if "test_error" in last else None,
            "lambda_max": float(result.lambda_max),
            "prediction_error": sum(result.attrs["prediction_error"]),
            "complexity_error": sum(result.attrs["complexity_error"]),
        }
        if self.json:
            out = None if self.out is None else str(self.out)
            print_json(settings=json.loads(result.attrs["settings"]), **found, out=out)
            return 0
        print(_prediction_table(result))
        if self.out is not None:
            print(f"\nWritten to {self.out}: settings.json, result.nc, figures/predict.png")
        return 0


@dataclass
class Complexity:
    """Print the complexity measure sqrt(2 y' K^-1 y / n) of Arora et al. 2019 for labels on real inputs.

    Up to 16,000 examples the kernel is factored. Beyond, it is only multiplied: complexity is then right to 1e-5,
    and the smallest eigenvalue that is printed is a bound from above, some percent off.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Build the kernel and solve; the exit code."""
        if self.data.n_test is None:
            self.data.n_test = 0
        data = self.data.load()
        kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
        large = data.n_train > FACTORED
        k = lz.kernel_operator(kernel, data.x_train) if large else kernel(data.x_train)
        complexity, lambda_min = complexity_and_smallest(k, data.y_train)
        found = {
            "complexity": complexity,
            "n": data.n_train,
            "lambda_min": lambda_min,
            "lambda_max": largest_eigenvalue(k),
            "dataset": self.data.dataset,
            "classes": data.classes,
        }
        if self.json:
            print_json(**found)
        else:
            print(f"complexity {found['complexity']:.4f}   (sqrt(2 y' K^-1 y / n), n = {data.n_train})")
            print(f"eigenvalues of K from {found['lambda_min']:.4g} to {found['lambda_max']:.4g}")
        return 0


def _prediction_table(result: Any) -> str:
    """Losses and errors at some of the steps, and what they may be wrong by."""
    n = json.loads(result.attrs["settings"])["n_train"]
    lines = [f"{'step':>8}  {'loss, true labels':>18}  {'loss, random labels':>20}  {'test error':>10}"]
    for i in sorted({round(share * (result.sizes["step"] - 1) / 10) for share in range(11)}):
        at = result.isel(step=i)
        true, random = (float(at.train_loss.sel(labels=labels)) / n for labels in ("true", "random"))
        error = f"{float(at.test_error):10.2%}" if "test_error" in at else f"{'-':>10}"
        lines.append(f"{int(at.step):>8}  {true:>18.3g}  {random:>20.3g}  {error}")
    true, random = result.complexity.values
    return "\n".join(
        [
            *lines,
            "",
            "Losses are per example. Predictions are right to "
            f"{sum(result.attrs['prediction_error']):.1e} of the norm of the targets, so losses below "
            f"{result.attrs['resolved_loss'] / n:.1e} are not resolved.",
            f"complexity {true:.4f} on true labels, {random:.4f} on random ones (sqrt(2 y' K^-1 y / n), right to "
            f"{sum(result.attrs['complexity_error']):.1e} of itself)",
        ]
    )
