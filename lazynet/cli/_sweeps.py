"""`lazynet sweep`, and what belongs to its folders: `merge` and `status`."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

import lazynet as lz
from lazynet.cli._common import FAILED_CHECK, INTERRUPTED, OUT_OF_TIME, Source, print_json, print_plan
from lazynet.execution._store import RunFolder, write_figures
from lazynet.experiment._cost import sweep_jobs
from lazynet.experiment._devices import is_first, together
from lazynet.experiment._spec import Training, check_new_folder
from lazynet.experiment._study import study_of
from lazynet.losses import get_loss
from lazynet.studies.sweep._points import points
from lazynet.studies.sweep._verdict import verdicts_json


@dataclass
class Sweep:
    """Train networks of growing width beside their kernel; print which predictions of the lazy regime hold.

    Without flags it is the demonstration: digits 0 and 1, widths 64 to 4096, 8 seeds, 1000 steps. Flags that may have
    several values other than widths make an axis of the result each, with a verdict at every combination.
    """

    data: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=lambda: Source(n_test=100))
    n_train: tuple[int, ...] = (256,)
    """How many training examples of those classes: the first, and of these fewer at random where there are several."""
    activation: tuple[str, ...] = ("relu",)
    """relu, erf, tanh, gelu or softplus; one or several."""
    train: str = "hidden"
    """Trained part: hidden, readout or both."""
    init_scale: tuple[float, ...] = (1.0,)
    """kappa: hidden weights start as N(0, kappa^2); one or several."""
    output_scale: tuple[float, ...] = (1.0,)
    """alpha: factor on the output; one or several."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    """Numbers of hidden units."""
    seeds: int = 8
    """Number of seeds, 0, 1, ..."""
    steps: int = 1000
    """Number of training steps."""
    snapshots: int = 20
    """About how many log-spaced steps to measure at."""
    learning_rate: tuple[float, ...] = ()
    """For the loss 1/2 sum (f - y)^2, one or several; 1 / lambda_max of the kernel when left out."""
    label_noise: tuple[float, ...] = (0.0,)
    """Share of the training labels that is drawn anew; one or several."""
    batch_size: tuple[int, ...] = ()
    """Examples to a batch, one or several; all of them when left out."""
    optimizer: str = "sgd"
    """sgd, momentum, nesterov, adam, adamw, adagrad, rmsprop or lion."""
    dtype: str = "float32"
    """float32 or float64, of training; kernels and predictions are always float64."""
    stop_loss: float | None = None
    """A network stops once its loss is at most this."""
    stop_gradient: float | None = None
    """A network stops once the norm of the gradient is at most this."""
    stop_plateau: int | None = None
    """A network stops once its loss has not fallen by a thousandth in so many steps."""
    sharpness: bool = False
    """Measure the largest eigenvalue of the empirical kernel, and the learning rate over 2 over it."""
    compare: bool = True
    """Whether networks are set beside their linearizations and the limit of infinite width."""
    measured: int | None = None
    """How many training examples measures look at; with --no-compare, for sets that are too large for a kernel."""
    max_seconds: float | None = None
    """End after this time with what was done stored in --out, and exit code 3; --resume goes on."""
    out: Path | None = None
    """New folder for settings.json, cells/, result.nc, verdict.json and figures/."""
    resume: bool = False
    """Go on with the sweep in --out where it was stopped; start it where there is none."""
    shard: str | None = None
    """k/N: compute only the k-th of N shares of the cells, beside other processes on the same --out; see merge."""
    check: bool = False
    """End with exit code 1 when an "equal" row or an inequality fails."""
    json: bool = False
    """Print one JSON object instead of tables."""
    plan: bool = False
    """Print what it takes at least, in memory and operations, and do nothing."""

    def run(self) -> int:
        """Run the sweep; the exit code."""
        shard = _parse_shard(self.shard)
        with together():
            if is_first():
                check_new_folder(self.out, self.resume or shard is not None)
        source = self.data
        data = lz.load_dataset(source.dataset, source.classes, max(self.n_train), source.n_test)
        network = lz.TwoLayer(width=max(self.widths, default=2), outputs=data.outputs, train=self.train)
        axes: dict[str, Any] = {
            "activation": self.activation,
            "init_scale": self.init_scale,
            "output_scale": self.output_scale,
            "n_train": self.n_train,
            "learning_rate": self.learning_rate or None,
            "batch_size": self.batch_size or None,
            "label_noise": self.label_noise,
        }
        criteria = self.stop_loss, self.stop_gradient, self.stop_plateau
        stop = None if criteria == (None, None, None) else lz.Stop(*criteria)
        if self.plan:
            loss = get_loss("squared")
            training = Training(
                *(self.steps, self.snapshots, loss, self.optimizer, None, self.dtype, "auto", stop),
                compare=self.compare,
                measured=self.measured,
            )
            return print_plan(sweep_jobs(study_of(network, data, self.widths, self.seeds, training, axes)), self.json)
        try:
            result = lz.sweep(
                network,
                data,
                self.widths,
                self.seeds,
                self.steps,
                **axes,
                optimizer=self.optimizer,
                snapshots=self.snapshots,
                dtype=self.dtype,
                stop=stop,
                sharpness=self.sharpness,
                compare=self.compare,
                measured=self.measured,
                max_seconds=self.max_seconds,
                out=self.out,
                resume=self.resume,
                shard=shard,
            )
            if not is_first():
                return 0
            if shard is not None and self.out is not None:
                print(f"Shard {self.shard} is done; {_progress_of(self.out)}.")
                return 0
            return _report(result, self.out, self.json, self.check)
        except TimeoutError:
            print(f"lazynet: out of time; {_progress_of(Path(self.out or '.'))}", file=sys.stderr)
            return OUT_OF_TIME
        except KeyboardInterrupt:
            if self.out is None or not RunFolder(self.out).packs:
                raise
            print(f"lazynet: interrupted; {_progress_of(self.out)}", file=sys.stderr)
            return INTERRUPTED


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
            print_json(**status._asdict())
            return 0
        print(f"{status.finished} of {status.cells} cells are stored whole, {status.damaged} more are damaged.")
        if status.running:
            print("A process is at work on it.")
        elif status.finished < status.cells or not status.result:
            print("Nothing is at work on it; the command that began it goes on with it if it is given --resume.")
        else:
            print("It is finished.")
        return 0


def _report(result: Any, out: Path | None, as_json: bool, check: bool) -> int:
    """Print the verdict of a sweep at each point, and add its figures to its folder; the exit code."""
    found = [(labels, lz.verify(at), at) for labels, at in points(result)]
    if out is not None:
        write_figures(out, {_name_of(labels): lz.plot(at, verdict) for labels, verdict, at in found})
    if as_json:
        settings, said = json.loads(result.attrs["settings"]), json.loads(verdicts_json(result))
        print_json(settings=settings, verdict=said, out=None if out is None else str(out))
    else:
        for labels, verdict, _ in found:
            if labels:
                print(f"\n{', '.join(f'{name} = {value}' for name, value in labels.items())}")
            print(verdict)
        if out is not None:
            figures = "figures/sweep.png" if len(found) == 1 else f"{len(found)} figures"
            print(f"\nWritten to {out}: settings.json, result.nc, verdict.json, {figures}")
    return FAILED_CHECK if check and not all(verdict.passed for _, verdict, _ in found) else 0


def _name_of(labels: dict[str, Any]) -> str:
    """The name of the figure of a point."""
    return "_".join(["sweep", *(f"{name}={value}" for name, value in labels.items())])


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
