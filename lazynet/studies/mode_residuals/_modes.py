"""Residuals along the eigenvectors of a kernel, and how long they follow the kernel's prediction."""

import numpy as np

from lazynet.dynamics import kernel_descent
from lazynet.kernels import Spectrum
from lazynet.measures import residual_modes
from lazynet.typing import Targets


def compare_modes(
    k: Spectrum, y: Targets, u: np.ndarray, learning_rate: float, steps: np.ndarray, tolerance: float
) -> dict[str, np.ndarray]:
    """Compare the residual of one network with the residual that a kernel predicts.

    Args:
        k: Spectrum of the kernel on the training set.
        y: Training targets, shape (n,) or (n, k).
        u: Predictions of the network on the training set, shape (step, n) or (step, n, k), in float64.
        learning_rate: The learning rate.
        steps: The steps at which the predictions were recorded, starting with 0, shape (step,).
        tolerance: Maximum gap at which a mode still counts as following the kernel's prediction.

    Returns:
        A dictionary of arrays: residual and kernel_residual of shape (step, mode) or (step, mode, k), gap of shape
        (step, mode), and last_step_held of shape (mode,).
    """
    path = kernel_descent(k, y, learning_rate=learning_rate, steps=steps, f0=u[0])
    residual, predicted = residual_modes(k, y, u), residual_modes(k, y, path.train)
    start = _sizes(residual[:1])
    # If the initial residual is zero, gaps are not normalized and have the units of the targets.
    scale = np.maximum(start, np.linalg.norm(start) / np.sqrt(len(y))) if start.any() else np.ones_like(start)
    gap = _sizes(residual - predicted) / scale
    return {
        "residual": residual,
        "kernel_residual": predicted,
        "gap": gap,
        "last_step_held": _last_held(steps, gap <= tolerance),
    }


def _sizes(modes: np.ndarray) -> np.ndarray:
    """Return the norm of `modes` over the outputs for each step and mode, as an array of shape (s, n)."""
    return np.linalg.norm(modes.reshape(*modes.shape[:2], -1), axis=2)


def _last_held(steps: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the last snapshot before each mode's gap first exceeds the tolerance, as an array of shape (n,)."""
    # All gaps are zero at step 0, where the network and the kernel make the same predictions.
    until = np.where(held.all(axis=0), len(steps), np.argmin(held, axis=0))
    return steps[until - 1]
