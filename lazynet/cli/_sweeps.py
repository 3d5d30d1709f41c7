"""`lazynet sweep`, and the commands that work on a study's folder: `merge` and `status`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.arguments import check_choice
from lazynet.cli._common import (
    Floats,
    Folder,
    Ints,
    OptionalFloat,
    OptionalInt,
    OptionalText,
    Source,
    Switch,
    one_of,
    print_json,
    print_plan,
    progress_in,
    stoppable,
    width_search_progress,
)
from lazynet.cli._reports import check_verdict, report
from lazynet.execution import Store, run
from lazynet.experiment import Spec, check_memory_of, make_spec, make_training, sweep_jobs
from lazynet.hosts import is_first, together
from lazynet.networks import ACTIVATIONS
from lazynet.papers.work import PARTS, REPRODUCTION
from lazynet.studies.laziness_map import GRID
from lazynet.studies.laziness_map import KIND as MAP
from lazynet.studies.required_width import KIND as REQUIRED_WIDTH
from lazynet.studies.sweep import SweepStudy, check_tolerance
from lazynet.training import OPTIMIZERS


@dataclass
class Sweep:
    """Train networks of several widths, compare them with their kernels, and print which theoretical predictions hold.

    Without flags, the command runs a demonstration: digits 0 and 1, widths 64 to 4096, 8 seeds, 1000 steps. Except for
    --widths and --classes, each flag that is given several values adds an axis to the result. Each combination of
    values has its own verdict.
    """

    data: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=lambda: Source(n_test=100))
    n_train: Ints = (256,)
    """Number of training examples; several values add an axis, and smaller sets are random subsets of the largest."""
    activation: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="STR ...", help=f"Activation: {one_of(ACTIVATIONS)}; several values add an axis."),
    ] = ("relu",)
    train: str = "hidden"
    """Layers to train: hidden, readout or both."""
    init_scale: Floats = (1.0,)
    """Scale kappa of the hidden weights, which are initialized from N(0, kappa^2); several values add an axis."""
    output_scale: Floats = (1.0,)
    """Factor alpha that multiplies the output; several values add an axis."""
    widths: Ints = (64, 128, 256, 512, 1024, 2048, 4096)
    """Widths of the networks, in hidden units."""
    seeds: int = 8
    """Number of seeds; seeds are numbered from 0."""
    steps: int = 1000
    """Number of training steps."""
    snapshots: OptionalInt = None
    """Number of log-spaced steps at which to measure; by default 20, or more for longer training."""
    learning_rate: Floats = ()
    """Learning rate for the loss 1/2 sum (f - y)^2; for sgd, by default 1 / lambda_max; several values add an axis."""
    label_noise: Floats = (0.0,)
    """Fraction of the training labels to redraw at random; several values add an axis."""
    batch_size: Ints = ()
    """Number of examples per batch, by default all of them; several values add an axis."""
    optimizer: Annotated[str, tyro.conf.arg(help=f"Optimizer: {one_of(OPTIMIZERS)}.")] = "sgd"
    momentum: Floats = (0.0,)
    """Momentum for sgd, at least 0 and below 1; several values add an axis."""
    dtype: str = "float32"
    """Training precision: float32 or float64. Kernels and predictions are always float64."""
    stop_loss: OptionalFloat = None
    """Stop training a network when its loss is at most this value."""
    stop_gradient: OptionalFloat = None
    """Stop training a network when the norm of its gradient is at most this value."""
    stop_plateau: OptionalInt = None
    """Stop training a network when its loss has not fallen by more than 0.1% over this number of steps."""
    sharpness: Switch = False
    """Measure the largest eigenvalue of the empirical kernel, and the learning rate relative to its stability limit."""
    predictions: Switch = True
    """Do not compare networks with their linearizations and the infinite-width limit."""
    rows: OptionalInt = None
    """Number of training examples on which to measure, by default all of them; requires --no-predictions."""
    folder: tyro.conf.OmitArgPrefixes[Folder] = field(default_factory=Folder)
    shard: OptionalText = None
    """Compute only shard k of N, given as k/N, and store it in --out; `lazynet merge` assembles the result."""
    tolerance: OptionalFloat = None
    """Largest gap at which networks count as lazy, as a fraction of the RMS of the targets; by default 0.05."""
    check: Switch = False
    """Exit with code 1 if an exponent predicted without <= fails, an inequality fails, a network diverges or, with
    --tolerance, the largest width is not lazy or is undecided."""
    json: Switch = False
    """Print one JSON object instead of tables."""
    plan: Switch = False
    """Print the minimum memory and number of operations that the run needs, and exit."""

    def run(self) -> int:
        """Run the sweep and return the exit code."""
        if self.tolerance is not None:
            check_tolerance(self.tolerance)
            if not self.predictions:
                raise ValueError("tolerance must be omitted with --no-predictions, because no gaps are measured then.")
        shard, out = _parse_shard(self.shard), self.folder.out
        folder = self.folder.open(shard)
        spec = self.spec()
        if self.plan:
            return print_plan(sweep_jobs(spec), self.json)
        check_memory_of(spec)
        with stoppable(out):
            result = run(SweepStudy(spec), folder, progress=True)
            with together():
                if not is_first():
                    return 0
                if result is None:
                    # The result is None only for a shard, and a shard requires a folder, so there is a folder here.
                    assert out is not None
                    print(f"Shard {self.shard} is done; {progress_in(out)}.")
                    return 0
                return report(result, out, self.json, self.check, self.tolerance)

    def spec(self) -> Spec:
        """Return the specification of the sweep described by the flags.

        Raises:
            ValueError: If a flag has an invalid value.
        """
        source = self.data
        axes: dict[str, list[Any]] = {}

        def single(name: str) -> Any:
            """Return the flag's value if there is only one; otherwise, add the values as an axis and return None."""
            values = getattr(self, name)
            if len(values) == 1:
                return values[0]
            axes[name] = list(values)
            return None

        scales = {name: single(name) for name in ("activation", "init_scale", "output_scale")}
        n_train, momentum = single("n_train"), single("momentum")
        rate, size = (single(name) if getattr(self, name) else None for name in ("learning_rate", "batch_size"))
        if self.label_noise != (0.0,):
            axes["label_noise"] = list(self.label_noise)
        data = lz.load_dataset(
            source.dataset, source.classes, n_train or max(self.n_train, default=None), source.n_test
        )
        network = lz.TwoLayer(
            width=max(self.widths, default=2),
            outputs=data.outputs,
            train=self.train,
            **{name: value for name, value in scales.items() if value is not None},
        )
        criteria = self.stop_loss, self.stop_gradient, self.stop_plateau
        training = make_training(
            self.steps,
            loss="squared",
            optimizer=lz.Optimizer(check_choice("optimizer", self.optimizer, OPTIMIZERS), momentum or 0.0),
            batch_size=size,
            snapshots=self.snapshots,
            stop=None if criteria == (None, None, None) else lz.Stop(*criteria),
            measure=lz.Measure(predictions=self.predictions, sharpness=self.sharpness, rows=self.rows),
            dtype=self.dtype,
        )
        return make_spec(network, data, self.widths, self.seeds, training, rate, axes)


@dataclass
class Merge:
    """Assemble the result of a study from the cells that its shards have stored in a folder."""

    folder: tyro.conf.Positional[Path]
    """Folder of the study, passed to the shards as --out."""
    check: Switch = False
    """Exit with code 1 if an exponent predicted without <= fails, an inequality fails, or a network diverges."""
    json: Switch = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        """Assemble and print the result, and return the exit code."""
        kind = Store(self.folder).kind
        if self.check and kind:
            check_verdict(kind)
        return report(lz.merge_shards(self.folder), self.folder, self.json, self.check)


@dataclass
class Status:
    """Print the progress of the study stored in a folder, or the progress of each part of a reproduction."""

    folder: tyro.conf.Positional[Path]
    """Folder of the study or the reproduction, originally passed as --out."""
    json: Switch = False
    """Print one JSON object."""

    def run(self) -> int:
        """Check the stored cells, print the progress, and return the exit code."""
        store = Store(self.folder)
        if store.kind == REPRODUCTION:
            return self._print_parts()
        if not store.kind:
            raise ValueError(f"{str(self.folder)!r} does not contain a study.")
        status, how, cells = store.status(), "run its command again with --resume", "cells"
        if store.kind == MAP:
            # Report progress only for the sweep over the map's grid, because the number of later sweeps is not known in
            # advance.
            grid = Store(self.folder / GRID).status()
            status = grid._replace(running=status.running, result=status.result, holders=status.holders)
            how, cells = "call lazynet.laziness_map again with lazynet.RunFolder(..., resume=True)", "cells of the grid"
        if store.kind == REQUIRED_WIDTH:
            status = width_search_progress(self.folder, status)
        if self.json:
            print_json(kind=store.kind, **status._asdict())
            return 0
        print(f"{store.kind}: {status.finished} of {status.cells} {cells} are stored, {status.damaged} are damaged.")
        if status.running:
            print(f"A process is using the study{f' ({named})' if (named := ', '.join(status.holders)) else ''}.")
        elif status.finished < status.cells or not status.result:
            print(f"No process is using the study. To continue, {how}.")
        else:
            print("The study is finished.")
        return 0

    def _print_parts(self) -> int:
        """Print the progress of each part of a reproduction, and return the exit code."""
        parts = {part.name: Store(part).status() for part in sorted((self.folder / PARTS).glob("*"))}
        if self.json:
            print_json(kind=REPRODUCTION, parts={name: status._asdict() for name, status in parts.items()})
            return 0
        for name, status in parts.items():
            print(f"{name}: {status.finished} of {status.cells} cells are stored, {status.damaged} are damaged.")
        return 0


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()):
        raise ValueError(f"shard must be k/N, such as 3/16, got {text!r}.")
    return int(part), int(parts)
