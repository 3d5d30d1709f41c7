"""Choice of the stepper that trains a network with the fewest floating-point operations."""

from functools import partial
from typing import Any

import numpy as np
import optax

from lazynet.losses import Loss, squared
from lazynet.networks import TwoLayer
from lazynet.training._delayed import MIN_BLOCK_STEPS, DelayedStepper, steps_per_block
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
# Gradient flow is not an optax optimizer, because its step size follows the outputs.
FLOW = "flow"
STEPPERS = ("auto", "autodiff", "hidden", "preactivation", "delayed")


def get_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """Return the optimizer with a given name.

    Args:
        optimizer: one of OPTIMIZERS, or a function of the learning rate, which is returned unchanged.

    Returns:
        A function of the learning rate that returns an optax optimizer.

    Raises:
        ValueError: if no optimizer has this name.
    """
    if callable(optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer must be one of {', '.join((*OPTIMIZERS, FLOW))} or a function of the learning rate that "
            f"returns an optax optimizer, got {optimizer!r}."
        )
    return OPTIMIZERS[optimizer]


def is_plain_descent(loss: Loss, optimizer: str | Optimizer, batch_size: int | None) -> bool:
    """Return True if training is full-batch gradient descent of the squared loss."""
    return loss == squared() and optimizer in ("sgd", optax.sgd) and batch_size is None


def choose_stepper(
    network: Any,
    loss: Loss,
    optimizer: str | Optimizer,
    batch_size: int | None,
    x: np.ndarray,
    stepper: str = "auto",
) -> Stepper:
    """Return the stepper that trains a network with the fewest operations per step.

    Args:
        network: network to train.
        loss: loss to minimize.
        optimizer: name, or function of the learning rate that returns an optax optimizer. Gradient flow, "flow", has
            a stepper of its own.
        batch_size: number of examples per step; None for the full batch.
        x: training inputs (n, d); the choice depends on their shape and rank.
        stepper: "auto" to choose the stepper by operations, or "autodiff", "hidden", "preactivation" or "delayed".

    Returns:
        The stepper.

    Raises:
        ValueError: if `stepper` or `optimizer` is unknown, or if the stepper cannot train this network.
    """
    if stepper not in STEPPERS:
        raise ValueError(f"stepper must be one of {', '.join(STEPPERS)}, got {stepper!r}.")
    if optimizer == FLOW:
        return FlowStepper(network, loss)
    descends = optimizer in ("sgd", optax.sgd) and isinstance(network, TwoLayer) and network.train == "hidden"
    plain = descends and is_plain_descent(loss, optimizer, batch_size)
    if stepper in ("hidden", "preactivation") and not plain:
        raise ValueError(
            f"stepper must be 'auto' or one that supports this training, got {stepper!r}. {stepper!r} supports only "
            "plain full-batch descent of the squared loss in the hidden layer of a two-layer network."
        )
    if batch_size is not None and descends:
        if stepper == "delayed" or (stepper == "auto" and steps_per_block(x.shape[1], batch_size) >= MIN_BLOCK_STEPS):
            return DelayedStepper(network, loss, batch_size)
    elif stepper == "delayed":
        raise ValueError(
            f"stepper must be 'auto' or one that supports this training, got {stepper!r}. {stepper!r} supports only "
            "plain mini-batch descent in the hidden layer of a two-layer network."
        )
    if stepper == "autodiff" or not plain:
        return AutodiffStepper(network, loss, get_optimizer(optimizer), batch_size)
    # Operations per step and unit: 4 n rank for weights in the row space, 2 n^2 for pre-activations.
    cheaper = "preactivation" if len(x) < 2 * row_space(x).shape[1] else "hidden"
    chosen = cheaper if stepper == "auto" else stepper
    return PreactivationStepper(network) if chosen == "preactivation" else HiddenStepper(network)
