"""`lazynet sweep`: networks of several widths and seeds, compared with their kernels."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.cli._common import (
    Architecture,
    DType,
    Floats,
    Folder,
    Ints,
    OptionalFloat,
    OptionalInt,
    OptionalText,
    Source,
    Switch,
    choices,
    print_plan,
    progress_in,
    stoppable,
)
from lazynet.cli._reports import report
from lazynet.execution import run
from lazynet.experiment import Spec, check_memory_of, make_spec, make_training, sweep_jobs
from lazynet.hosts import is_first, together
from lazynet.losses import LOSSES
from lazynet.networks import ACTIVATIONS
from lazynet.studies.sweep import SweepStudy, check_tolerance
from lazynet.training import OPTIMIZERS

# Numbers of examples in the demonstration.
N_TRAIN, N_TEST = 256, 100


@dataclass
class SweepData(Source):
    """Data set, and which of its examples to use. Without --data, 256 training and 100 test examples are used."""

    n_train: Ints = ()
    """Number of training examples; several values add an axis, and smaller sets are random subsets of the largest."""
    label_noise: Floats = (0.0,)
    """Fraction of the training labels to redraw at random; several values add an axis."""


@dataclass
class SweepNetwork(Architecture):
    """Settings of the networks."""

    activation: Annotated[tuple[str, ...], choices(ACTIVATIONS, several=True)] = ("relu",)
    """Activation; several values add an axis."""
    init_scale: Floats = ()
    """Scale kappa of the weights, drawn from N(0, kappa^2); by default 1, or sqrt(2) for an mlp; several values add an
    axis."""
    output_scale: Floats = (1.0,)
    """Factor alpha that multiplies the output; several values add an axis."""
    widths: Ints = (64, 128, 256, 512, 1024, 2048, 4096)
    """Widths of the networks, in hidden units."""
    seeds: int = 8
    """Number of seeds; seeds are numbered from 0."""


@dataclass
class SweepTraining:
    """Settings of the training."""

    steps: int = 1000
    """Number of training steps."""
    learning_rate: Floats = ()
    """Learning rate; sgd with the squared loss has the default 1 / lambda_max; several values add an axis."""
    loss: Annotated[str, choices(LOSSES)] = "squared"
    """Loss."""
    batch_size: Ints = ()
    """Number of examples per batch, by default all of them; several values add an axis."""
    optimizer: Annotated[str, choices(OPTIMIZERS)] = "sgd"
    """Optimizer."""
    momentum: Floats = (0.0,)
    """Momentum for sgd, at least 0 and below 1; several values add an axis."""
    weight_decay: Floats = ()
    """Factor w in the term w theta that is added to the gradient; several values add an axis."""
    ridge: Floats = (0.0,)
    """Factor beta in the penalty beta/2 ||theta - theta_0||^2; several values add an axis."""
    dtype: DType = "float32"
    """Training precision. Kernels and predictions are always float64."""
    stop_loss: OptionalFloat = None
    """Stop training a network when its loss is at most this value."""
    stop_gradient: OptionalFloat = None
    """Stop training a network when the norm of its gradient is at most this value."""
    stop_plateau: OptionalInt = None
    """Stop training a network when its loss has not fallen by more than 0.1% over this number of steps."""

    @property
    def stop(self) -> lz.Stop | None:
        """The criteria for ending the training early."""
        criteria = self.stop_loss, self.stop_gradient, self.stop_plateau
        return None if criteria == (None, None, None) else lz.Stop(*criteria)


@dataclass
class Measurement:
    """What to measure, and when."""

    snapshots: OptionalInt = None
    """Number of log-spaced steps at which to measure; by default 20, or more for longer training."""
    sharpness: Switch = False
    """Measure the largest eigenvalue of the empirical kernel, and the learning rate relative to its stability limit."""
    predictions: Switch = True
    """Do not compare networks with their linearizations and the infinite-width limit."""
    rows: OptionalInt = None
    """Number of training examples on which to measure, by default all of them; requires --no-predictions."""

    @property
    def measure(self) -> lz.Measure:
        """What to measure.

        Raises:
            ValueError: If the predictions cannot be made from the selected rows.
        """
        if self.rows is not None and self.predictions:
            raise ValueError("--rows must be omitted without --no-predictions, because predictions need all examples.")
        return lz.Measure(predictions=self.predictions, sharpness=self.sharpness, rows=self.rows)


@dataclass
class Sweep:
    """Train networks of several widths, compare them with their kernels, and print which theoretical predictions hold.

    Without flags, the command runs a demonstration: digits 0 and 1, widths 64 to 4096, 8 seeds, 1000 steps. Except for
    --widths and --classes, each flag that is given several values adds an axis to the result. Each combination of
    values has its own verdict.
    """

    data: tyro.conf.OmitArgPrefixes[SweepData] = field(default_factory=SweepData)
    network: tyro.conf.OmitArgPrefixes[SweepNetwork] = field(default_factory=SweepNetwork)
    training: tyro.conf.OmitArgPrefixes[SweepTraining] = field(default_factory=SweepTraining)
    measurement: tyro.conf.OmitArgPrefixes[Measurement] = field(default_factory=Measurement)
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
            if not self.measurement.predictions:
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
        data, network, training = self.data, self.network, self.training
        axes: dict[str, list[Any]] = {}

        def single(group: Any, name: str) -> Any:
            """Return a flag's only value, or None if it has several, which are added as an axis, or is not given."""
            values = getattr(group, name)
            if len(values) > 1 or (not values and getattr(type(group), name)):
                axes[name] = list(values)
            return values[0] if len(values) == 1 else None

        scales = {name: single(network, name) for name in ("activation", "init_scale", "output_scale")}
        single(data, "n_train")
        momentum = single(training, "momentum")
        rate, size = single(training, "learning_rate"), single(training, "batch_size")
        decay, ridge = single(training, "weight_decay"), single(training, "ridge")
        if data.label_noise != (0.0,):
            axes["label_noise"] = list(data.label_noise)
        own = data.file is not None
        most, tested = max(data.n_train, default=None if own else N_TRAIN), None if own else N_TEST
        examples = data.read(most, tested if data.n_test is None else data.n_test)
        return make_spec(
            network.make(max(network.widths, default=2), examples.outputs, **scales),
            examples,
            network.widths,
            network.seeds,
            make_training(
                training.steps,
                loss=training.loss,
                optimizer=lz.Optimizer(training.optimizer, momentum or 0.0, weight_decay=decay, ridge=ridge or 0.0),
                batch_size=size,
                snapshots=self.measurement.snapshots,
                stop=training.stop,
                measure=self.measurement.measure,
                dtype=training.dtype,
            ),
            rate,
            axes,
        )


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()):
        raise ValueError(f"shard must be k/N, such as 3/16, got {text!r}.")
    return int(part), int(parts)
