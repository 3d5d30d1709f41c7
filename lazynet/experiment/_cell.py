"""Compute one cell of a study: train a pack of members, compare them with theory, and return the results as arrays."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from lazynet.data import Dataset
from lazynet.experiment._forecast import forecast_members
from lazynet.experiment._grid import Point
from lazynet.experiment._members import CellCheckpoint, Trained, first_diverged, train_members, train_polynomials
from lazynet.experiment._predictions import limit_predictions, linearized_members
from lazynet.experiment._record import Pack
from lazynet.experiment._reference import (
    References,
)
from lazynet.experiment._regression import regression_of_limit, regression_of_members
from lazynet.experiment._scores import gaps_between, scores
from lazynet.experiment._spec import Spec
from lazynet.experiment._training import Training
from lazynet.kernels import narrow_products
from lazynet.measures import catalog
from lazynet.networks import Network, Quadratic, traits
from lazynet.theory import neuron_movement_bound
from lazynet.training import NEVER, member_key

# Growth of a residual norm by at most this fraction is attributed to rounding error.
GROWTH = 1e-6
# Silences NumPy warnings about overflow and invalid values, which occur if the learning rate is too large. The variable
# `status` in the result shows which members diverged.
DIVERGENCE = np.errstate(over="ignore", invalid="ignore")
GROUPS = ("variables", "limit_variables")


@runtime_checkable
class StepReports(Protocol):
    """A function that creates the callback through which a cell reports its training steps."""

    def __call__(self, units: int, flops: float | None) -> Callable[[int], None]:
        """Return a callback that reports newly completed steps.

        Args:
            units: Relative cost of one step of one member.
            flops: Number of floating-point operations in one step of one member, or None if the number is unknown.
        """
        ...


class Cell(NamedTuple):
    """The arrays computed for one cell.

    Attributes:
        variables: Measurements of the members, with shape (seed, step, ...) or (seed,).
        limit_variables: Predictions at infinite width, with shape (seed, step), (step,) or ().
        diverged_at: The step at which each member diverged, or NEVER if the member did not diverge.
        stopped_at: The step at which each member stopped early, or NEVER if the member did not stop early.
    """

    variables: dict[str, np.ndarray]
    limit_variables: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Collect all arrays of the cell in one dictionary.

        Returns:
            The arrays, keyed by unique names.
        """
        arrays = {"diverged_at": self.diverged_at, "stopped_at": self.stopped_at}
        for group in GROUPS:
            arrays |= {f"{group}/{name}": values for name, values in getattr(self, group).items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Cell":
        """Rebuild a cell from a dictionary of arrays.

        Args:
            arrays: Arrays returned by `to_arrays`.

        Returns:
            The cell.
        """
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
        for name, values in arrays.items():
            group, _, variable = name.partition("/")
            if variable:
                groups[group][variable] = values
        return cls(**groups, diverged_at=arrays["diverged_at"], stopped_at=arrays["stopped_at"])


def units_of(spec: Spec, pack: Pack) -> int:
    """Estimate the relative cost of training a pack.

    Args:
        spec: Specification of the study.
        pack: Point, width and seeds of the members.

    Returns:
        The product of the width, the number of examples, the number of steps and the number of members.
    """
    point = spec.points[pack.point]
    return pack.width * point.data.n_train * point.training.steps * len(pack.seeds)


def train_pack(
    spec: Spec, pack: Pack, rate: float, references: References, steps: StepReports, checkpoint: CellCheckpoint | None
) -> Trained:
    """Train the members of a pack.

    Args:
        spec: Specification of the study.
        pack: Point, width and seeds of the members.
        rate: Learning rate eta.
        references: Kernels and inputs that cells share.
        steps: Function that creates the callback for reporting completed steps.
        checkpoint: Storage for the state of an unfinished pack, or None.

    Returns:
        The trained members, in the order of the pack's seeds.
    """
    point = spec.points[pack.point]
    network = point.network.clone(width=pack.width)
    inputs = references.inputs(point)
    references.check_rate(point, pack.width, rate)
    # With early stopping, the number of steps is not known in advance.
    stops = point.training.stop is not None
    flops = None if stops else replace(inputs.stepper, network=network).operations(inputs.arrays)
    report = steps(pack.width * point.data.n_train, flops)
    keys = [member_key(pack.width, seed) for seed in pack.seeds]
    return train_members(network, point.data, keys, point.training, rate, inputs, report, checkpoint)


@DIVERGENCE
def compute_cell(
    spec: Spec, pack: Pack, rate: float, references: References, steps: StepReports, checkpoint: CellCheckpoint | None
) -> Cell:
    """Train a pack of members and compare them with theoretical predictions.

    Args:
        spec: Specification of the study.
        pack: Point, width and seeds of the members.
        rate: Learning rate eta.
        references: Kernels and inputs that cells share.
        steps: Function that creates the callback for reporting completed steps.
        checkpoint: Storage for the state of an unfinished cell, or None.

    Returns:
        The `Cell` of the pack.
    """
    point = spec.points[pack.point]
    trained = train_pack(spec, pack, rate, references, steps, checkpoint)
    with narrow_products(point.data.y_train.size):
        cell = _with_predictions(point, pack, rate, references, trained, checkpoint)
    if "ridge_penalty" not in cell.variables and any(point.training.ridge for point in spec.points):
        # Without a ridge, the penalty is zero, but diverged members remain NaN.
        cell.variables["ridge_penalty"] = 0 * cell.variables["displacement"]
    return cell


def _with_predictions(
    point: Point,
    pack: Pack,
    rate: float,
    references: References,
    trained: Trained,
    checkpoint: CellCheckpoint | None,
) -> Cell:
    """Return the cell for trained members, including their distances from the theoretical predictions."""
    network, training = point.network.clone(width=pack.width), point.training
    inputs, limit = references.inputs(point), references.limit(point, pack.width)
    data = inputs.seen(point.data)
    keys = [member_key(pack.width, seed) for seed in pack.seeds]
    measure = training.measure
    variables, diverged_at = network_variables(network, data, trained, training)
    limit_variables: dict[str, np.ndarray] = {}
    numbers: dict[str, float] = {}
    predicted: dict[str, np.ndarray] | None = None
    if measure.predictions:
        linear, kernel_errors = linearized_members(network, data, trained, keys, limit, training, rate, checkpoint)
        # In some network families, the empirical kernels vary so much between members that a learning rate chosen for
        # the infinite-width kernel is too large for some of them.
        if not traits(network).near_limit:
            linear = _without_growing(linear, data, training, network.width)
        variables |= gaps_between("linearization_gap", trained.records, linear, data)
    if measure.quadratic:
        parabola = train_polynomials(Quadratic(network), data, trained, keys, training, rate, checkpoint)
        variables |= gaps_between("quadratic_gap", trained.records, parabola, data)
    if limit is not None:
        numbers = limit.numbers(data.y_train)
        variables["initial_kernel_error"] = kernel_errors
        if training.predicts_limit(data.n_train):
            predicted, limit_variables = limit_predictions(network, data, trained, keys, limit, training, rate)
            variables |= gaps_between("start_gap", linear, predicted, data)
            variables |= gaps_between("kernel_gap", trained.records, predicted, data)
        if training.plain:
            lambda_min, residual_norm = numbers["lambda_min"], variables["residual_norm"]
            variables |= _bounds(network, data, trained, lambda_min, rate, residual_norm, inputs.norm)
    if measure.forecast:
        variables |= forecast_members(network, data, training, rate, trained, linear, predicted)
    if measure.regression:
        variables |= regression_of_members(network, data, trained, diverged_at != NEVER)
        limit_variables |= regression_of_limit(limit, data) if limit is not None else {}
    steps, quantities = training.snapshot_steps, catalog()
    for name, values in variables.items():
        if values.ndim >= 2:
            finite = without_diverged(values, steps, diverged_at)
            held = name in quantities and quantities[name].held
            variables[name] = _held(finite, steps, trained.stopped_at) if held else finite
    limit_variables |= {name: np.asarray(value) for name, value in numbers.items()}
    return Cell(variables, limit_variables, diverged_at, trained.stopped_at)


def join_cells(cells: Sequence[Cell]) -> Cell:
    """Combine several cells at the same point and width into one cell."""

    def joined(group: str) -> dict[str, np.ndarray]:
        parts = [getattr(cell, group) for cell in cells]
        # Members whose initial outputs are zero share one set of predictions at infinite width.
        return {
            name: first if group == "limit_variables" and first.ndim < 2 else np.concatenate([p[name] for p in parts])
            for name, first in parts[0].items()
        }

    diverged_at = np.concatenate([cell.diverged_at for cell in cells])
    stopped_at = np.concatenate([cell.stopped_at for cell in cells])
    return Cell(joined("variables"), joined("limit_variables"), diverged_at, stopped_at)


@DIVERGENCE
def network_variables(
    network: Network, data: Dataset, trained: Trained, training: Training
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compute the losses, errors and other quantities for trained members.

    Args:
        network: Network with the same width as the members.
        data: Training and test sets used to train and evaluate the members.
        trained: Trained members.
        training: Settings used to train and measure the members.

    Returns:
        The quantities, keyed by name, and an array of shape (members,) that contains the step at which each member
        diverged, or NEVER if the member did not diverge. Each quantity has shape (members, snapshots, ...). The
        values of a diverged member are NaN, starting at the step at which it diverged.
    """
    steps, data = training.snapshot_steps, training.measured_data(data)
    variables = scores(trained.records, data, training.loss, traits(network).starts_at_zero)
    residual = trained.records["train_prediction"] - data.y_train
    variables["residual_norm"] = np.sqrt(np.sum(residual**2, axis=tuple(range(2, residual.ndim))))
    trained.warn_of_rounding(training, network.width)
    internal = ("train_prediction", "test_prediction", "loss_root_sum")
    variables |= {name: values for name, values in trained.records.items() if name not in internal}
    if training.ridge:
        variables["ridge_penalty"] = training.ridge / 2 * variables["displacement"] ** 2
    diverged_at = first_diverged(trained, variables["train_loss"], steps)
    return {name: without_diverged(v, steps, diverged_at) for name, v in variables.items()}, diverged_at


def without_diverged(values: np.ndarray, steps: np.ndarray, diverged_at: np.ndarray) -> np.ndarray:
    """Replace the values of each diverged member with NaN, starting at the step at which it diverged.

    Values have shape (members, step, ...).
    """
    gone = steps[None, :] >= diverged_at[:, None]
    return np.where(gone.reshape(*gone.shape, *[1] * (values.ndim - 2)), np.nan, values)


def _held(values: np.ndarray, steps: np.ndarray, stopped_at: np.ndarray) -> np.ndarray:
    """For members that stopped early, replace all values after the stop with the last value recorded by then.

    Values have shape (members, step).
    """
    last = np.searchsorted(steps, stopped_at, side="right") - 1
    return np.take_along_axis(values, np.minimum(np.arange(len(steps)), last[:, None]), axis=1)


def _without_growing(
    linear: dict[str, np.ndarray], data: Dataset, training: Training, width: int
) -> dict[str, np.ndarray]:
    """Return the predictions of linearized members, with NaN for members whose residuals grow.

    With plain gradient descent on a quadratic loss, no mode of the residual grows if eta <= 2 / lambda_max(K_0). If eta
    is larger, at least one mode grows.
    """
    if not training.plain:
        return linear
    residual = linear["train_prediction"] - data.y_train
    norms = np.sqrt(np.sum(residual**2, axis=tuple(range(2, residual.ndim))))
    grows = ~np.all(norms <= norms[:, :1] * (1 + GROWTH), axis=1)
    if not grows.any():
        return linear
    warnings.warn(
        f"At width {width}, {grows.sum()} of {len(grows)} linearizations diverge because the learning rate exceeds "
        "2 / lambda_max of their kernels. The gaps between these linearizations and their networks are NaN.",
        stacklevel=2,
    )
    return {
        name: np.where(grows.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values) for name, values in linear.items()
    }


def _bounds(
    network: Network,
    data: Dataset,
    trained: Trained,
    lambda_min: float,
    learning_rate: float,
    residual_norm: np.ndarray,
    norm: float,
) -> dict[str, np.ndarray]:
    """Return two bounds on max_neuron_displacement, or an empty dictionary if neuron gradients have no known bound.

    The gradient with respect to w_r is (alpha / sqrt(m)) sum_ij a_rj r_ij sigma'(z_ri) x_i, where r_ij are the
    residuals. Since |a_rj| = 1 and |sigma'| <= L, its norm is at most B = (alpha / sqrt(m)) L sqrt(k) ||X||_2 ||r||.
    The path bound is the learning rate times the sum of B over the steps so far, evaluated with the actual residuals of
    the network. The lemma bound instead uses ||X||_2 <= ||X||_F and the predicted geometric decay of the residuals. It
    equals alpha L sqrt(k) times the bound in Lemma C.1 of Arora et al. 2019, which is
    4 ||X||_F ||y - u(0)|| / (sqrt(m) lambda_min), with ||X||_F = sqrt(n) for inputs of unit norm.
    """
    factor = traits(network).neuron_gradient
    if factor is None:
        return {}
    # The factor already includes 1 / sqrt(m), so the lemma is evaluated at width 1.
    lemma = neuron_movement_bound(
        float(np.sum(np.square(data.x_train, dtype=np.float64))), 1, residual_norm[:, 0], lambda_min
    )
    # The loss is half the squared residual norm, so the residual norm is sqrt(2) times the square root of the loss.
    residual_sum = np.sqrt(2) * trained.records["loss_root_sum"]
    path = learning_rate * norm * residual_sum
    return {"lemma_bound": factor * lemma, "path_bound": factor * path}
