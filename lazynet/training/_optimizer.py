"""Optimizers, each with a name and settings from which an optax transformation is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import PyTree

from lazynet.arguments import calls_of, check_choice, check_flag, check_number, described

# A function of the learning rate that returns an optax optimizer; an `Optimizer` is such a function.
UpdateRule = Callable[[float | Array], optax.GradientTransformation]

TRANSFORMATIONS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "lion": optax.lion,
}
# Gradient flow is not an optax transformation, because its step size depends on the outputs of the network.
FLOW = "flow"
# Names that `Optimizer` accepts.
OPTIMIZERS = (*TRANSFORMATIONS, FLOW)
# Optimizers whose weight decay is decoupled from the gradient.
DECOUPLED = ("adamw", "lion")
STEPPERS = ("auto", "autodiff", "hidden", "preactivation", "delayed")


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its settings.

    The learning rate is a separate argument of `lazynet.train` and `lazynet.sweep`.

    Args:
        name: "sgd", "adam", "adamw", "adagrad", "rmsprop", "lion", or "flow" for full-batch gradient flow. Gradient
            flow takes Euler steps that lower the loss and move no training output by more than 1% of the RMS of the
            targets (Geiger et al. 2019). The learning rate is the size of the first step, and results include the
            `time` along the flow.
        momentum: Factor mu in v <- mu v + grad L, theta <- theta - eta v, with 0 <= mu < 1. Allowed only for "sgd".
        nesterov: Whether to use Nesterov momentum. Requires a positive `momentum`.
        weight_decay: Factor w in the term w theta that is added to the gradient before the momentum is applied. For
            "adamw" and "lion", weight decay is decoupled from the gradient. Defaults to 1e-4 for "adamw", to 1e-3 for
            "lion" and to 0 for other optimizers.
        ridge: Coefficient beta of the penalty 1/2 beta ||theta - theta_0||^2, which pulls the parameters toward their
            initial values. The penalty is added to the sum of the losses over examples, or to their mean if the loss is
            a mean. It is not rescaled in mini-batches, and recorded losses do not include it. Its gradient is added
            before momentum is applied. Not allowed for "flow".
        schedule: Function that maps the step number to a factor that multiplies the learning rate; JAX must be able to
            trace the function.
        stepper: Algorithm that computes a step: "auto" for the fastest algorithm, or "autodiff", "hidden",
            "preactivation" or "delayed". All algorithms agree up to rounding error.

    Raises:
        ValueError: If an argument is invalid.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> heavy = lz.Optimizer("sgd", momentum=0.9)
    >>> lz.train(lz.TwoLayer(width=64), data, jax.random.key(0), steps=10, optimizer=heavy).status
    'finished'
    """

    name: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float | None = None
    ridge: float = 0.0
    schedule: Callable[[Array], Array] | None = None
    stepper: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("name", self.name, OPTIMIZERS)
        check_choice("stepper", self.stepper, STEPPERS)
        check_number("momentum", self.momentum, below=1.0)
        check_flag("nesterov", self.nesterov)
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay)
        check_number("ridge", self.ridge)
        if self.schedule is not None and not callable(self.schedule):
            raise ValueError(f"schedule must be a function of the step, got {self.schedule!r}.")
        if self.momentum and self.name != "sgd":
            raise ValueError(
                f"momentum must be 0 for the optimizer {self.name!r}, got {self.momentum}. Only 'sgd' accepts momentum."
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov must be False if momentum is 0, got True.")
        if self.name == FLOW:
            for setting in ("weight_decay", "ridge", "schedule"):
                if getattr(self, setting):
                    raise ValueError(
                        f"{setting} must be omitted for the optimizer 'flow', got {getattr(self, setting)!r}."
                    )
            if self.stepper != "auto":
                raise ValueError(f"stepper must be 'auto' for the optimizer 'flow', got {self.stepper!r}.")

    @property
    def is_flow(self) -> bool:
        """True for gradient flow, which has its own stepper."""
        return self.name == FLOW

    @property
    def is_descent(self) -> bool:
        """True if every step is theta <- theta - eta grad L with a constant eta."""
        return self.is_linear and not self.momentum and not self.ridge and not self.weight_decay

    @property
    def is_linear(self) -> bool:
        """True for gradient descent at a constant rate, possibly with momentum, a ridge and weight decay."""
        return self.name == "sgd" and self.schedule is None

    def __call__(self, learning_rate: float | Array) -> optax.GradientTransformation:
        """Return the optax transformation for a given learning rate."""
        rate: Any = learning_rate
        if self.schedule is not None:
            schedule = self.schedule
            rate = lambda step: learning_rate * schedule(step)  # noqa: E731
        settings: dict[str, Any] = {}
        if self.momentum:
            settings |= {"momentum": self.momentum, "nesterov": self.nesterov}
        if self.weight_decay is not None and self.name in DECOUPLED:
            settings["weight_decay"] = self.weight_decay
        transformation = TRANSFORMATIONS[self.name](rate, **settings)
        parts = [transformation]
        if self.weight_decay and self.name not in DECOUPLED:
            parts.insert(0, optax.add_decayed_weights(self.weight_decay))
        if self.ridge:
            parts.insert(0, _pull_to_start(self.ridge))
        return optax.chain(*parts) if len(parts) > 1 else transformation


def _pull_to_start(ridge: float) -> optax.GradientTransformation:
    """Return a transformation that adds ridge (theta - theta_0) to the gradient."""

    def init(params: PyTree) -> PyTree:
        return jax.tree.map(jnp.copy, params)

    def update(gradient: PyTree, start: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        return jax.tree.map(lambda g, now, then: g + ridge * (now - then), gradient, params, start), start

    return optax.GradientTransformation(init, update)


def has_default_rate(optimizer: UpdateRule) -> bool:
    """Return whether 1 / lambda_max is a sensible learning rate for an optimizer.

    Args:
        optimizer: `Optimizer` or another function of the learning rate.

    Returns:
        True for an `Optimizer` named "sgd" or "flow", because its steps scale with the gradient.
    """
    return isinstance(optimizer, Optimizer) and optimizer.name in ("sgd", FLOW)


def check_rule(optimizer: UpdateRule) -> None:
    """Check that a user's function returns an optax optimizer that needs only gradients and parameters.

    Args:
        optimizer: Function of the learning rate.

    Raises:
        ValueError: If the function does not return an optax optimizer, or if the optimizer needs more arguments, such
            as the value of the loss for a line search.
    """
    with calls_of("optimizer"):
        rule = optimizer(0.1)
    if not (hasattr(rule, "init") and hasattr(rule, "update")):
        raise ValueError(f"optimizer must return an optax optimizer, got {described(rule)}.")
    weights = {"w": jax.ShapeDtypeStruct((2,), "float32")}
    try:
        # optax relies on dtype and rank promotion, which the user may have disabled.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            jax.eval_shape(lambda w: rule.update(w, rule.init(w), w), weights)
    except TypeError as error:
        raise ValueError(
            f"optimizer must return an optax optimizer that needs only gradients and parameters, but a test failed: "
            f"{str(error).splitlines()[0]}"
        ) from error


# What a user may pass as an optimizer: its name, an `Optimizer`, or another update rule.
AnyOptimizer = str | Optimizer | UpdateRule


def get_optimizer(optimizer: object) -> UpdateRule:
    """Return the optimizer with a given name, or return an existing optimizer unchanged.

    Args:
        optimizer: One of OPTIMIZERS, an `Optimizer`, or a function of the learning rate that returns an optax
            optimizer. Optimizers and functions are returned unchanged, except that `optax.sgd` is treated as "sgd".

    Returns:
        An `Optimizer` or a function of the learning rate.

    Raises:
        ValueError: If `optimizer` is an unknown name, or is neither a string nor callable.
    """
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OPTIMIZERS)
        return Optimizer(optimizer)
    if optimizer is optax.sgd:
        return Optimizer("sgd")
    if callable(optimizer):
        return optimizer
    raise ValueError(
        f"optimizer must be one of {', '.join(OPTIMIZERS)}, a lazynet.Optimizer or a function of the learning rate "
        f"that returns an optax optimizer, got {described(optimizer)}."
    )
