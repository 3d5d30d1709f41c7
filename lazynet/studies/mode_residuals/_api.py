"""A trained network beside a kernel, mode by mode: which eigen-directions leave the kernel regime, and when."""

import json

import numpy as np

from lazynet.dynamics import kernel_descent
from lazynet.experiment._cell import DIVERGENCE
from lazynet.kernels import Spectrum, spectrum
from lazynet.kernels._krylov import check_tolerance
from lazynet.kernels._spectrum import check_targets
from lazynet.measures import label_result, residual_modes
from lazynet.studies.train._api import Run
from lazynet.typing import Result, SquareKernel, Targets


@DIVERGENCE
def mode_residuals(run: Run, k: SquareKernel | Spectrum, y: Targets, *, tolerance: float = 0.1) -> Result:
    """The residual of a trained network along the eigenvectors of a kernel, beside the kernel's own prediction of it.

    Under the kernel the residual along v_i shrinks as (1 - eta lambda_i)^step (Arora et al. 2019, Theorem 4.1), from
    the network's own start. With the analytic kernel the gap is all that finite width costs; with
    `lazynet.empirical_ntk(network, run.variables_0, data.x_train)` it is what the movement of that kernel costs.

    Args:
        run: of `lazynet.train`, by plain full-batch descent on the squared loss.
        k: kernel on the training set (n, n), or its `lazynet.kernels._spectrum`.
        y: the targets it was trained on, (n,) or (n, k).
        tolerance: the largest gap at which the kernel still counts as right about a mode.

    Returns:
        `xarray.Dataset` over `step` and `mode`, 1 to n from the largest eigenvalue down: residual and kernel_residual
        (with `output` where there are several), gap; over `mode`: eigenvalue, last_step_held. The gap is the distance
        of the two residuals over max(|v_i' r_0|, ||r_0|| / sqrt(n)), r_0 the residual at the start: a mode that holds
        less than the average one is measured by that one. Everything is float64; a diverged network is NaN or infinite.

    Raises:
        ValueError: if the run was trained otherwise, shapes do not fit, the kernel is not a finite symmetric matrix or
            has a negative eigenvalue, or the tolerance is not positive.

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
            f"The run was trained by {settings['optimizer']} on the {settings['loss']} loss with batch_size="
            f"{settings['batch_size']}, but a kernel predicts single modes only of full-batch sgd on the squared loss."
        )
    check_tolerance(tolerance)
    u = run.snapshots.train_prediction.values.astype(np.float64)
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    if u.shape[1:] != y.shape:
        raise ValueError(f"The run has predictions of shape {u.shape[1:]}, but y has shape {y.shape}.")
    k = k if isinstance(k, Spectrum) else spectrum(k)
    steps = run.snapshots.step.values
    path = kernel_descent(k, y, learning_rate=settings["learning_rate"], steps=steps, f0=u[0])
    residual, predicted = residual_modes(k, y, u), residual_modes(k, y, path.train)
    start = _sizes(residual[:1])
    # Where all begin at their targets, there is no scale but the targets' own unit.
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
    """The norm over outputs, (s, n)."""
    return np.linalg.norm(modes.reshape(*modes.shape[:2], -1), axis=2)


def _last_held(steps: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The last of the steps (s,) before the first at which a mode is not right, (n,)."""
    # The two start from the same predictions, so that the first snapshot is right.
    until = np.where(right.all(axis=0), len(steps), np.argmin(right, axis=0))
    return steps[until - 1]
