"""`lazynet.mode_residuals`: the residual of a trained network along the eigenvectors of a kernel."""

import json

import numpy as np

from lazynet.dynamics import kernel_descent
from lazynet.experiment import DIVERGENCE
from lazynet.kernels import Spectrum, check_targets, check_tolerance, spectrum
from lazynet.measures import label_result, residual_modes
from lazynet.studies.train import Run
from lazynet.typing import Result, SquareKernel, Targets


@DIVERGENCE
def mode_residuals(run: Run, k: SquareKernel | Spectrum, y: Targets, *, tolerance: float = 0.1) -> Result:
    """Compare the residual of a trained network with a kernel's prediction, along the kernel's eigenvectors.

    The kernel predicts that the residual along the eigenvector v_i shrinks as (1 - eta lambda_i)^step from its value at
    the network's initialization (Arora et al. 2019, Theorem 4.1). With the analytic kernel, the gap to this prediction
    is the full effect of finite width. With `lazynet.empirical_ntk(network, run.variables_0, data.x_train)`, the gap is
    the effect of the movement of that kernel.

    Args:
        run: result of `lazynet.train` with plain full-batch descent on the squared loss.
        k: kernel on the training set, (n, n), or its `lazynet.kernels.spectrum`.
        y: the training targets, (n,) or (n, k).
        tolerance: largest gap at which a mode still counts as following the kernel.

    Returns:
        An `xarray.Dataset` in float64. Modes are numbered from 1 to n, starting with the largest eigenvalue. If the
        network diverged, values are NaN or infinite.

        - Over `step` and `mode`, and over `output` if there are several outputs: residual and kernel_residual.
        - Over `step` and `mode`: gap, the distance between the two residuals divided by
          max(|v_i' r_0|, ||r_0|| / sqrt(n)). Here r_0 is the initial residual. If a mode's initial residual is below
          the average size, its gap is therefore relative to the average size.
        - Over `mode`: eigenvalue and last_step_held.

    Raises:
        ValueError: if the run was not trained by plain descent, if shapes do not agree, if the kernel is not a finite
            symmetric matrix or has a negative eigenvalue, or if the tolerance is not positive.

    >>> import jax, lazynet as lz
    >>> data, network = lz.load_dataset("digits", n_train=32, n_test=8), lz.TwoLayer(width=4096)
    >>> run = lz.train(network, data, jax.random.key(0), steps=50)
    >>> table = lz.mode_residuals(run, lz.analytic_kernel(network)(data.x_train), data.y_train)
    >>> int(table.last_step_held.sel(mode=1))
    50
    """
    import xarray

    settings = json.loads(run.snapshots.attrs["settings"])
    if not settings["plain"]:
        raise ValueError(
            "run must be trained by full-batch sgd on the squared loss, got "
            f"{settings['optimizer']} on the {settings['loss']} loss with batch_size={settings['batch_size']}."
        )
    check_tolerance(tolerance)
    u = run.snapshots.train_prediction.values.astype(np.float64)
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    if u.shape[1:] != y.shape:
        raise ValueError(f"y must have the shape of the run's predictions, {u.shape[1:]}, got shape {y.shape}.")
    k = k if isinstance(k, Spectrum) else spectrum(k)
    steps = run.snapshots.step.values
    path = kernel_descent(k, y, learning_rate=settings["learning_rate"], steps=steps, f0=u[0])
    residual, predicted = residual_modes(k, y, u), residual_modes(k, y, path.train)
    start = _sizes(residual[:1])
    # If the initial residual is zero, gaps are in units of the targets.
    scale = np.maximum(start, np.linalg.norm(start) / np.sqrt(n)) if start.any() else np.ones_like(start)
    gap = _sizes(residual - predicted) / scale
    dims = ("step", "mode", "output")[: residual.ndim]
    table = {
        "residual": (dims, residual),
        "kernel_residual": (dims, predicted),
        "gap": (("step", "mode"), gap),
        "eigenvalue": ("mode", k.values[::-1]),
        "last_step_held": ("mode", _last_held(steps, gap <= tolerance)),
    }
    attrs = {"tolerance": float(tolerance), "settings": run.snapshots.attrs["settings"]}
    result = xarray.Dataset(table, coords={"step": steps, "mode": np.arange(1, n + 1)}, attrs=attrs)
    label_result(result, "mode_residuals")
    return result


def _sizes(modes: np.ndarray) -> np.ndarray:
    """Return the norm of each mode over the outputs, (s, n)."""
    return np.linalg.norm(modes.reshape(*modes.shape[:2], -1), axis=2)


def _last_held(steps: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return, for each mode, the last of the steps (s,) before the mode first stops following the kernel, (n,)."""
    # All modes follow the kernel at step 0, where the network and the kernel have the same predictions.
    until = np.where(held.all(axis=0), len(steps), np.argmin(held, axis=0))
    return steps[until - 1]
