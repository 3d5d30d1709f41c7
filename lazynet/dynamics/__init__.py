"""Functions that predict training dynamics from a kernel."""

from lazynet.dynamics._ensemble import Ensemble, kernel_ensemble
from lazynet.dynamics._modes import EXACT, check_not_negative
from lazynet.dynamics._posterior import Posterior, kernel_posterior
from lazynet.dynamics._prediction import check_learning_rate, kernel_descent, kernel_flow
from lazynet.dynamics._regression import kernel_regression
from lazynet.dynamics._trajectory import Origin, Trajectory

__all__ = [
    "EXACT",
    "Ensemble",
    "Origin",
    "Posterior",
    "Trajectory",
    "check_learning_rate",
    "check_not_negative",
    "kernel_descent",
    "kernel_ensemble",
    "kernel_flow",
    "kernel_posterior",
    "kernel_regression",
]
