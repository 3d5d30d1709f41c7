"""Flags, exit codes and output functions shared by the commands."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.cli._own_network import own_network
from lazynet.data import DATASETS
from lazynet.execution import Store, StoreStatus, product_rate
from lazynet.hosts import is_first, together
from lazynet.losses import LOSSES
from lazynet.networks import ACTIVATIONS
from lazynet.papers.work import PARTS, REPRODUCTION
from lazynet.plan import Job, available_memory
from lazynet.studies.required_width import KIND as REQUIRED_WIDTH
from lazynet.training import OPTIMIZERS

FAILED_CHECK, BAD_INPUT, OUT_OF_TIME, INTERRUPTED = 1, 2, 3, 130


def _default(text: str) -> str:
    """Return the help text for a flag's default, or an empty string if the flag is off or omitted by default."""
    return "" if text in ("None", "False", "True", "") else f"(default: {text})"


def _default_choice(text: str) -> str:
    """Return the help text for a default that the parser shows as a list of quoted names."""
    return _default(text.strip("[]").replace("'", "").replace(",", ""))


def _type_of(metavar: str | None = None, name: str | None = None) -> Any:
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=_default)


def choices(names: Iterable[str], several: bool = False) -> Any:
    """Return the annotation for a flag that accepts one or more of the given names and shows them in its help.

    Args:
        names: The names.
        several: Whether the flag accepts several names, as a tuple.
    """
    listed = tuple(names)
    literal = tyro.extras.literal_type_from_choices(listed)
    return tyro.conf.arg(
        metavar=f"{{{','.join(listed)}}}" + (" ..." if several else ""),
        constructor=tuple[literal, ...] if several else literal,  # type: ignore[valid-type]
        help_behavior_hint=_default_choice,
    )


# Types of command-line flags.
Switch = Annotated[bool, _type_of()]
OptionalInt = Annotated[int | None, _type_of("INT")]
OptionalFloat = Annotated[float | None, _type_of("FLOAT")]
OptionalText = Annotated[str | None, _type_of("STR")]
OptionalPath = Annotated[Path | None, _type_of("PATH")]
Ints = Annotated[tuple[int, ...], _type_of("INT ...")]
Floats = Annotated[tuple[float, ...], _type_of("FLOAT ...")]
DType = Annotated[str, choices(("float32", "float64"))]


@dataclass
class Source:
    """Data set, and which of its examples to use."""

    dataset: Annotated[str, choices(DATASETS)] = "digits"
    """Data set that lazynet knows."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS ...")] = ("0", "1")
    """Classes to distinguish. A class can be a group of labels, such as 0,2,4, or the word even or odd."""
    file: Annotated[Path | None, _type_of("FILE", name="data")] = None
    """Your own data, in place of --dataset and --classes: a CSV file with a header, or an .npz or .nc file with the
    arrays x_train and y_train and, optionally, x_test and y_test."""
    target: OptionalText = None
    """Column of a CSV file that contains the target, by default the last one. Text and whole numbers are classes."""
    standardize: Switch = False
    """Shift and scale the inputs of --data, and its targets for regression, as on the training examples."""
    split_seed: Annotated[int, _type_of("INT")] = 0
    """Seed for drawing the examples of --data at random."""
    n_test: OptionalInt = None
    """Number of test examples: the first ones of the selected classes, or rows of --data drawn at random."""

    def read(self, n_train: int | None, n_test: int | None) -> lz.Dataset:
        """Return the data set.

        Args:
            n_train: Number of training examples, or None for the default.
            n_test: Number of test examples, or None for the default.

        Raises:
            ValueError: If a flag has an invalid value.
        """
        if self.file is not None:
            return lz.read_dataset(
                self.file,
                target=self.target,
                n_train=n_train,
                n_test=n_test,
                split_seed=self.split_seed,
                standardize=self.standardize,
            )
        for flag, given in (
            ("target", self.target),
            ("standardize", self.standardize),
            ("split-seed", self.split_seed),
        ):
            if given:
                raise ValueError(f"--{flag} must be omitted without --data.")
        return lz.load_dataset(self.dataset, self.classes, n_train, n_test)


@dataclass
class Data(Source):
    """Data set, and which of its examples to use."""

    n_train: OptionalInt = None
    """Number of training examples, by default all: the first ones of the selected classes, or rows of --data drawn at
    random."""

    def load(self, n_train: int | None = None, n_test: int | None = None) -> lz.Dataset:
        """Return the data set.

        Args:
            n_train: Default number of training examples of a data set that lazynet knows, or None for all.
            n_test: Default number of test examples of a data set that lazynet knows, or None for all.
        """
        own = self.file is not None
        return self.read(
            n_train if self.n_train is None and not own else self.n_train,
            n_test if self.n_test is None and not own else self.n_test,
        )


FAMILIES = {"two-layer": lz.TwoLayer, "mlp": lz.MLP, "conv": lz.ConvNet}
# Defaults of the flags for scales.
PLAIN = {"activation": "relu", "output_scale": 1.0}


@dataclass
class Architecture:
    """Family of networks, and settings for which a sweep has no axes."""

    family: Annotated[str, choices(FAMILIES)] = "two-layer"
    """Family of networks: two-layer, fully connected with --depth hidden layers (mlp), or convolutional (conv)."""
    own: Annotated[str | None, tyro.conf.arg(name="network", metavar="MODULE:FACTORY", help_behavior_hint=_default)] = (
        None
    )
    """Your own network, in place of all other settings but the widths: a flax class with a field width, or a function
    without arguments that returns a network. This runs the module's code."""
    depth: OptionalInt = None
    """Number of hidden layers of an mlp, by default 3."""
    train: Annotated[str | None, choices(("hidden", "readout", "both"))] = None
    """Layers to train; by default hidden, or both for an mlp."""
    symmetric: Switch = True
    """Do not start two-layer and convolutional networks from pairs of units whose outputs cancel."""

    def make(self, width: int, outputs: int, **scales: Any) -> Any:
        """Return a network.

        Args:
            width: Width of the network.
            outputs: Number of outputs.
            **scales: Further arguments. Those that are None keep their defaults, which depend on the family.

        Raises:
            ValueError: If a flag is given that does not apply to the family or to the user's own network.
        """
        given = {"depth": self.depth, "train": self.train, "symmetric": None if self.symmetric else False, **scales}
        given = {name: value for name, value in given.items() if value is not None}
        if self.own is not None:
            for name, value in given.items():
                if value != PLAIN.get(name):
                    raise ValueError(f"{name}={value} must be omitted with --network.")
            return own_network(self.own, outputs).clone(width=width)
        deep = self.family == "mlp"
        if self.depth is not None and not deep:
            raise ValueError(f"--depth must be omitted for --family {self.family}; only an mlp has a depth.")
        if not self.symmetric and deep:
            raise ValueError("--no-symmetric must be omitted for --family mlp, whose units are never paired.")
        return FAMILIES[self.family](width=width, outputs=outputs, **given)


@dataclass
class Network(Architecture):
    """Settings of the network, except for its width."""

    activation: Annotated[str, choices(ACTIVATIONS)] = "relu"
    """Activation."""
    init_scale: OptionalFloat = None
    """Scale kappa of the weights, which are initialized from N(0, kappa^2); by default 1, or sqrt(2) for an mlp."""
    output_scale: float = 1.0
    """Factor alpha that multiplies the output."""

    def at_width(self, width: int, outputs: int) -> Any:
        """Return the network with the given width and number of outputs."""
        return self.make(
            width,
            outputs,
            activation=self.activation,
            init_scale=self.init_scale,
            output_scale=self.output_scale,
        )


@dataclass
class Training:
    """Settings of the training."""

    steps: int = 1000
    """Number of training steps."""
    learning_rate: OptionalFloat = None
    """Learning rate, for sgd and the squared loss by default 1 / lambda_max of the kernel."""
    loss: Annotated[str, choices(LOSSES)] = "squared"
    """Loss."""
    batch_size: OptionalInt = None
    """Number of examples per batch, by default all of them."""
    optimizer: Annotated[str, choices(OPTIMIZERS)] = "sgd"
    """Optimizer."""
    momentum: float = 0.0
    """Momentum for sgd, at least 0 and below 1."""
    weight_decay: OptionalFloat = None
    """Factor w in the term w theta that is added to the gradient."""
    ridge: float = 0.0
    """Factor beta in the penalty beta/2 ||theta - theta_0||^2."""
    dtype: DType = "float32"
    """Training precision. Kernels and predictions are always float64."""

    def make_optimizer(self) -> lz.Optimizer:
        """Return the optimizer and its settings."""
        return lz.Optimizer(self.optimizer, self.momentum, weight_decay=self.weight_decay, ridge=self.ridge)


@dataclass
class Folder:
    """Folder in which the run is stored, and settings for resuming or stopping the run."""

    out: OptionalPath = None
    """New folder for the results."""
    resume: Switch = False
    """Resume the run in --out, or start a new run if there is none."""
    max_seconds: OptionalFloat = None
    """Time limit in seconds, after which the run stores its state in --out and exits with code 3."""

    def open(self, shard: tuple[int, int] | None = None) -> lz.RunFolder | None:
        """Return the run folder, or None if --out is not given.

        Raises:
            ValueError: If the folder cannot be used.
        """
        if self.out is None:
            for name, value in (("resume", self.resume), ("max_seconds", self.max_seconds), ("shard", shard)):
                if value:
                    raise ValueError(f"out must be a folder if {name} is given, got None.")
            return None
        folder = lz.RunFolder(self.out, self.resume, shard, self.max_seconds)
        with together():
            if is_first():
                folder.check()
        return folder


class Stopped(Exception):
    """Raised when a command ends before its work is done.

    Attributes:
        code: The exit code.
    """

    def __init__(self, reason: str, code: int) -> None:
        """Create the error; the reason is printed to stderr as one line."""
        super().__init__(reason)
        self.code = code


@contextmanager
def stoppable(out: Path | None, out_of_time: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Report the progress stored in a run's folder if the time limit or an interruption ends the run.

    Args:
        out: The run's folder, or None if the run stores nothing.
        out_of_time: Function that returns whether a TimeoutError is due to the time limit. By default, every
            TimeoutError is attributed to the time limit.

    Raises:
        Stopped: If the run can be resumed.
    """
    try:
        yield
    except TimeoutError:
        if not out_of_time():
            raise
        progress = progress_in(Path(out or ".")) if is_first() else "the first host has stored the finished cells"
        raise Stopped(f"out of time; {progress}", OUT_OF_TIME) from None
    except KeyboardInterrupt:
        if out is None or not Store(out).content:
            raise
        raise Stopped(f"interrupted; {progress_in(out)}", INTERRUPTED) from None


def progress_in(out: Path) -> str:
    """Describe how much of the run in a folder is complete, and what to do next."""
    store = Store(out)
    if store.kind == REPRODUCTION:
        parts = len(list((out / PARTS).glob("*/result.nc")))
        stored = "1 part is" if parts == 1 else f"{parts} parts are"
        return f"{stored} stored in {out} (use --resume to continue the run)"
    status = store.status()
    if store.kind == REQUIRED_WIDTH:
        status = width_search_progress(out, status)
    more = "" if status.result else " (use --resume to continue the run)"
    if status.finished == status.cells and not status.result and store.kind != REQUIRED_WIDTH:
        more = f" (use lazynet merge {out} to assemble the result)"
    return f"{status.finished} of {status.cells} cells are stored in {out}{more}"


def width_search_progress(out: Path, status: StoreStatus) -> StoreStatus:
    """Return the progress of a search for the required width, summed over its subfolders.

    The total counts only the widths whose sweeps have begun, because later widths are not known in advance.

    Args:
        out: Folder of the search.
        status: Status of the search's own folder.

    Returns:
        The progress.
    """
    parts = [Store(part).status() for part in sorted(out.glob("width-*"))]
    finished, damaged, cells = (sum(getattr(part, name) for part in parts) for name in ("finished", "damaged", "cells"))
    return status._replace(finished=finished, damaged=damaged, cells=cells)


def print_plan(jobs: list[Job], as_json: bool) -> int:
    """Print how much memory, how many operations and how much time jobs need, and return the exit code.

    The time is a lower bound: that of the operations alone, at the measured speed of a matrix product.

    Args:
        jobs: The jobs.
        as_json: Whether to print one JSON object.
    """
    rate, operations = product_rate("float32"), sum(sum(job.flops.values()) for job in jobs)
    seconds = sum(job.seconds(rate) for job in jobs)
    if as_json:
        print_json(
            jobs=[job._asdict() for job in jobs], flops=operations, seconds=seconds, free_bytes=available_memory()
        )
    else:
        for job in jobs:
            print(job)
        print(
            f"In total {operations / 1e12:.3g} TFLOP, which take at least {in_words(seconds)} at {rate / 1e9:.3g} "
            "GFLOP/s, the measured speed of a matrix product."
        )
        print(f"{available_memory() / 1e9:.3g} GB of memory is free.")
    return 0


def in_words(seconds: float) -> str:
    """Return a duration in the largest unit in which it is at least 2, such as 3.5 minutes.

    Args:
        seconds: The duration in seconds.
    """
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.3g} seconds"


def print_json(**values: Any) -> None:
    """Print the values as one JSON object to stdout."""
    print(json.dumps(values))
