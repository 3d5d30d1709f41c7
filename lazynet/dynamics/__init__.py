"""Dynamics: what a kernel predicts of training, in closed form."""

from lazynet.dynamics.prediction import (
    Trajectory,
    check_learning_rate,
    kernel_descent,
    kernel_flow,
    linearised_displacement,
)

__all__ = ["Trajectory", "check_learning_rate", "kernel_descent", "kernel_flow", "linearised_displacement"]
