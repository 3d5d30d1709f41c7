"""What a sweep is asked to do, checked before any work starts."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazynet.data import Dataset, is_labels
from lazynet.dynamics import check_learning_rate
from lazynet.losses import Loss, squared
from lazynet.measures import reserved_names
from lazynet.networks import Scale, at_width
from lazynet.training import FLOW, STEPPERS, Stop, choose_stepper, get_optimizer, is_plain_descent, snapshot_steps

# A user's measures, by name: f(variables, variables_0, data) -> array.
Measures = tuple[tuple[str, Callable], ...]

DTYPES = ("float32", "float64")
# Losses that read a single output against +-1, and the one that reads several.
ONE_OUTPUT_LOSSES = ("logistic", "hinge")


@dataclass(frozen=True)
class Training:
    """How every member is trained; the arguments are those of `lazynet.sweep`."""

    steps: int
    snapshots: int | tuple[int, ...]
    loss: Loss
    optimizer: str | Callable
    batch_size: int | None
    dtype: str
    stepper: str
    stop: Stop | None = None
    measures: Measures = ()
    sharpness: bool = False
    compare: bool = True
    measured: int | None = None
    quadratic: bool = False
    regression: bool = False

    @property
    def plain(self) -> bool:
        """Whether this is full-batch descent of the squared loss, which kernel descent predicts."""
        return is_plain_descent(self.loss, self.optimizer, self.batch_size)

    @property
    def snapshot_steps(self) -> np.ndarray:
        """The steps at which members are measured."""
        return snapshot_steps(self.steps, self.snapshots)

    def check(self, network: Any, data: Dataset, learning_rate: Scale | None) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: naming the argument, what came and what is allowed.
        """
        check_count("width", network.width)
        self._check_optimizer()
        check_count("steps", self.steps)
        self._check_snapshots()
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, but must be one of {', '.join(DTYPES)}.")
        whole = isinstance(self.batch_size, int | np.integer)
        if self.batch_size is not None and not (whole and 1 <= self.batch_size <= data.n_train):
            raise ValueError(
                f"batch_size is {self.batch_size}, but must be between 1 and n_train = {data.n_train}, a whole number."
            )
        if network.outputs != data.outputs:
            raise ValueError(
                f"The network has {network.outputs} outputs, but y_train asks for {data.outputs}; take "
                f"outputs={data.outputs}."
            )
        if self.loss.name in ONE_OUTPUT_LOSSES and data.outputs != 1:
            raise ValueError(f"The {self.loss.name} loss needs one output, but y_train has {data.outputs}.")
        if self.loss.name == "softmax" and data.outputs == 1:
            raise ValueError("The softmax loss needs at least two outputs, but y_train has one.")
        if learning_rate is None and self.loss != squared():
            raise ValueError(
                f"learning_rate is left out, but only the squared loss has a default; give one for {self.loss.name}."
            )
        if learning_rate is not None:
            check_learning_rate(at_width(learning_rate, network.width))
        if self.stepper != "auto":
            choose_stepper(network, self.loss, self.optimizer, self.batch_size, data.x_train, stepper=self.stepper)
        self._check_stop()
        self._check_comparison(data, learning_rate)
        for name, _ in self.measures:
            if not name.isidentifier() or name in reserved_names():
                raise ValueError(f"measures has {name!r}, but a name must be an identifier that results do not have.")
        self.shapes(network, data)

    def shapes(self, network: Any, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The shape of what each of the user's measures returns.

        Raises:
            ValueError: if one cannot be traced.
        """
        data = self.seen_by_measures(data)
        arrays = {"x": data.x_train, "y": data.y_train, "x_test": data.x_test, "y_test": data.y_test}
        shared = {name: jax.ShapeDtypeStruct(array.shape, "float32") for name, array in arrays.items()}
        found = {}
        for name, measure in self.measures:

            def measured(key: Any, shared: dict[str, Any], measure: Callable = measure) -> Any:
                variables = dict(network.init(key, shared["x"]))
                return measure(variables, variables, examples(shared))

            try:
                made = jax.eval_shape(measured, jax.random.key(0), shared)
            except Exception as error:
                said = str(error).partition("\n")[0]
                raise ValueError(f"measures[{name!r}] cannot be traced by JAX to one array: {said}") from error
            kind = getattr(made, "dtype", None)
            if kind is None or not any(jnp.issubdtype(kind, real) for real in (jnp.floating, jnp.integer, jnp.bool_)):
                raise ValueError(f"measures[{name!r}] gives {made}, but must give one array of real numbers.")
            found[name] = made.shape
        return found

    def seen_by_measures(self, data: Dataset) -> Dataset:
        """The data with those training examples that measures look at."""
        if self.measured is None:
            return data
        return replace(data, x_train=data.x_train[: self.measured], y_train=data.y_train[: self.measured])

    def _check_optimizer(self) -> None:
        if self.optimizer != FLOW:
            get_optimizer(self.optimizer)
            return
        # Nothing goes beside a flow step by step, and no stability limit is that of its steps.
        for name, allowed in {"batch_size": None, "compare": False, "sharpness": False, "stepper": STEPPERS[0]}.items():
            if getattr(self, name) != allowed:
                raise ValueError(
                    f"optimizer is {FLOW!r}, whose full-batch steps have lengths of their own, but {name} is "
                    f"{getattr(self, name)!r}; take {name}={allowed!r}."
                )

    def _check_snapshots(self) -> None:
        if not isinstance(self.snapshots, tuple):
            check_count("snapshots", self.snapshots)
            return
        wrong = [step for step in self.snapshots if type(step) is not int or not 0 <= step <= self.steps]
        if wrong:
            raise ValueError(
                f"snapshots has {wrong[0]!r}, but every step must be a whole number from 0 to {self.steps}."
            )

    def _check_comparison(self, data: Dataset, learning_rate: Scale | None) -> None:
        for name in ("compare", "quadratic", "regression"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be True or False.")
        if self.quadratic and not self.compare:
            raise ValueError("quadratic is set, but compare=False sets networks beside nothing; leave one of them out.")
        if self.regression and not (data.n_test and is_labels(data.y_train)):
            raise ValueError("regression is set, but counts errors on test labels, of which this data set has none.")
        if self.measured is None:
            return
        check_count("measured", self.measured)
        if self.measured > data.n_train:
            raise ValueError(f"measured is {self.measured}, but must be at most n_train = {data.n_train}.")
        if self.regression:
            raise ValueError("regression is set, but takes all training examples; leave measured out.")
        if self.compare:
            raise ValueError(
                f"measured is {self.measured}, but networks are compared with their kernels on all training examples; "
                "take compare=False."
            )
        if learning_rate is None:
            raise ValueError(
                f"learning_rate is left out, but its default takes the kernel of all training examples, where measured "
                f"is {self.measured}; give a learning rate."
            )

    def _check_stop(self) -> None:
        if not isinstance(self.stop, Stop | None):
            raise ValueError(f"stop is {self.stop!r}, but must be a lazynet.Stop.")
        stop = self.stop or Stop()
        for name in ("loss", "gradient"):
            value = getattr(stop, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"stop.{name} is {value}, but must be positive and finite.")
        if stop.plateau is not None:
            check_count("stop.plateau", stop.plateau)


def as_snapshots(snapshots: Any) -> Any:
    """How many snapshots, or their steps, as the settings have them."""
    if isinstance(snapshots, np.ndarray | np.generic):
        snapshots = snapshots.tolist()
    if isinstance(snapshots, Iterable) and not isinstance(snapshots, str):
        return tuple(step.item() if isinstance(step, np.generic) else step for step in snapshots)
    return snapshots


def named(measures: Any) -> Measures:
    """A user's measures as the settings have them.

    Raises:
        ValueError: if they are not functions by name.
    """
    if not isinstance(measures, Mapping | None) or not all(map(callable, (measures or {}).values())):
        raise ValueError(f"measures is {measures!r}, but must give functions by their names.")
    return tuple((measures or {}).items())


def examples(shared: dict[str, Any], measured: int | None = None) -> Dataset:
    """The data that members share, as traced arrays, for a user's measure."""
    data = object.__new__(Dataset)
    for field, name in (("x_train", "x"), ("y_train", "y"), ("x_test", "x_test"), ("y_test", "y_test")):
        object.__setattr__(data, field, shared[name][:measured] if name in ("x", "y") else shared[name])
    return data


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1.")


def check_widths(widths: Sequence[int] | int, network: Any, learning_rate: Scale | None) -> tuple[int, ...]:
    """Widths in ascending order; every one of them makes a network.

    Raises:
        ValueError: if there is none, one is repeated, or one is refused by the network.
    """
    if isinstance(widths, int | np.integer):
        raise ValueError(f"widths is {widths}, but must be a list of widths.")
    for width in widths:
        check_count("width", width)
    if not len(widths):
        raise ValueError("widths is empty, but must name at least one width.")
    ordered = tuple(sorted(int(width) for width in widths))
    repeated = [a for a, b in pairwise(ordered) if a == b]
    if repeated:
        raise ValueError(f"widths has {repeated[0]} more than once, but every width may stand there once.")
    for width in ordered:
        network.clone(width=width)
        if learning_rate is not None:
            check_learning_rate(at_width(learning_rate, width))
    return ordered


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Seeds 0 .. seeds - 1, or those given.

    Raises:
        ValueError: if there is none, one is negative or one is repeated.
    """
    if isinstance(seeds, int | np.integer):
        check_count("seeds", seeds)
        return tuple(range(seeds))
    chosen = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    whole = all(isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0 for seed in chosen)
    if not chosen or not whole or len(set(chosen)) < len(chosen) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds is {seeds}, but must be a number or a list of different whole numbers from 0 on.")
    return tuple(map(int, chosen))


def check_new_folder(out: str | Path | None, resume: bool = False) -> None:
    """Refuse a folder that exists, so that no run overwrites another, and one that cannot be made."""
    if out is None:
        if resume:
            raise ValueError("resume is set, but out names no folder to go on with.")
        return
    if resume and Path(out).is_dir():
        return
    if Path(out).exists():
        raise ValueError(f"out is {str(out)!r}, which exists already; name a new folder.")
    above = next(folder for folder in Path(out).absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"out is {str(out)!r}, but no folder can be made in {str(above)!r}; name another place.")


def check_shard(shard: Any, out: str | Path | None) -> None:
    """Refuse a share that is none, or that nobody could put together."""
    if shard is None:
        return
    pair = isinstance(shard, tuple | list) and len(shard) == 2 and all(isinstance(part, int) for part in shard)
    if not pair:
        raise ValueError(f"shard is {shard!r}, but must be (k, N), two whole numbers.")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard is {shard[0]}/{shard[1]}, but must be k/N with k from 1 to N.")
    if out is None:
        raise ValueError("shard is set, but out names no folder where the shards meet.")
