"""Predictions for trained members: those of their linearizations, and those of the infinite-width kernel."""

import os
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.dynamics import Origin, Trajectory, kernel_descent
from lazynet.dynamics._modes import EXACT
from lazynet.experiment._members import CellCheckpoint, Trained, train_polynomials
from lazynet.experiment._reference import Limit
from lazynet.experiment._scores import scores
from lazynet.experiment._training import Training
from lazynet.kernels import empirical_ntk, in_threads, narrow_products
from lazynet.measures import parameter_norm
from lazynet.networks import Linearized, Network, traits
from lazynet.programs import compiled
from lazynet.typing import Variables

# Maximum number of training predictions (n examples times k outputs) for which a member's kernel is diagonalized. If
# there are more, the linearized network is trained instead.
LARGEST_EIGENPROBLEM = 4096


def limit_predictions(
    network: Network,
    data: Dataset,
    trained: Trained,
    keys: list[Array],
    limit: Limit,
    training: Training,
    learning_rate: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the infinite-width predictions for each member, with their scores and linearized displacements.

    The scores and displacements have shape (members, step). If all members start at zero and are trained on the full
    batch without weight decay, they share one prediction, and the shape is (step,).
    """
    from_zero = traits(network).starts_at_zero
    shared = from_zero and training.batch_size is None and not training.decays
    paths = [
        limit_trajectory(
            limit,
            data,
            training,
            learning_rate,
            keys[i],
            *starts(network, trained, i),
            origin_of(network, data, trained, i, training),
        )
        for i in range(1 if shared else len(keys))
    ]
    predicted = {
        "train_prediction": np.stack([path.train for path in paths]),
        "test_prediction": np.stack([np.asarray(path.test) for path in paths]),
    }
    table = {f"kernel_{name}": values for name, values in scores(predicted, data, training.loss, from_zero).items()}
    table["linearized_displacement"] = np.stack([path.displacement for path in paths])
    return predicted, {name: values[0] for name, values in table.items()} if shared else table


def limit_trajectory(
    limit: Limit,
    data: Dataset,
    training: Training,
    learning_rate: float,
    key: Array,
    f0: Any = 0.0,
    f0_test: Any = 0.0,
    origin: Origin | None = None,
) -> Trajectory:
    """Return kernel descent with the infinite-width kernel and a member's batches, from the given initial outputs."""
    return kernel_descent(
        limit.spectrum if training.has_closed_form else limit.train,
        data.y_train,
        learning_rate=learning_rate,
        f0=f0,
        k_test=limit.test,
        f0_test=f0_test,
        origin=origin,
        **training.descent(key, data.n_train),
    )


def linearized_members(
    network: Network,
    data: Dataset,
    trained: Trained,
    keys: list,
    limit: Limit | None,
    training: Training,
    learning_rate: float,
    checkpoint: CellCheckpoint | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the predictions of the linearized members, and ||K_0 - K|| / ||K|| for each member.

    K_0 is the empirical kernel of a member at initialization, and K is the infinite-width kernel. The predictions have
    shape (members, snapshots, ...). If kernel descent can predict this kind of training and K_0 is small, the
    predictions are computed by kernel descent with K_0. Otherwise, the linearized network itself is trained, which
    takes longer.
    """
    size, members = data.y_train.size, range(len(keys))
    descend = training.followed and size <= LARGEST_EIGENPROBLEM
    rows = np.concatenate([data.x_train, data.x_test]) if descend else data.x_train
    # With a single output, the kernel equals its average over outputs.
    outputs: Literal["all", "average"] = "all" if descend and data.outputs > 1 else "average"

    def kernel(i: int) -> np.ndarray:
        variables = jax.tree.map(lambda leaf: leaf[i], trained.variables_0)
        return empirical_ntk(network, variables, rows, data.x_train, outputs=outputs)

    def predicted(member: tuple[int, np.ndarray]) -> tuple[Trajectory | None, float]:
        i, k = member
        f0, origin = starts(network, trained, i), origin_of(network, data, trained, i, training)
        path = _own_descent(k, data, *f0, training, keys[i], learning_rate, origin) if descend else None
        k = k[: data.n_train]
        average = k if outputs == "average" else np.einsum("icjc->ij", k) / data.outputs
        return path, np.nan if limit is None else limit.distance(average)

    # Small kernels are processed in parallel with one thread each. Large kernels are processed one at a time, and each
    # uses all threads.
    at_once = (os.cpu_count() or 1) if descend and size <= EXACT else 1
    results: list[tuple[Trajectory | None, float]] = []
    with narrow_products(size):
        for first in range(0, len(members), at_once):
            results += in_threads(predicted, [(i, kernel(i)) for i in members[first : first + at_once]])
    paths, errors = zip(*results, strict=True)
    if not descend:
        polynomial = Linearized(network)
        predictions = train_polynomials(polynomial, data, trained, keys, training, learning_rate, checkpoint)
        return predictions, np.array(errors)
    predictions = {
        "train_prediction": np.stack([path.train for path in paths]),
        "test_prediction": np.stack([path.test for path in paths]),
    }
    return predictions, np.array(errors)


def starts(network: Network, trained: Trained, member: int) -> tuple[Any, Any]:
    """Return a member's initial predictions on the training and test sets, or (0, 0) if all of them are zero."""
    if traits(network).starts_at_zero:
        return 0.0, 0.0
    return trained.records["train_prediction"][member, 0], trained.records["test_prediction"][member, 0]


def origin_of(network: Network, data: Dataset, trained: Trained, member: int, training: Training) -> Origin | None:
    """Return what weight decay needs to know of a member's initial parameters, or None without weight decay."""
    if not training.decays:
        return None
    variables = jax.tree.map(lambda leaf: leaf[member], trained.variables_0)
    rows = network_rows(np.concatenate([data.x_train, data.x_test]), "float32")
    outputs = np.asarray(_along_parameters(network, variables, rows), np.float64)
    return Origin(outputs[: data.n_train], outputs[data.n_train :], float(parameter_norm(variables["params"])))


@compiled(static_argnames="network")
def _along_parameters(network: Network, variables: Variables, x: Array) -> Array:
    """Return the derivative of the outputs along the parameters."""
    fixed = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return jax.jvp(lambda params: network.apply({**fixed, "params": params}, x), (params,), (params,))[1]


def _own_descent(
    k: np.ndarray,
    data: Dataset,
    f0: Any,
    f0_test: Any,
    training: Training,
    key: Array,
    learning_rate: float,
    origin: Origin | None,
) -> Trajectory:
    """Return kernel descent with a member's own kernel K_0 and batches.

    K_0 is the empirical kernel at initialization, evaluated between all rows (training rows followed by test rows) and
    the training rows. Its shape is (n + n_test, k, n, k), or (n + n_test, n) if there is only one output.
    """
    if data.y_train.ndim == 2 and k.ndim == 2:
        k = k[:, None, :, None]
    return kernel_descent(
        k[: data.n_train],
        data.y_train,
        learning_rate=learning_rate,
        f0=f0,
        k_test=k[data.n_train :],
        f0_test=f0_test,
        origin=origin,
        **training.descent(key, data.n_train),
    )
