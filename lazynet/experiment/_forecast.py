"""Forecasts of training from initial weights alone: no network is trained.

The linearized network at step k has known parameters theta_lin(k) = theta_0 + J' c(k), where J is the Jacobian on the
training set at initialization and f_lin(k) = f_0 + K_0 c(k). The kernel K(k) of the network at these parameters is an
approximation of the kernel of the trained network, so the outputs of the trained network are forecast by kernel descent
with a kernel that changes, f(k + 1) = f(k) - eta K(k + 1/2) (f(k) - y). Between snapshots, K(k) is interpolated
linearly.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.dynamics import kernel_descent
from lazynet.experiment._members import Trained
from lazynet.experiment._predictions import LARGEST_EIGENPROBLEM
from lazynet.experiment._scores import gaps_between
from lazynet.experiment._training import Training
from lazynet.kernels import empirical_ntk
from lazynet.measures import (
    FORECAST,
    displacement,
    max_neuron_displacement,
    parameter_norm,
    relative_distance,
    sign_changes,
)
from lazynet.networks import Network, traits
from lazynet.programs import compiled
from lazynet.typing import Variables


def forecast_members(
    network: Network,
    data: Dataset,
    training: Training,
    rate: float,
    trained: Trained,
    linear: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Return forecasts for trained members, to be compared with their measurements.

    Args:
        network: Network with the same width as the members.
        data: Training and test sets.
        training: Settings used to train and measure the members.
        rate: Learning rate eta.
        trained: Trained members, of which only the initial variables are used.
        linear: Predictions of the linearized members.
        predicted: Predictions of the infinite-width kernel, or None if there is no analytic kernel.

    Returns:
        Arrays of shape (members, step), whose names consist of "forecast_" and the name of the measured quantity.
    """
    members = range(len(trained.diverged_at))
    starts = [jax.tree.map(lambda leaf, i=i: leaf[i], trained.variables_0) for i in members]
    tables = [forecast_member(network, data, training, rate, variables) for variables in starts]
    table = {name: np.stack([each[name] for each in tables]) for name in tables[0] if name != "kernel"}
    # The stored weights may be coordinates in the span of the inputs, whose norm is too small, so take ||theta_0|| from
    # the measurements.
    moved, relative = (trained.records[name][:, -1:] for name in ("displacement", "relative_displacement"))
    with np.errstate(invalid="ignore", divide="ignore"):
        table["relative_displacement"] = table["displacement"] * (relative / moved)
    table |= gaps_between("linearization_gap", table, linear, data)
    if predicted is not None:
        table |= gaps_between("kernel_gap", table, predicted, data)
    return {f"forecast_{name}": table[name] for name in FORECAST if name in table}


def forecast_member(
    network: Network, data: Dataset, training: Training, rate: float, variables: Variables
) -> dict[str, np.ndarray]:
    """Return the outputs of the linearization, and forecasts of the outputs and the movement, at each snapshot.

    Args:
        network: Network, with its width set.
        data: Training and test sets.
        training: Settings used to train and measure the network.
        rate: Learning rate eta.
        variables: Initial variables of the network.

    Returns:
        Arrays of shape (step, ...), keyed by name, and `kernel`, the average kernel on the training set at
        initialization.
    """
    n, steps, starts_at_zero = data.n_train, training.snapshot_steps, traits(network).starts_at_zero
    rows = np.concatenate([data.x_train, data.x_test])
    shape = (len(rows), *data.y_train.shape[1:])
    f0 = (
        np.zeros(shape)
        if starts_at_zero
        else np.asarray(_outputs(network, variables, network_rows(rows, "float32")), np.float64)
    )
    residual = (data.y_train - f0[:n]).reshape(-1)

    def kernel(at: Variables) -> np.ndarray:
        k = empirical_ntk(network, at, rows, data.x_train, outputs="all" if data.outputs > 1 else "average")
        return np.asarray(k, np.float64).reshape(-1, residual.size)

    k0, size = kernel(variables), residual.size
    # With the identity as the test kernel, the predictions on the test set are the coefficients c.
    method: Any = "exact" if size <= LARGEST_EIGENPROBLEM else None
    options = {"learning_rate": rate, "steps": steps, "method": method}
    descent = kernel_descent(k0[:size], residual, k_test=np.eye(size), **options)
    coefficients = np.asarray(descent.test)
    linear = f0.reshape(-1) + coefficients @ k0.T
    forecast, facts = [f0.reshape(-1)], traits(network)
    moved: dict[str, list[Any]] = {"displacement": [], "relative_displacement": [], "kernel_drift": []}
    x, norm = network_rows(data.x_train, "float32"), float(parameter_norm(variables["params"]))
    before = k0
    for i, c in enumerate(coefficients):
        at = _moved(network, variables, x, jnp.asarray(c.reshape(data.y_train.shape), "float32"))
        after = k0 if i == 0 else kernel(at)
        if i:
            first, last = map(int, steps[i - 1 : i + 1])
            forecast.append(_descended(forecast[-1], before, after, data.y_train.reshape(-1), rate, first, last))
        before = after
        far = float(displacement(at["params"], variables["params"]))
        moved["displacement"].append(far)
        moved["relative_displacement"].append(far / norm)
        moved["kernel_drift"].append(float(relative_distance(_average(after[:size], data), _average(k0[:size], data))))
        if facts.preactivations is not None:
            flips = sign_changes(facts.preactivations(at, x), facts.preactivations(variables, x))
            moved.setdefault("activation_flips", []).append(float(flips))
        if facts.neurons is not None:
            neurons = max_neuron_displacement(facts.neurons(at), facts.neurons(variables))
            moved.setdefault("max_neuron_displacement", []).append(float(neurons))
    table = {name: np.array(values) for name, values in moved.items()}
    for name, f in (("linear_", linear), ("", np.stack(forecast))):
        f = f.reshape(len(steps), *shape)
        table |= {f"{name}train_prediction": f[:, :n], f"{name}test_prediction": f[:, n:]}
    return table | {"kernel": _average(k0[:size], data)}


def _average(k: np.ndarray, data: Dataset) -> np.ndarray:
    """Return the average over outputs of a kernel on the training set with a row for each example and output."""
    if data.outputs == 1:
        return k
    n = data.n_train
    return np.einsum("icjc->ij", k.reshape(n, data.outputs, n, data.outputs)) / data.outputs


def _descended(
    f: np.ndarray, before: np.ndarray, after: np.ndarray, y: np.ndarray, rate: float, first: int, last: int
) -> np.ndarray:
    """Return the outputs at step `last`, given those at step `first`, for a kernel that changes linearly in between."""
    size = y.size
    for step in range(first, last):
        share = (step + 0.5 - first) / (last - first)
        residual = f[:size] - y
        f = f - rate * ((1 - share) * (before @ residual) + share * (after @ residual))
    return f


@compiled(static_argnames="network")
def _outputs(network: Network, variables: Variables, x: Array) -> Array:
    return network.apply(variables, x)


@compiled(static_argnames="network")
def _moved(network: Network, variables: Variables, x: Array, coefficients: Array) -> Variables:
    """Return the variables with the parameters theta_0 + J' c."""
    fixed = {name: value for name, value in variables.items() if name != "params"}
    _, pull = jax.vjp(lambda params: network.apply({**fixed, "params": params}, x), variables["params"])
    (movement,) = pull(coefficients)
    return {**fixed, "params": jax.tree.map(lambda start, change: start + change, variables["params"], movement)}
