"""The settings of a search for the required width, and the check of the arguments that specify it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lazynet.arguments import check_choice, check_count
from lazynet.data import Dataset
from lazynet.execution import RunFolder, run
from lazynet.experiment import (
    Measure,
    References,
    Spec,
    Training,
    check_inputs,
    check_memory_of,
    check_seeds,
    check_widths,
    make_spec,
    make_training,
    relative_rates,
)
from lazynet.kernels import FACTORED, analytic_kernel
from lazynet.losses import Loss
from lazynet.networks import GivenNetwork, Scale, at_width, check_scale
from lazynet.studies._parts import Parts
from lazynet.studies.required_width._quantities import COORDINATES, MEASURED
from lazynet.studies.required_width._search import Goal
from lazynet.studies.sweep import SweepStudy, check_tolerance
from lazynet.studies.sweep._regime import PREDICTIONS
from lazynet.training import AnyOptimizer
from lazynet.typing import Result

TOLERANCE = 0.01
PILOTS = (64, 128, 256, 512, 1024, 2048)
MAX_WIDTH = 16384


@dataclass(frozen=True)
class Search:
    """The settings of a search for the required width.

    Attributes:
        goal: Tolerance, prediction and largest width of the search.
        network: The family of networks.
        data: The data.
        seeds: The seeds.
        training: How networks are trained and measured.
        pilots: The widths from which the crossing is predicted, in ascending order.
        learning_rate: The learning rate, or None for the default.
        parts: Folder of the search, with one subfolder for each width.
        progress: Whether to show progress on a terminal.
        references: Kernels and inputs shared by all sweeps.
    """

    goal: Goal
    network: GivenNetwork
    data: Dataset
    seeds: tuple[int, ...]
    training: Training
    pilots: tuple[int, ...]
    learning_rate: Scale | None
    parts: Parts
    progress: bool
    references: References

    def spec(self, widths: Sequence[int], rate: Scale | None) -> Spec:
        """Return the specification of the sweep over the given widths."""
        return make_spec(self.network, self.data, widths, self.seeds, self.training, rate)

    @cached_property
    def pilot_spec(self) -> Spec:
        """The specification of a sweep over all pilot widths, which also identifies the search."""
        return self.spec(self.pilots, self.learning_rate)

    def base_rate(self) -> float:
        """Return the learning rate at the largest pilot width."""
        return self.references.rates(self.pilot_spec.points[0], self.pilots)[self.pilots[-1]]

    def rate(self, base: float, width: int) -> float:
        """Return the learning rate at a width.

        Args:
            base: The learning rate at the largest pilot width.
            width: Number of hidden units.
        """
        if self.learning_rate is not None:
            return at_width(self.learning_rate, width)
        relative = relative_rates(self.network, (self.pilots[-1], width))
        return base * relative[width] / relative[self.pilots[-1]]

    def train(self, width: int, rate: float) -> Result | None:
        """Train networks of one width, and return their measurements, or None in all processes but the first.

        Args:
            width: Number of hidden units.
            rate: The learning rate.
        """
        study = SweepStudy(self.spec([width], rate), references=self.references)
        result = run(study, self.parts.subfolder(f"width-{width:06d}"), self.progress)
        if result is None:
            return None
        return result[[name for name in (*MEASURED, *COORDINATES) if name in result.variables]]

    def why_too_large(self, width: int, rate: float) -> str:
        """Return why networks of a width cannot be trained, or an empty string if they fit in memory."""
        try:
            check_memory_of(self.spec([width], rate))
        except ValueError as error:
            return f"width {width} does not fit in memory: {error}".removesuffix(".")
        return ""


def make_search(
    network: GivenNetwork,
    data: Dataset,
    tolerance: float,
    of: str,
    seeds: int | Sequence[int],
    steps: int,
    *,
    pilots: Sequence[int] | None,
    max_width: int,
    learning_rate: Scale | None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    dtype: str,
    folder: RunFolder | None,
    progress: bool,
) -> Search:
    """Check the arguments of `required_width` and return the settings of the search.

    Args:
        network: As in `required_width`.
        data: As in `required_width`.
        tolerance: As in `required_width`.
        of: As in `required_width`.
        seeds: As in `required_width`.
        steps: As in `required_width`.
        pilots: As in `required_width`.
        max_width: As in `required_width`.
        learning_rate: As in `required_width`.
        loss: As in `required_width`.
        optimizer: As in `required_width`.
        batch_size: As in `required_width`.
        dtype: As in `required_width`.
        folder: The folder in which to store the search, or None to store nothing.
        progress: As in `required_width`.

    Returns:
        The settings.

    Raises:
        ValueError: If an argument is invalid.
    """
    training = make_training(
        steps,
        loss=loss,
        optimizer=optimizer,
        batch_size=batch_size,
        snapshots=None,
        measure=Measure(kernel_drift=False),
        dtype=dtype,
    )
    data = check_inputs(network, data)
    if training.is_flow:
        raise ValueError("optimizer must not be 'flow', because gradient flow has no predictions to follow.")
    check_choice("of", of, PREDICTIONS)
    goal = Goal(check_tolerance(tolerance), of, check_count("max_width", max_width))
    members = check_seeds(seeds)
    if len(members) < 2:
        raise ValueError(f"seeds must contain at least two seeds, got {len(members)}. A single seed gives no interval.")
    if pilots is None:
        pilots = [width for width in PILOTS if width <= goal.max_width]
        if not pilots:
            raise ValueError(f"max_width must be at least {PILOTS[0]} unless pilots are given, got {goal.max_width}.")
    ordered = check_widths(pilots, network, learning_rate, "pilots")
    if ordered[-1] > goal.max_width:
        raise ValueError(f"max_width must be at least {ordered[-1]}, the largest pilot width, got {goal.max_width}.")
    if learning_rate is not None:
        check_scale("learning_rate", learning_rate, goal.max_width)
    if folder is not None and folder.shard is not None:
        raise ValueError(f"out.shard must be None, got {folder.shard}. The widths to train depend on earlier results.")
    parts = Parts.starting_now(folder)
    search = Search(goal, network, data, members, training, ordered, learning_rate, parts, progress, References())
    if of == "infinite_width":
        if analytic_kernel(network) is None:
            raise ValueError(
                "of must be 'linearization' for a network without an analytic kernel, got 'infinite_width'."
            )
        if not training.predicts_limit(data.n_train):
            raise ValueError(
                "of must be 'linearization' unless the optimizer is 'sgd' without a schedule and, if "
                f"kernel descent has no closed form, there are at most {FACTORED} examples, got 'infinite_width'."
            )
    return search
