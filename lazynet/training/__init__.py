"""Training: what the finite network does, as pure functions of a key."""

from lazynet.training._delayed import DelayedPath
from lazynet.training._flow import FlowPath
from lazynet.training._paths import AutodiffPath, HiddenPath, Member, Path, PreactivationPath, row_space
from lazynet.training._program import DIVERGED_RATIO, NEVER, Checkpoint, Outcome, Stop, simulate, snapshot_steps
from lazynet.training._select import FLOW, OPTIMIZERS, PATHS, choose_path, get_optimizer, is_plain_descent
from lazynet.training._units import Units

__all__ = [
    "DIVERGED_RATIO",
    "FLOW",
    "NEVER",
    "OPTIMIZERS",
    "PATHS",
    "AutodiffPath",
    "Checkpoint",
    "DelayedPath",
    "FlowPath",
    "HiddenPath",
    "Member",
    "Outcome",
    "Path",
    "PreactivationPath",
    "Stop",
    "Units",
    "choose_path",
    "get_optimizer",
    "is_plain_descent",
    "row_space",
    "simulate",
    "snapshot_steps",
]
