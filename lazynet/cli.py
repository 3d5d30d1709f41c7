"""The command line: `lazynet sweep`, `merge`, `status`, `predict`, `complexity` and `data`."""

import contextlib
import io
import itertools
import json
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.data import fetch_dataset, list_datasets
from lazynet.kernels import largest_eigenvalue
from lazynet.kernels.solve import FACTORED, complexity_and_smallest
from lazynet.losses import get_loss
from lazynet.plan import Job, available_memory
from lazynet.sweep import RunFolder, Stages, check_new_folder, write_figures, write_run
from lazynet.sweep.api import check_sweep
from lazynet.sweep.limit import check_prediction
from lazynet.sweep.members import prepare
from lazynet.sweep.plan import predict_jobs, sweep_jobs
from lazynet.sweep.settings import Training

FAILED_CHECK, BAD_INPUT, INTERRUPTED = 1, 2, 130
# What bad input raises; anything else is a defect and shows its traceback.
EXPECTED_ERRORS = (ValueError, OSError)


@dataclass
class Data:
    """Which examples to take."""

    dataset: str = "digits"
    """digits, mnist, fashion-mnist or cifar10."""
    classes: tuple[str, ...] = ("0", "1")
    """Labels to tell apart; several in a group as 0,2,4, or the words even and odd."""
    n_train: int | None = None
    """The first so many training examples of those classes."""
    n_test: int | None = None
    """The first so many test examples of those classes."""

    def load(self) -> lz.Dataset:
        """The data set asked for."""
        return lz.load_dataset(self.dataset, self.classes, self.n_train, self.n_test)


@dataclass
class Network:
    """Which two-layer network, but for its width."""

    activation: str = "relu"
    """relu, erf, tanh, gelu or softplus."""
    train: str = "hidden"
    """Trained part: hidden, readout or both."""
    init_scale: float = 1.0
    """kappa: hidden weights start as N(0, kappa^2)."""
    output_scale: float = 1.0
    """alpha: factor on the output."""

    def of_width(self, width: int, outputs: int) -> lz.TwoLayer:
        """The network asked for."""
        return lz.TwoLayer(
            width=width,
            outputs=outputs,
            activation=self.activation,
            train=self.train,
            init_scale=self.init_scale,
            output_scale=self.output_scale,
        )


@dataclass
class Sweep:
    """Train networks of growing width beside their kernel; print which predictions of the lazy regime hold.

    Without flags it is the demonstration: digits 0 and 1, widths 64 to 4096, 8 seeds, 1000 steps.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=lambda: Data(n_train=256, n_test=100))
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    """Numbers of hidden units."""
    seeds: int = 8
    """Number of seeds, 0, 1, ..."""
    steps: int = 1000
    """Number of training steps."""
    snapshots: int = 20
    """About how many log-spaced steps to measure at."""
    learning_rate: float | None = None
    """Learning rate for the loss 1/2 sum (f - y)^2; 1 / lambda_max of the kernel when left out."""
    label_noise: float = 0.0
    """Share of the training labels that is drawn anew."""
    batch_size: int | None = None
    """Examples to a batch; all of them when left out."""
    optimizer: str = "sgd"
    """sgd, momentum, nesterov, adam, adamw, adagrad, rmsprop or lion."""
    dtype: str = "float32"
    """float32 or float64, of training; kernels and predictions are always float64."""
    out: Path | None = None
    """New folder for settings.json, cells/, result.nc, verdict.json and figures/."""
    resume: bool = False
    """Go on with the sweep in --out where it was stopped; start it where there is none."""
    shard: str | None = None
    """k/N: compute only every N-th cell from the k-th on, beside other processes on the same --out; see merge."""
    check: bool = False
    """End with exit code 1 when an "equal" row or an inequality fails."""
    json: bool = False
    """Print one JSON object instead of tables."""
    plan: bool = False
    """Print what it takes at least, in memory and operations, and do nothing."""

    def run(self) -> int:
        """Run the sweep; the exit code."""
        shard = _parse_shard(self.shard)
        check_new_folder(self.out, self.resume or shard is not None)
        data = self.data.load()
        network = self.network.of_width(max(self.widths, default=2), data.outputs)
        if self.plan:
            loss, path = get_loss("squared"), "auto"
            training = Training(self.steps, self.snapshots, loss, self.optimizer, self.batch_size, self.dtype, path)
            given = self.learning_rate, self.label_noise
            widths, seeds = check_sweep(network, data, self.widths, self.seeds, training, *given)
            prepared = prepare(network, data, training)
            return _print_plan(sweep_jobs(network, data, widths, seeds, training, prepared), self.json)
        try:
            result = lz.sweep(
                network,
                data,
                self.widths,
                self.seeds,
                self.steps,
                learning_rate=self.learning_rate,
                optimizer=self.optimizer,
                batch_size=self.batch_size,
                label_noise=self.label_noise,
                snapshots=self.snapshots,
                dtype=self.dtype,
                out=self.out,
                resume=self.resume,
                shard=shard,
            )
            if shard is not None and self.out is not None:
                print(f"Shard {self.shard} is done; {_progress_of(self.out)}.")
                return 0
            return _report(result, self.out, self.json, self.check)
        except KeyboardInterrupt:
            if self.out is None or not RunFolder(self.out).packs:
                raise
            print(f"lazynet: interrupted; {_progress_of(self.out)}", file=sys.stderr)
            return INTERRUPTED


@dataclass
class Predict:
    """Predict training of the infinitely wide network on a whole data set, on true and on random labels.

    All 60,000 images of MNIST take some five minutes and 10 GB on two cores; --n-train takes fewer.
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
            return _print_plan(predict_jobs(data, self.dtype, self.storage), self.json)
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
            _print_json(settings=json.loads(result.attrs["settings"]), **found, out=out)
            return 0
        print(_prediction_table(result))
        if self.out is not None:
            print(f"\nWritten to {self.out}: settings.json, result.nc, figures/predict.png")
        return 0


@dataclass
class Merge:
    """Put the result of a sweep together from what its shards have stored in a folder."""

    folder: tyro.conf.Positional[Path]
    """The folder, as --out named it."""
    check: bool = False
    """End with exit code 1 when an "equal" row or an inequality fails."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        """Merge; the exit code."""
        return _report(lz.merge(self.folder), self.folder, self.json, self.check)


@dataclass
class Status:
    """Print how far the sweep in a folder is."""

    folder: tyro.conf.Positional[Path]
    """The folder, as --out named it."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Read and check what is stored; the exit code."""
        found = RunFolder(self.folder)
        if not found.packs:
            raise ValueError(f"{str(self.folder)!r} holds no sweep.")
        status = found.status()
        if self.json:
            _print_json(**status._asdict())
            return 0
        print(f"{status.finished} of {status.cells} cells are stored whole, {status.damaged} more are damaged.")
        if status.running:
            print("A process is at work on it.")
        elif not status.result:
            print("Nothing is at work on it; the command that began it goes on with it if it is given --resume.")
        else:
            print("It is finished.")
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
            _print_json(**found)
        else:
            print(f"complexity {found['complexity']:.4f}   (sqrt(2 y' K^-1 y / n), n = {data.n_train})")
            print(f"eigenvalues of K from {found['lambda_min']:.4g} to {found['lambda_max']:.4g}")
        return 0


@dataclass
class ListData:
    """List the data sets and where they were found."""

    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Print the table; the exit code."""
        records = list_datasets()
        if self.json:
            _print_json(datasets=[{**record._asdict(), "path": record.path and str(record.path)} for record in records])
            return 0
        for record in records:
            where = record.path or ("scikit-learn" if record.available else "not found")
            print(f"{record.name:15}{record.description:65}  {where}")
        return 0


@dataclass
class FetchData:
    """Download a data set into the user's cache and check it."""

    name: tyro.conf.Positional[str]
    """mnist or fashion-mnist."""

    def run(self) -> int:
        """Fetch; the exit code."""
        print(fetch_dataset(self.name))
        return 0


@dataclass
class DataCommand:
    """The data sets that lazynet knows."""

    action: (
        Annotated[ListData, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[FetchData, tyro.conf.subcommand("fetch", prefix_name=False)]
    )

    def run(self) -> int:
        """Run the action; the exit code."""
        return self.action.run()


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep", prefix_name=False)]
    | Annotated[Merge, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[Status, tyro.conf.subcommand("status", prefix_name=False)]
    | Annotated[Predict, tyro.conf.subcommand("predict", prefix_name=False)]
    | Annotated[Complexity, tyro.conf.subcommand("complexity", prefix_name=False)]
    | Annotated[DataCommand, tyro.conf.subcommand("data", prefix_name=False)]
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 for a failed check, 2 for bad input."""
    command = _parse(arguments)
    if command is None:
        return BAD_INPUT
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"lazynet: warning: {message}", file=sys.stderr)
        try:
            return command.run()
        except KeyboardInterrupt:
            print("lazynet: interrupted; nothing was written", file=sys.stderr)
            return INTERRUPTED
        except EXPECTED_ERRORS as error:
            print(f"lazynet: {' '.join(str(error).split())}", file=sys.stderr)
            return BAD_INPUT


def _parse(arguments: list[str] | None) -> Any:
    """The command that was typed; None, after one line on stderr, for one that cannot be read."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                prog="lazynet",
                description=lz.__doc__,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code != BAD_INPUT:
            raise
    # tyro draws a box with a title, the message, a rule and the flag's help; in ASCII with a rule below the title too.
    lines = [line.strip("│╭╮╰╯ ") for line in said.getvalue().splitlines()[1:]]
    below_title = itertools.dropwhile(_is_rule, lines)
    message = itertools.takewhile(lambda line: line and not _is_rule(line), below_title)
    said_in_short = " ".join(message) or " ".join(said.getvalue().split())
    print(f"lazynet: {said_in_short}; see lazynet --help", file=sys.stderr)
    return None


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")


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


def _report(result: Any, out: Path | None, as_json: bool, check: bool) -> int:
    """Print the verdict of a sweep, and add the figure to its folder; the exit code."""
    verdict = lz.verify(result)
    if out is not None:
        write_figures(out, {"sweep": lz.plot(result, verdict)})
    if as_json:
        settings, said = json.loads(result.attrs["settings"]), json.loads(verdict.to_json())
        _print_json(settings=settings, verdict=said, out=None if out is None else str(out))
    else:
        print(verdict)
        if out is not None:
            print(f"\nWritten to {out}: settings.json, result.nc, verdict.json, figures/sweep.png")
    return FAILED_CHECK if check and not verdict.passed else 0


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()):
        raise ValueError(f"shard is {text!r}, but must be k/N, such as 3/16.")
    return int(part), int(parts)


def _progress_of(out: Path) -> str:
    """How far a sweep is, and what to do next."""
    status = RunFolder(out).status()
    more = "" if status.result else ", and --resume goes on with it"
    if status.finished == status.cells and not status.result:
        more = f", and lazynet merge {out} puts them together"
    return f"{status.finished} of {status.cells} cells are stored in {out}{more}"


def _print_plan(jobs: list[Job], as_json: bool) -> int:
    """What the jobs take beside what is free; the exit code."""
    if as_json:
        _print_json(jobs=[job._asdict() for job in jobs], free_bytes=available_memory())
    else:
        for job in jobs:
            print(job)
        print(f"{available_memory() / 1e9:.3g} GB are free.")
    return 0


def _print_json(**values: Any) -> None:
    print(json.dumps(values))


if __name__ == "__main__":
    sys.exit(main())
