"""Training of finite networks: the steppers, and the compiled program that runs them."""

from lazynet.training._delayed import DelayedStepper
from lazynet.training._flow import FlowStepper
from lazynet.training._keys import MOST_IN_KEY, batch_key, batch_order, batch_order_of, member_key, start_key
from lazynet.training._optimizer import (
    OPTIMIZERS,
    AnyOptimizer,
    Optimizer,
    UpdateRule,
    check_rule,
    get_optimizer,
    has_default_rate,
)
from lazynet.training._preactivation import PreactivationStepper
from lazynet.training._program import DIVERGED_RATIO, NEVER, Checkpoint, Outcome, Stop, simulate, snapshot_steps
from lazynet.training._select import choose_stepper, is_followed, is_plain_descent
from lazynet.training._steppers import AutodiffStepper, HiddenStepper, Member, Stepper, row_space
from lazynet.training._units import Units

__all__ = [
    "DIVERGED_RATIO",
    "MOST_IN_KEY",
    "NEVER",
    "OPTIMIZERS",
    "AnyOptimizer",
    "AutodiffStepper",
    "Checkpoint",
    "DelayedStepper",
    "FlowStepper",
    "HiddenStepper",
    "Member",
    "Optimizer",
    "Outcome",
    "PreactivationStepper",
    "Stepper",
    "Stop",
    "Units",
    "UpdateRule",
    "batch_key",
    "batch_order",
    "batch_order_of",
    "check_rule",
    "choose_stepper",
    "get_optimizer",
    "has_default_rate",
    "is_followed",
    "is_plain_descent",
    "member_key",
    "row_space",
    "simulate",
    "snapshot_steps",
    "start_key",
]
