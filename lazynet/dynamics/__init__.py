"""Dynamics: what a kernel predicts of training."""

from lazynet.dynamics.ensemble import Ensemble, kernel_ensemble
from lazynet.dynamics.modes import check_tolerance
from lazynet.dynamics.prediction import (
    Trajectory,
    check_learning_rate,
    kernel_descent,
    kernel_flow,
    linearised_displacement,
)

__all__ = [
    "Ensemble",
    "Trajectory",
    "check_learning_rate",
    "check_tolerance",
    "kernel_descent",
    "kernel_ensemble",
    "kernel_flow",
    "linearised_displacement",
]
