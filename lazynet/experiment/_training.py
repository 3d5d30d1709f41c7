"""Training and measurement settings for a study, which are validated before any work starts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazynet.arguments import check_choice, check_count, check_instance
from lazynet.arrays import input_dtype
from lazynet.data import Dataset, is_labels
from lazynet.experiment._measure import Measure, OwnMeasures, examples
from lazynet.kernels import FACTORED
from lazynet.losses import Loss, get_loss, squared
from lazynet.measures import registered
from lazynet.networks import Network, Scale, check_scale, traits
from lazynet.plan import MOST
from lazynet.precision import float64
from lazynet.training import (
    NEVER,
    AnyOptimizer,
    Optimizer,
    Stop,
    UpdateRule,
    batch_key,
    batch_order_of,
    check_rule,
    choose_stepper,
    get_optimizer,
    has_default_rate,
    is_followed,
    is_plain_descent,
    snapshot_steps,
)

# By default, there are at least DEFAULT_SNAPSHOTS snapshots, and the ratio of successive snapshot steps is at most
# about LARGEST_RATIO.
DEFAULT_SNAPSHOTS, LARGEST_RATIO = 20, 1.5
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Training:
    """The settings used to train and measure every member.

    Attributes:
        steps: Number of steps.
        snapshots: Number of log-spaced snapshots, or the steps at which to take snapshots.
        loss: The loss.
        optimizer: A `lazynet.Optimizer` or a function of the learning rate.
        batch_size: Number of examples in a batch, or None for the full batch.
        dtype: "float32" or "float64".
        stop: When to stop a member before its last step, or None to never stop early.
        measure: What to measure.
    """

    steps: int
    snapshots: int | tuple[int, ...]
    loss: Loss
    optimizer: UpdateRule
    batch_size: int | None
    dtype: str
    stop: Stop | None
    measure: Measure

    @property
    def plain(self) -> bool:
        """True for plain full-batch gradient descent on the squared loss."""
        return is_plain_descent(self.loss, self.optimizer, self.batch_size)

    @property
    def followed(self) -> bool:
        """True if kernel descent can predict the outcome."""
        return is_followed(self.optimizer)

    def predicts_limit(self, n: int) -> bool:
        """Return whether there is an infinite-width prediction; without a closed form, the kernel must not be large.

        Args:
            n: Number of training examples.

        Returns:
            Whether there is a prediction.
        """
        return self.has_closed_form or (self.followed and n <= FACTORED)

    @property
    def ridge(self) -> float:
        """Coefficient of the ridge penalty, or 0 for an optimizer that is not a `lazynet.Optimizer`."""
        return self.optimizer.ridge if isinstance(self.optimizer, Optimizer) else 0.0

    @property
    def largest_rate(self) -> float | None:
        """Largest stable product of the learning rate and lambda_max + ridge, or None without a closed form."""
        if not self.has_closed_form:
            return None
        assert isinstance(self.optimizer, Optimizer)
        return 2 * (1 + self.optimizer.momentum)

    @property
    def has_closed_form(self) -> bool:
        """True if kernel descent predicts the outcome in closed form."""
        full_batch = self.loss == squared() and self.batch_size is None
        stepwise = any(getattr(self.optimizer, name, None) for name in ("nesterov", "weight_decay"))
        return self.followed and full_batch and not stepwise

    @property
    def decays(self) -> bool:
        """True if weight decay pulls the parameters toward zero."""
        return bool(isinstance(self.optimizer, Optimizer) and self.optimizer.weight_decay)

    def descent(self, key: jax.Array, n: int) -> dict[str, Any]:
        """Return the arguments of `lazynet.kernel_descent` that describe how a member is trained.

        Args:
            key: Random key of the member.
            n: Number of training examples.

        Returns:
            The arguments, keyed by name, except for the kernel, the targets, the learning rate and the initial outputs.
        """
        optimizer = self.optimizer
        assert isinstance(optimizer, Optimizer)
        settings = {"loss": self.loss, "momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
        settings |= {"ridge": optimizer.ridge, "steps": self.snapshot_steps}
        settings |= {"weight_decay": optimizer.weight_decay or 0.0}
        if self.batch_size is None:
            return settings
        return settings | {"batches": batch_order_of(batch_key(key), n, self.batch_size, self.steps)}

    @property
    def is_flow(self) -> bool:
        """Whether training is gradient flow."""
        return isinstance(self.optimizer, Optimizer) and self.optimizer.is_flow

    @property
    def snapshot_steps(self) -> np.ndarray:
        """The steps at which members are measured."""
        return snapshot_steps(self.steps, self.snapshots)

    def alone(self) -> "Training":
        """Return a copy of the settings for a single network, without predictions.

        Returns:
            The copy.

        Raises:
            ValueError: If `measure.quadratic`, `measure.forecast` or `measure.regression` is True, because these
                require a sweep.
        """
        for name in ("quadratic", "forecast", "regression"):
            if getattr(self.measure, name):
                raise ValueError(f"measure.{name} must be False for a single network, got True.")
        return replace(self, measure=replace(self.measure, predictions=False))

    def check(self, network: Network, data: Dataset, learning_rate: Scale | None) -> None:
        """Check that the network can be trained and measured on the data with these settings.

        Args:
            network: Network, with its width set.
            data: Training and test sets.
            learning_rate: Learning rate eta, as a number or a function of the width, or None for the default.

        Raises:
            ValueError: If an argument is invalid. The message states the allowed values.
        """
        check_count("width", network.width)
        self.check_steps()
        check_choice("dtype", self.dtype, DTYPES)
        self._check_dtype(network, data)
        self._check_batch_size(data)
        self._check_outputs(network, data)
        if learning_rate is None and self.loss != squared():
            raise ValueError(
                f"learning_rate must be given for the {self.loss.name} loss, got None. This loss has no default "
                "learning rate."
            )
        if learning_rate is None and not has_default_rate(self.optimizer):
            name = repr(self.optimizer.name) if isinstance(self.optimizer, Optimizer) else "a function"
            raise ValueError(
                f"learning_rate must be given if optimizer is {name}, got None. The default, 1 / lambda_max, is meant "
                "for gradient descent."
            )
        if learning_rate is not None:
            check_scale("learning_rate", learning_rate, network.width)
        if not isinstance(self.optimizer, Optimizer):
            check_rule(self.optimizer)
        if isinstance(self.optimizer, Optimizer) and self.optimizer.stepper != "auto":
            choose_stepper(network, self.loss, self.optimizer, self.batch_size, data.x_train)
        self._check_flow()
        self._check_stop()
        self._check_measure(data, learning_rate)
        self.own_shapes(network, data)

    @property
    def own_measures(self) -> OwnMeasures:
        """The user-supplied and registered quantities, as (name, function) pairs."""
        return (*self.measure.own.items(), *((quantity.name, quantity.measured) for quantity in registered()))

    def own_shapes(self, network: Network, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Determine the shapes of all user-supplied quantities without computing them.

        Args:
            network: Network, with its width set.
            data: Training and test sets.

        Returns:
            The shape of each quantity, keyed by name.

        Raises:
            ValueError: If JAX cannot trace a measurement function, or if a function does not return one array of real
                numbers.
        """
        data = self.measured_data(data)
        arrays = {"x": data.x_train, "y": data.y_train, "x_test": data.x_test, "y_test": data.y_test}
        shared = {name: jax.ShapeDtypeStruct(a.shape, input_dtype(a, "float32")) for name, a in arrays.items()}
        shapes = {}
        for name, function in self.own_measures:
            label = f"measure.own[{name!r}]" if name in self.measure.own else f"measure of the quantity {name!r}"

            def measured(key: Any, shared: dict[str, Any], function: Callable[..., Any] = function) -> Any:
                variables = dict(network.init(key, shared["x"]))
                return function(network, variables, variables, examples(shared))

            try:
                result = jax.eval_shape(measured, jax.random.key(0), shared)
            except Exception as error:
                reason = str(error).partition("\n")[0]
                if reason.startswith(label):
                    # A registered `Quantity` raised this error because its function returned an array with the wrong
                    # number of axes.
                    raise
                raise ValueError(
                    f"{label} must be a function that JAX can trace, but tracing failed: {reason}"
                ) from error
            kind = getattr(result, "dtype", None)
            if kind is None or not any(jnp.issubdtype(kind, real) for real in (jnp.floating, jnp.integer, jnp.bool_)):
                raise ValueError(f"{label} must return one array of real numbers, got {result}.")
            shapes[name] = result.shape
        return shapes

    def measured_data(self, data: Dataset) -> Dataset:
        """Return the data, keeping only the training examples on which networks are measured.

        Args:
            data: Training and test sets.

        Returns:
            The data with the first `measure.rows` training examples, or all of them if `measure.rows` is None.
        """
        rows = self.measure.rows
        if rows is None:
            return data
        return replace(data, x_train=data.x_train[:rows], y_train=data.y_train[:rows])

    def _check_dtype(self, network: Network, data: Dataset) -> None:
        if self.dtype != "float64" or not traits(network).custom:
            return
        with float64():
            row = jax.ShapeDtypeStruct((1, data.dim), input_dtype(data.x_train, "float64"))
            try:
                jax.eval_shape(lambda key, x: network.apply(dict(network.init(key, x)), x), jax.random.key(0), row)
            except (TypeError, jax.dtypes.TypePromotionError) as error:
                raise ValueError(
                    "dtype must be 'float32' for a network that fails in float64, got 'float64'. A network may fail in "
                    "float64 if, for example, it contains float32 arrays. The error was: "
                    f"{str(error).splitlines()[0]}"
                ) from error

    def _check_batch_size(self, data: Dataset) -> None:
        size = self.batch_size
        is_count = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if size is not None and not (is_count and 1 <= size <= data.n_train):
            raise ValueError(f"batch_size must be an integer from 1 to n_train = {data.n_train}, got {size}.")

    def _check_outputs(self, network: Network, data: Dataset) -> None:
        if network.outputs != data.outputs:
            raise ValueError(
                f"network.outputs must be {data.outputs}, got {network.outputs}. It must equal the number of targets "
                "per example."
            )
        self.loss.check_targets(data.y_train, "y_train")
        if data.n_test:
            self.loss.check_targets(data.y_test, "y_test")

    def check_steps(self) -> None:
        """Check the number of steps and the snapshots.

        Raises:
            ValueError: If either is invalid.
        """
        check_count("steps", self.steps, most=NEVER - 1)
        if not isinstance(self.snapshots, tuple):
            check_count("snapshots", self.snapshots, most=MOST)
            return
        wrong = [step for step in self.snapshots if type(step) is not int or not 0 <= step <= self.steps]
        if wrong:
            raise ValueError(f"each step in snapshots must be an integer from 0 to {self.steps}, got {wrong[0]!r}.")

    def _check_flow(self) -> None:
        if not self.is_flow:
            return
        # Gradient flow has no fixed step size, so the predictions and the stability limit do not apply.
        refused = {"batch_size": self.batch_size is not None}
        refused |= {f"measure.{name}": getattr(self.measure, name) for name in ("predictions", "sharpness")}
        for name, is_set in refused.items():
            if is_set:
                allowed = "None" if name == "batch_size" else "False"
                value = self.batch_size if name == "batch_size" else True
                raise ValueError(f"{name} must be {allowed} for the optimizer 'flow', got {value}.")

    def _check_stop(self) -> None:
        if not isinstance(self.stop, Stop | None):
            raise ValueError(f"stop must be a lazynet.Stop or None, got {self.stop!r}.")
        stop = self.stop or Stop()
        for name in ("loss", "gradient"):
            value = getattr(stop, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"stop.{name} must be positive and finite, got {value}.")
        if stop.plateau is not None:
            check_count("stop.plateau", stop.plateau)

    def _check_measure(self, data: Dataset, learning_rate: Scale | None) -> None:
        measure = self.measure
        if measure.forecast and not self.plain:
            raise ValueError(
                "measure.forecast must be False unless networks are trained by plain full-batch gradient descent on "
                "the squared loss, got True."
            )
        if measure.regression and not (data.n_test and is_labels(data.y_train)):
            raise ValueError(
                "measure.regression = True requires test examples, and targets that are labels (+1 or -1, or one-hot "
                "rows minus 1/k)."
            )
        if measure.rows is None:
            return
        if measure.rows > data.n_train:
            raise ValueError(f"measure.rows must be at most n_train = {data.n_train}, got {measure.rows}.")
        if measure.regression:
            raise ValueError(f"measure.rows must be None if measure.regression is True, got {measure.rows}.")
        if measure.predictions:
            raise ValueError(
                f"measure.rows must be None if measure.predictions is True, got {measure.rows}. The predictions need "
                "the kernel on all training examples."
            )
        if learning_rate is None:
            raise ValueError(
                "learning_rate must be given if measure.rows is set, got None. The default learning rate needs the "
                "kernel on all training examples."
            )


def make_training(
    steps: int,
    *,
    loss: str | Loss = "squared",
    optimizer: AnyOptimizer = "sgd",
    batch_size: int | None = None,
    snapshots: int | Sequence[int] | np.ndarray | None,
    stop: Stop | None = None,
    measure: Measure | None = None,
    dtype: str,
) -> Training:
    """Build the training settings from the arguments of a study.

    Args:
        steps: Number of training steps.
        loss: "squared", "logistic", "softmax", "hinge" or a `lazynet.losses.Loss`.
        optimizer: Name of an optimizer, a `lazynet.Optimizer`, or a function of the learning rate that returns an optax
            optimizer.
        batch_size: Number of examples per step. Defaults to the full batch.
        snapshots: Number of log-spaced snapshots, a sequence of the steps at which to take snapshots, or None for the
            default: at least 20 snapshots, and enough that successive snapshot steps differ by a factor of at most
            about 1.5.
        stop: Conditions under which a member stops before its last step. Defaults to no early stopping.
        measure: What to measure. Defaults to `Measure()`.
        dtype: Dtype in which networks are trained, "float32" or "float64".

    Returns:
        The settings. Settings that depend on the network and the data are checked later, by `Training.check`.

    Raises:
        ValueError: If `loss`, `optimizer` or `measure` is invalid, or if `snapshots` is None and `steps` is not a
            positive integer.
    """
    if measure is not None:
        check_instance("measure", measure, Measure)
    return Training(
        steps,
        _snapshots(snapshots, steps),
        get_loss(loss),
        get_optimizer(optimizer),
        batch_size,
        dtype,
        stop,
        measure or Measure(),
    )


def _snapshots(snapshots: Any, steps: Any) -> Any:
    """Return the number of snapshots or, if their steps are given, the steps as a tuple of Python integers."""
    if snapshots is None:
        check_count("steps", steps, most=NEVER - 1)
        return max(DEFAULT_SNAPSHOTS, 1 + math.ceil(math.log(steps) / math.log(LARGEST_RATIO)))
    if isinstance(snapshots, np.ndarray | np.generic):
        snapshots = snapshots.tolist()
    if isinstance(snapshots, list | tuple | range):
        return tuple(step.item() if isinstance(step, np.generic) else step for step in snapshots)
    return snapshots
