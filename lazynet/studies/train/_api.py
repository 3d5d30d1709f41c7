"""`lazynet.train`: train one network and measure it during training."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from lazynet.arguments import check_key
from lazynet.data import Dataset
from lazynet.display import displayed
from lazynet.execution import check_same_on_all_hosts
from lazynet.experiment import (
    Measure,
    MemberStatus,
    Training,
    as_json,
    check_inputs,
    check_memory_of_kernels,
    default_learning_rate,
    fingerprint,
    make_training,
    network_variables,
    outcome,
    share_inputs,
    sweep_settings,
    train_members,
)
from lazynet.hosts import several, together, working
from lazynet.losses import Loss
from lazynet.measures import label_result
from lazynet.networks import GivenNetwork, Network, Scale, at_width, check_params, with_start
from lazynet.programs import entry
from lazynet.training import AnyOptimizer, Stop
from lazynet.typing import Result, Variables


@displayed
class Run(NamedTuple):
    """A trained network and its measurements.

    Attributes:
        variables: The variables after the last step.
        variables_0: The variables at initialization.
        snapshots: An `xarray.Dataset` with the dimension `step` and the variables train_loss, test_loss, train_error,
            test_error, residual_norm, displacement, relative_displacement, max_neuron_displacement, activation_flips,
            kernel_drift, stopped_step, and the predictions train_prediction and test_prediction. Its attribute
            `settings` contains the settings as JSON.
        status: "finished", "diverged" or "stopped".

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> bool(run.snapshots.train_loss[-1] < run.snapshots.train_loss[0])
    True
    """

    variables: Variables
    variables_0: Variables
    snapshots: Result
    status: str


def train(
    network: GivenNetwork,
    data: Dataset,
    key: Array,
    steps: int = 1000,
    *,
    learning_rate: Scale | None = None,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    snapshots: int | Sequence[int] | np.ndarray | None = None,
    stop: Stop | None = None,
    measure: Measure | None = None,
    dtype: str = "float32",
    variables: Variables | None = None,
) -> Run:
    """Train one network and measure it during training.

    Args:
        network: The network.
        data: The training and test examples.
        key: A JAX random key. In a sweep, the key for a given width and seed is `lazynet.member_key(width, seed)`.
        steps: Number of training steps.
        learning_rate: Learning rate eta, either a number or a function of the width. Defaults to 1 / lambda_max of the
            analytic kernel, or of the empirical kernel at initialization if there is no analytic kernel. There is a
            default only for the squared loss and the optimizers "sgd" and "flow".
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: The name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an
            optax optimizer.
        batch_size: Number of examples per batch; defaults to the full batch.
        snapshots: Number of log-spaced snapshots, or a list of the steps at which to take them. Step 0 and the last
            step are always included. By default, there are at least 20 snapshots, and each snapshot's step is at most
            1.5 times the previous snapshot's step, up to rounding.
        stop: Criteria for stopping training before the last step.
        measure: What to measure. The options predictions, quadratic and regression are available only in sweeps.
        dtype: Dtype used for training, "float32" or "float64".
        variables: Variables from which training starts, such as the final variables of an earlier run. By default,
            `network.init` draws them.

    Returns:
        A `Run`. Its measurements are float64, regardless of `dtype`.

    Raises:
        ValueError: If an argument is invalid. The error is raised before any work starts.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10)
    >>> run.status
    'finished'
    """
    if variables is not None:
        check_params(variables)
        network = with_start(network, lambda key, width: variables)
    check_key(key)
    training = make_training(
        steps,
        loss=loss,
        optimizer=optimizer,
        batch_size=batch_size,
        snapshots=snapshots,
        stop=stop,
        measure=measure,
        dtype=dtype,
    )
    return _trained(network, data, key, training.alone(), learning_rate)


@entry
def _trained(network: Network, data: Dataset, key: Array, training: Training, learning_rate: Scale | None) -> Run:
    """Train a network after checking that it can be trained and measured with these settings."""
    import xarray

    with together():
        data = check_inputs(network, data)
        training.check(network, data, learning_rate)
        check_memory_of_kernels(network, data, training)
        if learning_rate is None:
            learning_rate = default_learning_rate(network, data, key, ridge=training.ridge)
        rate = at_width(learning_rate, network.width)
        shared = share_inputs(network, data, training, by_span=False)
    settings = sweep_settings(network, data, training) | {"width": network.width, "learning_rate": rate}
    if several():
        start = {
            "data": fingerprint(data.x_train, data.y_train, data.x_test, data.y_test),
            "key": np.asarray(jax.random.key_data(key)).tolist(),
        }
        check_same_on_all_hosts("train", as_json(settings | start))
    with working():
        trained = train_members(network, data, [key], training, rate, shared)
    measured, diverged_at = network_variables(network, data, trained, training)
    table: dict[str, tuple[Any, np.ndarray]] = {}
    for name, values in measured.items():
        table[name] = (("step", *(f"{name}_dim_{i}" for i in range(values.ndim - 2))), values[0])
    for name in ("train_prediction", "test_prediction"):
        values = trained.records[name][0]
        table[name] = (("step", name.replace("prediction", "example"), "output")[: values.ndim], values)
    status, stopped = outcome(diverged_at, trained.stopped_at, training.steps)
    table["stopped_step"] = ((), stopped[0])
    result = xarray.Dataset(table, coords={"step": training.snapshot_steps}, attrs={"settings": as_json(settings)})
    label_result(result, "train")
    return Run(
        jax.tree.map(lambda leaf: leaf[0], trained.variables),
        jax.tree.map(lambda leaf: leaf[0], trained.variables_0),
        result,
        MemberStatus(status[0]).name.lower(),
    )
