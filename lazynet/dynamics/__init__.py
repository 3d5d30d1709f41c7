"""Dynamics: what a kernel predicts of training."""

from lazynet.dynamics.modes import check_tolerance
from lazynet.dynamics.prediction import (
    Trajectory,
    check_learning_rate,
    kernel_descent,
    kernel_flow,
    linearised_displacement,
)

__all__ = [
    "Trajectory",
    "check_learning_rate",
    "check_tolerance",
    "kernel_descent",
    "kernel_flow",
    "linearised_displacement",
]
