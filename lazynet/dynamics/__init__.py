"""Dynamics: what a kernel predicts of training."""

from lazynet.dynamics.ensemble import Ensemble, kernel_ensemble
from lazynet.dynamics.laws import linearised_displacement
from lazynet.dynamics.prediction import check_learning_rate, kernel_descent, kernel_flow
from lazynet.dynamics.regression import kernel_regression
from lazynet.dynamics.trajectory import Trajectory

__all__ = [
    "Ensemble",
    "Trajectory",
    "check_learning_rate",
    "kernel_descent",
    "kernel_ensemble",
    "kernel_flow",
    "kernel_regression",
    "linearised_displacement",
]
