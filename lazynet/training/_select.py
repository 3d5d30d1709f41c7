"""Which stepper trains a network: by the floating-point operations of a step."""

from functools import partial
from typing import Any

import numpy as np
import optax

from lazynet.losses import Loss, squared
from lazynet.networks import traits
from lazynet.training._delayed import LEAST, DelayedStepper, steps_of_block
from lazynet.training._flow import FlowStepper
from lazynet.training._steppers import (
    AutodiffStepper,
    HiddenStepper,
    Optimizer,
    PreactivationStepper,
    Stepper,
    row_space,
)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "lion": optax.lion,
}
# Not an optimizer of optax: the lengths of its steps follow the outputs.
FLOW = "flow"
STEPPERS = ("auto", "autodiff", "hidden", "preactivation", "delayed")


def get_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """The function of a learning rate that makes an optimizer, from its name or as given.

    Raises:
        ValueError: if there is no optimizer of this name.
    """
    if callable(optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer is {optimizer!r}, but must be one of {', '.join((*OPTIMIZERS, FLOW))} or a function of the "
            "learning rate that returns an optax optimizer."
        )
    return OPTIMIZERS[optimizer]


def is_plain_descent(loss: Loss, optimizer: str | Optimizer, batch_size: int | None) -> bool:
    """Whether training is full-batch gradient descent on the squared loss."""
    return loss == squared() and optimizer in ("sgd", optax.sgd) and batch_size is None


def choose_stepper(
    network: Any,
    loss: Loss,
    optimizer: str | Optimizer,
    batch_size: int | None,
    x: np.ndarray,
    stepper: str = "auto",
) -> Stepper:
    """The stepper with the fewest operations, or the one asked for.

    Args:
        network: what is trained.
        loss: its loss.
        optimizer: a name or a function of the learning rate; "flow" has one stepper.
        batch_size: None for the full batch.
        x: training inputs (n, d), whose rank decides.
        stepper: "auto", or "autodiff", "hidden", "preactivation", "delayed" to force one.

    Raises:
        ValueError: if the stepper is unknown or cannot train this network.
    """
    if stepper not in STEPPERS:
        raise ValueError(f"stepper is {stepper!r}, but must be one of {', '.join(STEPPERS)}.")
    if optimizer == FLOW:
        return FlowStepper(network, loss)
    layer = traits(network).hidden_layer
    descends = optimizer in ("sgd", optax.sgd) and layer is not None and layer.train == "hidden"
    plain = descends and is_plain_descent(loss, optimizer, batch_size)
    if stepper in ("hidden", "preactivation") and not plain:
        raise ValueError(
            f"stepper is {stepper!r}, but that one is only for plain full-batch descent of the squared loss in the "
            "hidden layer of a two-layer network; take stepper='auto'."
        )
    if batch_size is not None and descends:
        if stepper == "delayed" or (stepper == "auto" and steps_of_block(x.shape[1], batch_size) >= LEAST):
            return DelayedStepper(network, loss, batch_size)
    elif stepper == "delayed":
        raise ValueError(
            f"stepper is {stepper!r}, but that one is only for plain descent on mini-batches in the hidden layer of a "
            "two-layer network; take stepper='auto'."
        )
    if stepper == "autodiff" or not plain:
        return AutodiffStepper(network, loss, get_optimizer(optimizer), batch_size)
    # Operations a step and unit: 4 n rank for weights in the row space, 2 n^2 for pre-activations.
    cheaper = "preactivation" if len(x) < 2 * row_space(x).shape[1] else "hidden"
    chosen = cheaper if stepper == "auto" else stepper
    return PreactivationStepper(network) if chosen == "preactivation" else HiddenStepper(network)
