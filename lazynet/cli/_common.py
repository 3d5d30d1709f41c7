"""What commands share: flags of the data and of the network, exit codes, how things are printed."""

import json
from dataclasses import dataclass
from typing import Any

import lazynet as lz
from lazynet.plan import Job, available_memory

FAILED_CHECK, BAD_INPUT, OUT_OF_TIME, INTERRUPTED = 1, 2, 3, 130


@dataclass
class Source:
    """Which examples to take, but for how many of the training set."""

    dataset: str = "digits"
    """digits, mnist, fashion-mnist or cifar10."""
    classes: tuple[str, ...] = ("0", "1")
    """Labels to tell apart; several in a group as 0,2,4, or the words even and odd."""
    n_test: int | None = None
    """The first so many test examples of those classes."""


@dataclass
class Data(Source):
    """Which examples to take."""

    n_train: int | None = None
    """The first so many training examples of those classes."""

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


def print_plan(jobs: list[Job], as_json: bool) -> int:
    """What the jobs take beside what is free; the exit code."""
    if as_json:
        print_json(jobs=[job._asdict() for job in jobs], free_bytes=available_memory())
    else:
        for job in jobs:
            print(job)
        print(f"{available_memory() / 1e9:.3g} GB are free.")
    return 0


def print_json(**values: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(values))
