"""`lz.train`: one network, measured on the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from lazynet.data import Dataset
from lazynet.experiment._cell import network_variables
from lazynet.experiment._limits import default_learning_rate
from lazynet.experiment._members import train_members
from lazynet.experiment._record import as_json, sweep_settings
from lazynet.experiment._result import MemberStatus, outcome
from lazynet.experiment._shared_inputs import prepare
from lazynet.experiment._spec import Training, as_snapshots, named
from lazynet.losses import Loss, get_loss
from lazynet.networks import Scale, at_width, check_network
from lazynet.training import Stop
from lazynet.typing import Variables


class Run(NamedTuple):
    """One trained network.

    Attributes:
        variables: its variables after the last step.
        variables_0: its variables at the start.
        snapshots: `xarray.Dataset` over `step`: train_loss, test_loss, train_error, test_error, residual_norm,
            displacement, relative_displacement, max_neuron_displacement, activation_flips, kernel_drift, and the
            predictions train_prediction and test_prediction; the attribute `settings` is how it was trained, as JSON.
        status: "finished", "diverged" or "stopped".

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> bool(run.snapshots.train_loss[-1] < run.snapshots.train_loss[0])
    True
    """

    variables: Variables
    variables_0: Variables
    snapshots: Any
    status: str


def train(
    network: Any,
    data: Dataset,
    key: Array,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: str | Callable = "sgd",
    batch_size: int | None = None,
    snapshots: int | Sequence[int] | np.ndarray = 20,
    dtype: str = "float32",
    stepper: str = "auto",
    stop: Stop | None = None,
    measures: Mapping[str, Callable] | None = None,
    sharpness: bool = False,
    measured: int | None = None,
) -> Run:
    """Train one network and measure it on the way.

    Args:
        network: what to train.
        data: on what.
        key: a jax random key; the member (width, seed) of a sweep has fold_in(fold_in(key(0), width), seed).
        steps: number of steps.
        learning_rate: eta, a number or a function of the width; left out, 1 / lambda_max of the analytic kernel,
            or of the empirical one at the start where there is none (squared loss only).
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: "sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop", "lion", a function of the
            learning rate that returns an optax optimizer, or "flow" for full-batch gradient flow: Euler steps as long
            as they lower the loss and move no training output by more than 1% of the RMS of the targets (Geiger et al.
            2019), with the first that is tried the learning rate. `time` is then measured too.
        batch_size: examples to a batch; all of them when left out.
        snapshots: about how many log-spaced snapshots to take, or the steps at which to take them; the first and the
            last step are always among them.
        dtype: "float32" or "float64".
        stepper: "auto" takes the quickest way of computing the same numbers; "autodiff", "hidden", "preactivation" and
            "delayed" force one.
        stop: when to stop before the last step.
        measures: more of them by name, each a function (variables, variables_0, data) -> array that JAX can trace, of
            variables now and at the start and of a `Dataset` of traced arrays.
        sharpness: whether to measure the largest eigenvalue of the empirical kernel of all outputs, and beside it
            learning_rate_over_stability_limit, the learning rate over 2 / sharpness; plain descent on the squared loss is stable
            where it is below 1.
        measured: how many of the training examples, from the first on, measures look at; all of them when left out.
            train_loss and the like are then those of these examples.

    Returns:
        Run; measures are float64 whatever the dtype of training.

    Raises:
        ValueError: if an argument is not as described, before any work starts.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> run.status
    'finished'
    """
    import xarray

    training = Training(
        steps,
        as_snapshots(snapshots),
        get_loss(loss),
        optimizer,
        batch_size,
        dtype,
        stepper,
        stop,
        named(measures),
        sharpness,
        compare=False,
        measured=measured,
    )
    check_network(network, data.x_train)
    training.check(network, data, learning_rate)
    if learning_rate is None:
        learning_rate = default_learning_rate(network, data, key)
    rate = at_width(learning_rate, network.width)
    trained = train_members(network, data, [key], training, rate, prepare(network, data, training, by_span=False))
    variables, diverged_at = network_variables(network, data, trained, training)
    table: dict[str, tuple] = {}
    for name, values in variables.items():
        table[name] = (("step", *(f"{name}_dim_{i}" for i in range(values.ndim - 2))), values[0])
    for name in ("train_prediction", "test_prediction"):
        values = trained.records[name][0]
        table[name] = (("step", name.replace("prediction", "example"), "output")[: values.ndim], values)
    settings = sweep_settings(network, data, training, width=network.width, learning_rate=rate, plain=training.plain)
    status, stopped = outcome(diverged_at, trained.stopped_at, steps)
    table["stopped_step"] = ((), stopped[0])
    return Run(
        jax.tree.map(lambda leaf: leaf[0], trained.variables),
        jax.tree.map(lambda leaf: leaf[0], trained.variables_0),
        xarray.Dataset(table, coords={"step": training.snapshot_steps}, attrs={"settings": as_json(settings)}),
        MemberStatus(status[0]).name.lower(),
    )
