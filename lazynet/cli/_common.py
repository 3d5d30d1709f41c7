"""Flags, exit codes and output functions shared by the commands."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.data import DATASETS
from lazynet.execution import Store, StoreStatus
from lazynet.hosts import is_first, together
from lazynet.networks import ACTIVATIONS
from lazynet.papers.work import PARTS, REPRODUCTION
from lazynet.plan import Job, available_memory
from lazynet.studies.required_width import KIND as REQUIRED_WIDTH

FAILED_CHECK, BAD_INPUT, OUT_OF_TIME, INTERRUPTED = 1, 2, 3, 130


def _default(text: str) -> str:
    """Return the help text for a flag's default, or an empty string if the flag is off or omitted by default."""
    return "" if text in ("None", "False", "True", "") else f"(default: {text})"


def _type_of(metavar: str | None = None) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=_default)


# Types of command-line flags.
Switch = Annotated[bool, _type_of()]
OptionalInt = Annotated[int | None, _type_of("INT")]
OptionalFloat = Annotated[float | None, _type_of("FLOAT")]
OptionalText = Annotated[str | None, _type_of("STR")]
OptionalPath = Annotated[Path | None, _type_of("PATH")]
Ints = Annotated[tuple[int, ...], _type_of("INT ...")]
Floats = Annotated[tuple[float, ...], _type_of("FLOAT ...")]


def one_of(names: Any) -> str:
    """Return a phrase that lists the allowed values for a flag."""
    *others, last = names
    return f"one of {', '.join(others)} or {last}"


@dataclass
class Source:
    """Data set, classes and test examples."""

    dataset: Annotated[str, tyro.conf.arg(help=f"Data set: {one_of(DATASETS)}.")] = "digits"
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS ...")] = ("0", "1")
    """Classes to distinguish. A class can be a group of labels, such as 0,2,4, or the word even or odd."""
    n_test: OptionalInt = None
    """Number of test examples; the first examples of the selected classes are used."""


@dataclass
class Data(Source):
    """Data set, classes, and training and test examples."""

    n_train: OptionalInt = None
    """Number of training examples, by default all; the first examples of the selected classes are used."""

    def load(self) -> lz.Dataset:
        """Return the data set."""
        return lz.load_dataset(self.dataset, self.classes, self.n_train, self.n_test)


@dataclass
class Network:
    """Settings for a two-layer network, except for its width."""

    activation: Annotated[str, tyro.conf.arg(help=f"Activation: {one_of(ACTIVATIONS)}.")] = "relu"
    train: str = "hidden"
    """Layers to train: hidden, readout or both."""
    init_scale: float = 1.0
    """Scale kappa of the hidden weights, which are initialized from N(0, kappa^2)."""
    output_scale: float = 1.0
    """Factor alpha that multiplies the output."""

    def at_width(self, width: int, outputs: int) -> lz.TwoLayer:
        """Return the network with the given width and number of outputs."""
        return lz.TwoLayer(
            width=width,
            outputs=outputs,
            activation=self.activation,
            train=self.train,
            init_scale=self.init_scale,
            output_scale=self.output_scale,
        )


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
    """Print how much memory and how many operations each job needs, print the free memory, and return the exit code."""
    if as_json:
        print_json(jobs=[job._asdict() for job in jobs], free_bytes=available_memory())
    else:
        for job in jobs:
            print(job)
        print(f"{available_memory() / 1e9:.3g} GB of memory is free.")
    return 0


def print_json(**values: Any) -> None:
    """Print the values as one JSON object to stdout."""
    print(json.dumps(values))
