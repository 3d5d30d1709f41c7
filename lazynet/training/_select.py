"""Selection of the stepper that trains a network with the fewest floating-point operations."""

import numpy as np

from lazynet.losses import Loss, squared
from lazynet.networks import Network, traits
from lazynet.training._delayed import MIN_BLOCK_STEPS, DelayedStepper, steps_per_block
from lazynet.training._flow import FlowStepper
from lazynet.training._optimizer import Optimizer, UpdateRule
from lazynet.training._preactivation import PreactivationStepper
from lazynet.training._steppers import AutodiffStepper, HiddenStepper, Stepper, row_space


def is_plain_descent(loss: Loss, optimizer: UpdateRule, batch_size: int | None) -> bool:
    """Return whether training is plain full-batch gradient descent on the squared loss.

    Args:
        loss: Loss to minimize.
        optimizer: A `lazynet.Optimizer`, or a function of the learning rate that returns an optax optimizer.
        batch_size: Number of examples per step, or None for the full batch.

    Returns:
        True for plain full-batch gradient descent on the squared loss. If the optimizer is a function of the learning
        rate rather than a `lazynet.Optimizer`, the result is always False.
    """
    return loss == squared() and isinstance(optimizer, Optimizer) and optimizer.is_descent and batch_size is None


def is_followed(optimizer: UpdateRule) -> bool:
    """Return whether kernel descent can predict training with an optimizer, for any loss and any mini-batches.

    Args:
        optimizer: A `lazynet.Optimizer`, or a function of the learning rate that returns an optax optimizer.

    Returns:
        True for gradient descent at a constant learning rate, possibly with momentum, a ridge and weight decay. If the
        optimizer is a function of the learning rate rather than a `lazynet.Optimizer`, the result is always False.
    """
    return isinstance(optimizer, Optimizer) and optimizer.is_linear


def choose_stepper(
    network: Network, loss: Loss, optimizer: UpdateRule, batch_size: int | None, x: np.ndarray
) -> Stepper:
    """Return the stepper with the fewest operations per step, or the stepper specified by the optimizer.

    Args:
        network: Network to train.
        loss: Loss to minimize.
        optimizer: A `lazynet.Optimizer`, or a function of the learning rate that returns an optax optimizer.
        batch_size: Number of examples per step, or None for the full batch.
        x: Training inputs, an array of shape (n, d). The choice depends on their shape and rank.

    Returns:
        The stepper.

    Raises:
        ValueError: If the optimizer specifies a stepper that does not support the network or the training settings.
    """
    if not isinstance(optimizer, Optimizer):
        return AutodiffStepper(network, loss, optimizer, batch_size)
    if optimizer.is_flow:
        return FlowStepper(network, loss)
    stepper, layer = optimizer.stepper, traits(network).hidden_layer
    descends = optimizer.is_descent and layer is not None and layer.train == "hidden"
    plain = descends and is_plain_descent(loss, optimizer, batch_size)
    if stepper in ("hidden", "preactivation") and not plain:
        raise ValueError(
            f"stepper must be 'auto' or a stepper that supports these settings, got {stepper!r}. That stepper can "
            "train only the hidden layer of a two-layer network, and only by plain full-batch gradient descent on the "
            "squared loss."
        )
    if batch_size is not None and descends:
        if stepper == "delayed" or (stepper == "auto" and steps_per_block(x.shape[1], batch_size) >= MIN_BLOCK_STEPS):
            return DelayedStepper(network, loss, batch_size)
    elif stepper == "delayed":
        raise ValueError(
            f"stepper must be 'auto' or a stepper that supports these settings, got {stepper!r}. That stepper can "
            "train only the hidden layer of a two-layer network, and only by plain mini-batch gradient descent."
        )
    if stepper == "autodiff" or not plain:
        return AutodiffStepper(network, loss, optimizer, batch_size)
    # For each unit, a step takes 4 * n * rank operations if it updates row-space weights, and 2 * n^2 if it updates
    # pre-activations.
    cheaper = "preactivation" if len(x) < 2 * row_space(x).shape[1] else "hidden"
    chosen = cheaper if stepper == "auto" else stepper
    return PreactivationStepper(network) if chosen == "preactivation" else HiddenStepper(network)
