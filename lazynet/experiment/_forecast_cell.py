"""Compute one cell of a forecast: no network is trained."""

import jax
import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.experiment._cell import DIVERGENCE, Cell, without_diverged
from lazynet.experiment._forecast import forecast_member
from lazynet.experiment._grid import Point
from lazynet.experiment._members import Trained, diverged_snapshots, train_polynomials
from lazynet.experiment._predictions import limit_predictions
from lazynet.experiment._record import Pack
from lazynet.experiment._reference import References
from lazynet.experiment._scores import gaps_between, scores
from lazynet.kernels import narrow_products
from lazynet.networks import Cubic, Network, traits
from lazynet.training import NEVER, member_key, start_key
from lazynet.typing import Variables

# The Taylor polynomial that may be trained in place of kernel descent with changing kernels.
ORDERS = (3,)


@DIVERGENCE
def compute_forecast(point: Point, pack: Pack, rate: float, references: References, order: int | None) -> Cell:
    """Forecast the training of a pack of members from their initial weights.

    Args:
        point: Point in the grid.
        pack: Width and seeds of the members.
        rate: Learning rate eta.
        references: The infinite-width kernels, shared by all cells.
        order: None to forecast the linearization gap by kernels, or 3 to train the third-order Taylor polynomial of
            each network.

    Returns:
        The cell, with the same variables as for trained members.
    """
    network, data, training = point.network.clone(width=pack.width), point.data, point.training
    limit = references.limit(point, pack.width)
    references.check_rate(point, pack.width, rate)
    keys = [member_key(pack.width, seed) for seed in pack.seeds]
    starts = [_start(network, data, key) for key in keys]
    with narrow_products(data.y_train.size):
        tables = [forecast_member(network, data, training, rate, variables) for variables in starts]
    table = {name: np.stack([each[name] for each in tables]) for name in tables[0]}
    outputs = {part: table.pop(part) for part in ("train_prediction", "test_prediction")}
    linear = {part: table.pop(f"linear_{part}") for part in outputs}
    # No member is trained: its initial variables and the outputs of its linearization stand in for it.
    stacked, never = jax.tree.map(lambda *leaves: np.stack(leaves), *starts), np.full(len(keys), NEVER)
    members = Trained(stacked, stacked, linear, never, never)
    if order is not None:
        outputs = train_polynomials(Cubic(network), data, members, keys, training, rate)
    table |= gaps_between("linearization_gap", outputs, linear, data)
    table |= scores(outputs, data, training.loss, traits(network).starts_at_zero)
    residual = outputs["train_prediction"] - data.y_train
    table["residual_norm"] = np.sqrt(np.sum(residual**2, axis=tuple(range(2, residual.ndim))))
    limit_variables: dict[str, np.ndarray] = {}
    kernels = table.pop("kernel")
    if limit is not None:
        table["initial_kernel_error"] = np.array([limit.distance(k) for k in kernels])
        predicted, limit_variables = limit_predictions(network, data, members, keys, limit, training, rate)
        table |= gaps_between("start_gap", linear, predicted, data)
        table |= gaps_between("kernel_gap", outputs, predicted, data)
        limit_variables |= {name: np.asarray(value) for name, value in limit.numbers(data.y_train).items()}
    steps = training.snapshot_steps
    diverged_at = diverged_snapshots(table["train_loss"], steps)
    variables = {
        name: without_diverged(values, steps, diverged_at) if values.ndim >= 2 else values
        for name, values in table.items()
    }
    return Cell(variables, limit_variables, diverged_at, never)


def _start(network: Network, data: Dataset, key: Array) -> Variables:
    """Return the variables of a member before training, as in a sweep."""
    variables = dict(network.init(start_key(key), network_rows(data.x_train, "float32")))
    return jax.tree.map(np.asarray, variables)
