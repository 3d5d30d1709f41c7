"""A cell of a sweep: a pack of members of one width trained, set beside their predictions, and turned into rows."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.data import Dataset, is_labels
from lazynet.experiment._members import Trained, first_diverged, train_members, train_polynomials
from lazynet.experiment._reference import Limit, limit_displacement, limit_trajectory, linearized_members, starts
from lazynet.experiment._regression import regression_of_limit, regression_of_members
from lazynet.experiment._shared_inputs import Prepared
from lazynet.experiment._spec import Training
from lazynet.kernels._threads import narrow_products
from lazynet.losses import Loss
from lazynet.measures import rms, zero_one_error
from lazynet.measures._catalogue import GAPS
from lazynet.networks import Quadratic, traits
from lazynet.precision import host_float64
from lazynet.theory import neuron_movement_bound
from lazynet.training import Checkpoint

# What rounding may add to a residual that does not shrink.
GROWTH = 1e-6
# A large learning rate makes members and predictions overflow, which the result says better than NumPy's warning.
DIVERGENCE = np.errstate(over="ignore", invalid="ignore")


class Cell(NamedTuple):
    """The variables of members of one width: (seed, step) or (seed,); of the limit (seed, step), (step,) or numbers;
    and where each member diverged or stopped.
    """

    variables: dict[str, np.ndarray]
    limit_variables: dict[str, np.ndarray]
    diverged_at: np.ndarray
    stopped_at: np.ndarray


@DIVERGENCE
def compute_cell(
    network: Any,
    data: Dataset,
    keys: list[Array],
    training: Training,
    learning_rate: float,
    prepared: Prepared,
    limit: Limit | None,
    on_steps: Callable[[int], None],
    checkpoint: Checkpoint | None,
) -> Cell:
    """Train members of one width and set them beside their predictions."""
    trained = train_members(network, data, keys, training, learning_rate, prepared, on_steps, checkpoint)
    with narrow_products(data.y_train.size):
        return _beside_predictions(
            network, prepared.seen(data), keys, training, learning_rate, prepared, limit, trained
        )


def _beside_predictions(
    network: Any,
    data: Dataset,
    keys: list[Array],
    training: Training,
    learning_rate: float,
    prepared: Prepared,
    limit: Limit | None,
    trained: Trained,
) -> Cell:
    """Trained members and what they are compared with."""
    variables, diverged_at = network_variables(network, data, trained, training)
    limit_variables: dict[str, np.ndarray] = {}
    numbers: dict[str, float] = {}
    if training.compare:
        linear, kernel_errors = linearized_members(network, data, trained, keys, limit, training, learning_rate)
        # Deep kernels of one width differ so much that some members' own are above what their limit allows for.
        if not traits(network).near_limit:
            linear = _without_growing(linear, data, training, network.width)
        variables |= _gaps("linearization_gap", trained.records, linear, data)
    if training.quadratic:
        parabola = train_polynomials(Quadratic(network), data, trained, keys, training, learning_rate)
        variables |= _gaps("quadratic_gap", trained.records, parabola, data)
    if limit is not None:
        numbers = limit.numbers(data.y_train)
        variables["initial_kernel_error"] = kernel_errors
        if training.plain:
            predicted, limit_variables = _limit_predictions(network, data, trained, limit, training, learning_rate)
            variables |= _gaps("start_gap", linear, predicted, data)
            variables |= _gaps("kernel_gap", trained.records, predicted, data)
            lambda_min, residual_norm = numbers["lambda_min"], variables["residual_norm"]
            variables |= _bounds(network, data, trained, lambda_min, learning_rate, residual_norm, prepared.norm)
    if training.regression:
        variables |= regression_of_members(network, data, trained)
        limit_variables |= regression_of_limit(limit, data) if limit is not None else {}
    steps = training.snapshot_steps
    for name, values in variables.items():
        if values.ndim >= 2:
            known = _without_diverged(values, steps, diverged_at)
            variables[name] = _held(known, steps, trained.stopped_at) if name in GAPS else known
    limit_variables |= {name: np.asarray(value) for name, value in numbers.items()}
    return Cell(variables, limit_variables, diverged_at, trained.stopped_at)


def join_cells(cells: Sequence[Cell]) -> Cell:
    """The members of several cells of one width, one after the other."""

    def joined(group: str) -> dict[str, np.ndarray]:
        parts = [getattr(cell, group) for cell in cells]
        # What the limit predicts of members that start from zero is the same for all.
        return {
            name: first if group == "limit_variables" and first.ndim < 2 else np.concatenate([p[name] for p in parts])
            for name, first in parts[0].items()
        }

    diverged_at = np.concatenate([cell.diverged_at for cell in cells])
    stopped_at = np.concatenate([cell.stopped_at for cell in cells])
    return Cell(joined("variables"), joined("limit_variables"), diverged_at, stopped_at)


@DIVERGENCE
def network_variables(
    network: Any, data: Dataset, trained: Trained, training: Training
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Losses, errors and movement (members, step), NaN from the step on at which a member had diverged."""
    steps, data = training.snapshot_steps, training.seen_by_measures(data)
    variables = scores(trained.records, data, training.loss, traits(network).starts_at_zero)
    residual = trained.records["train_prediction"] - data.y_train
    variables["residual_norm"] = np.sqrt(np.sum(residual**2, axis=tuple(range(2, residual.ndim))))
    known = ("train_prediction", "test_prediction", "loss_root_sum")
    variables |= {name: values for name, values in trained.records.items() if name not in known}
    diverged_at = first_diverged(trained, variables["train_loss"], steps)
    return {name: _without_diverged(v, steps, diverged_at) for name, v in variables.items()}, diverged_at


def _without_diverged(values: np.ndarray, steps: np.ndarray, diverged_at: np.ndarray) -> np.ndarray:
    """Values (members, step, ...), NaN from the step on at which a member had diverged."""
    gone = steps[None, :] >= diverged_at[:, None]
    return np.where(gone.reshape(*gone.shape, *[1] * (values.ndim - 2)), np.nan, values)


def _held(values: np.ndarray, steps: np.ndarray, stopped_at: np.ndarray) -> np.ndarray:
    """Gaps (members, step); a member that has stopped keeps that of its last snapshot before, for predictions go on."""
    last = np.searchsorted(steps, stopped_at, side="right") - 1
    return np.take_along_axis(values, np.minimum(np.arange(len(steps)), last[:, None]), axis=1)


def scores(
    predictions: dict[str, np.ndarray], data: Dataset, loss: Loss, starts_at_zero: bool
) -> dict[str, np.ndarray]:
    """train_loss, test_loss, train_error and test_error of predictions (..., step, n), shaped (..., step)."""
    found: dict[str, np.ndarray] = {}
    for part, y in (("train", data.y_train), ("test", data.y_test)):
        f = predictions[f"{part}_prediction"]
        lead = f.shape[: f.ndim - y.ndim]
        if not len(y):
            found |= {f"{part}_loss": np.full(lead, np.nan), f"{part}_error": np.full(lead, np.nan)}
            continue
        flat = f.reshape(-1, *y.shape)
        with host_float64():
            found[f"{part}_loss"] = np.asarray(_losses(loss, jnp.asarray(flat), jnp.asarray(y))).reshape(lead)
        errors = np.asarray(zero_one_error(f, y)) if is_labels(data.y_train) else np.full(lead, np.nan)
        if starts_at_zero and is_labels(data.y_train):
            # The output there is rounding noise around zero, which classifies nothing.
            errors[..., 0] = 1 - 1 / max(2, data.outputs)
        found[f"{part}_error"] = errors
    return found


@partial(jax.jit, static_argnames="loss")
def _losses(loss: Loss, f: Array, y: Array) -> Array:
    """The loss of each of many predictions."""
    return jax.vmap(lambda f: loss(f, y))(f)


def _gaps(name: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray], data: Dataset) -> dict[str, np.ndarray]:
    """RMS over examples and outputs of the difference of two predictions, (members, step)."""
    parts = {"train": data.y_train, "test": data.y_test}
    return {
        f"{name}_{part}": np.asarray(rms(one[f"{part}_prediction"] - other[f"{part}_prediction"], y.ndim))
        for part, y in parts.items()
        if len(y)
    }


def _without_growing(
    linear: dict[str, np.ndarray], data: Dataset, training: Training, width: int
) -> dict[str, np.ndarray]:
    """Predictions of linearized members, NaN of those whose residual grows: of them the learning rate is no descent.

    Plain descent on a quadratic loss shrinks every mode below eta = 2 / lambda_max(K_0), and some mode grows above it.
    """
    if not training.plain:
        return linear
    residual = linear["train_prediction"] - data.y_train
    norms = np.sqrt(np.sum(residual**2, axis=tuple(range(2, residual.ndim))))
    grows = ~np.all(norms <= norms[:, :1] * (1 + GROWTH), axis=1)
    if not grows.any():
        return linear
    warnings.warn(
        f"The linearizations of {grows.sum()} members of width {width} diverge, for the learning rate is above the "
        "limit 2 / lambda_max of their own kernels; gaps to them are NaN.",
        stacklevel=2,
    )
    return {
        name: np.where(grows.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values) for name, values in linear.items()
    }


def _limit_predictions(
    network: Any, data: Dataset, trained: Trained, limit: Limit, training: Training, learning_rate: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Predictions of the limit for each member, and the scores of the limit: (step,) where all start from zero."""
    starts_at_zero = traits(network).starts_at_zero
    members = 1 if starts_at_zero else len(trained.diverged_at)
    steps, paths, moved = training.snapshot_steps, [], []
    for i in range(members):
        f0, f0_test = starts(network, trained, i)
        paths.append(limit_trajectory(limit, data, learning_rate, steps, f0, f0_test))
        moved.append(limit_displacement(limit, data, learning_rate, steps, f0))
    predicted = {
        "train_prediction": np.stack([path.train for path in paths]),
        "test_prediction": np.stack([np.asarray(path.test) for path in paths]),
    }
    found = {f"kernel_{name}": v for name, v in scores(predicted, data, training.loss, starts_at_zero).items()}
    found["linearized_displacement"] = np.stack(moved)
    return predicted, {name: v[0] for name, v in found.items()} if starts_at_zero else found


def _bounds(
    network: Any,
    data: Dataset,
    trained: Trained,
    lambda_min: float,
    learning_rate: float,
    residual_norm: np.ndarray,
    norm: float,
) -> dict[str, np.ndarray]:
    """Two bounds on max_neuron_displacement, for trained hidden weights under a readout of signs.

    The gradient of w_r is (alpha / sqrt(m)) sum_ic a_rc r_ic sigma'(z_ri) x_i, at most c L sqrt(k) ||X||_2 ||r|| for
    c = alpha / sqrt(m) and |sigma'| <= L. Summed over the steps with the network's own residuals it is the path bound;
    with ||X||_2 <= sqrt(n) and the geometric decay of theory it is Lemma C.1 of Arora et al. 2019,
    4 sqrt(n) ||y - u(0)|| / (sqrt(m) lambda_min), times alpha L sqrt(k).
    """
    factor = traits(network).neuron_gradient
    if factor is None:
        return {}
    # The factor has 1 / sqrt(m) in it.
    lemma = neuron_movement_bound(float(np.sum(data.x_train**2)), 1, residual_norm[:, 0], lambda_min)
    # The loss is half the squared residual.
    residual_sum = np.sqrt(2) * trained.records["loss_root_sum"]
    path = learning_rate * norm * residual_sum
    return {"lemma_bound": factor * lemma, "path_bound": factor * path}
