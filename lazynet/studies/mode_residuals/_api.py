"""`lazynet.mode_residuals`: the residuals of trained networks along the eigenvectors of a kernel."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.arguments import check_number, described
from lazynet.data import Dataset
from lazynet.dispatch import dispatched
from lazynet.dynamics import check_not_negative
from lazynet.execution import RunFolder, as_run_folder
from lazynet.execution import run as run_study
from lazynet.experiment import DIVERGENCE, check_inputs, check_memory_of, make_spec, make_training
from lazynet.hosts import is_first, together
from lazynet.kernels import Spectrum, analytic_kernel, check_kernel, check_targets, check_tolerance, spectrum
from lazynet.measures import label_result
from lazynet.networks import Scale
from lazynet.programs import entry
from lazynet.studies.mode_residuals._modes import compare_modes
from lazynet.studies.mode_residuals._study import KIND, TABLE, ModeResiduals
from lazynet.studies.train import Run
from lazynet.typing import MaybeNone, Result, SquareKernel, Targets

# Largest accepted difference between the norm of the initial residual that a run recorded, possibly in float32, and the
# norm computed from the given targets y, relative to the larger of the recorded norm and the norm of y.
SAME_TARGETS = 1e-3


@dispatched
@entry
@DIVERGENCE
def mode_residuals(
    network: Any,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 10,
    steps: int = 1000,
    *,
    kernel: SquareKernel | Spectrum | None = None,
    tolerance: float = 0.1,
    snapshots: int | Sequence[int] | None = None,
    learning_rate: Scale | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Compare the residuals of trained networks with a kernel's prediction, along the kernel's eigenvectors.

    The kernel predicts that the residual along the eigenvector v_i shrinks as (1 - eta lambda_i)^step from its value at
    the network's initialization (Arora et al. 2019, Theorem 4.1). If `kernel` is the analytic kernel, the deviation
    from this prediction shows the full effect of finite width.

    For a single network that is already trained, call `mode_residuals(run, k, y, tolerance=0.1)`, where `run` is the
    result of `lazynet.train` with full-batch gradient descent on the squared loss, `k` is a kernel on the training set,
    and `y` contains the training targets. With `k = lazynet.empirical_ntk(network, run.variables_0, data.x_train)`, the
    deviation from the prediction is due to changes in the network's own kernel. For a single network, the result has no
    `width` or `seed` dimension.

    Args:
        network: The family of networks; its own width is replaced by each width in `widths`.
        data: The training examples, used for full-batch gradient descent on the squared loss; the test examples are
            ignored.
        widths: Numbers of hidden units.
        seeds: A list of seeds, or an integer s for the seeds 0, ..., s - 1.
        steps: Number of training steps.
        kernel: The (n, n) kernel on the training set, or its `lazynet.kernels.spectrum`; by default, the analytic
            kernel.
        tolerance: Maximum gap at which a mode still counts as following the kernel's prediction.
        snapshots: Number of log-spaced snapshots, or a list of the steps at which to take them, as in `lazynet.sweep`.
        learning_rate: Learning rate eta, as in `lazynet.sweep`.
        dtype: Dtype used for training, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder` to resume the study, share it among processes or limit its run time.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset` in float64, or None in a shard or on a host other than the first. Modes are numbered from 1
        to n, starting with the largest eigenvalue. If a network diverged, its later values are NaN or infinite.

        - By `width`, `seed`, `step` and `mode`, and by `output` if there are several outputs: residual and
          kernel_residual.
        - By `width`, `seed`, `step` and `mode`: gap, the distance between the two residuals divided by
          max(|v_i' r_0|, ||r_0|| / sqrt(n)), where r_0 is the initial residual. If a mode's initial residual is below
          the root mean square over all modes, the mode's gap is therefore relative to this root mean square.
        - By `width`, `seed` and `mode`: last_step_held, the last snapshot before the gap first exceeds `tolerance`.
        - By `mode`, and by `width` if the kernel depends on the width: eigenvalue.

    Raises:
        ValueError: If an argument is invalid. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the study can be resumed.

    Warns:
        UserWarning: If networks diverge.

    >>> import jax, lazynet as lz
    >>> data, network = lz.load_dataset("digits", n_train=32, n_test=0), lz.TwoLayer(width=2)
    >>> result = lz.mode_residuals(network, data, widths=[32, 4096], seeds=2, steps=50)
    >>> dict(result.last_step_held.sizes)
    {'width': 2, 'seed': 2, 'mode': 32}
    >>> run = lz.train(network.clone(width=4096), data, jax.random.key(0), steps=50)
    >>> table = lz.mode_residuals(run, lz.analytic_kernel(network)(data.x_train), data.y_train)
    >>> int(table.last_step_held.sel(mode=1))
    50
    """
    with together():
        check_number("tolerance", tolerance, positive=True)
        data = check_inputs(network, data)
        training_set = replace(data, x_test=data.x_test[:0], y_test=data.y_test[:0])
        training = make_training(steps, snapshots=snapshots, dtype=dtype)
        spec = make_spec(network, training_set, widths, seeds, training, learning_rate)
        if kernel is None and analytic_kernel(network) is None:
            raise ValueError("kernel must be given for a network without an analytic kernel, got None.")
        if kernel is not None:
            kernel = kernel if isinstance(kernel, Spectrum) else spectrum(check_kernel(kernel, "kernel"))
            check_not_negative(kernel.values, "kernel")
            if len(kernel.values) != data.n_train:
                size = len(kernel.values)
                raise ValueError(f"kernel must have shape ({data.n_train}, {data.n_train}), got ({size}, {size}).")
        folder = as_run_folder(out)
        if folder is not None and is_first():
            folder.check()
        check_memory_of(spec)
    return run_study(ModeResiduals(spec, kernel, float(tolerance)), folder, progress)


@mode_residuals.register(Run)
@DIVERGENCE
def _(run: Run, k: SquareKernel | Spectrum, y: Targets, *, tolerance: float = 0.1) -> Result:
    """Compare the residual of a single trained network with a kernel's prediction.

    Args:
        run: Result of `lazynet.train` with plain full-batch gradient descent on the squared loss.
        k: Kernel on the training set, shape (n, n), or its spectrum.
        y: The training targets, shape (n,) or (n, k).
        tolerance: Maximum gap at which a mode still counts as following the kernel's prediction.

    Returns:
        The result of `mode_residuals` without the dimensions `width` and `seed`. If the network stopped early, the
        result ends at the step at which it stopped.

    Raises:
        ValueError: If the network was not trained with plain full-batch gradient descent on the squared loss, if the
            arguments have mismatched shapes, if the snapshots do not start at step 0 or are not in ascending order, if
            the norm of the initial residual shows that the network was trained on targets other than `y`, if the kernel
            is not a finite symmetric matrix or has a negative eigenvalue, or if the tolerance is not positive.
    """
    import xarray

    settings = json.loads(run.snapshots.attrs["settings"])
    if not settings["plain"]:
        raise ValueError(
            "run must come from training with plain full-batch sgd on the squared loss, got "
            f"{settings['optimizer']} on the {settings['loss']} loss with batch_size={settings['batch_size']}."
        )
    check_tolerance(tolerance)
    # A network that stopped early keeps its last predictions, but the kernel's prediction keeps changing.
    snapshots = run.snapshots
    if run.status == "stopped":
        snapshots = snapshots.sel(step=slice(None, int(snapshots.stopped_step)))
    u, steps = snapshots.train_prediction.values.astype(np.float64), snapshots.step.values
    if not len(steps) or steps[0] != 0 or (np.diff(steps) <= 0).any():
        raise ValueError(
            "run must have snapshots that start at step 0, in ascending order, got the steps "
            f"{described(steps.tolist())}."
        )
    k = k if isinstance(k, Spectrum) else spectrum(k)
    n = len(k.values)
    y = check_targets(y, n)
    if u.shape[1:] != y.shape:
        raise ValueError(f"y must have the shape {u.shape[1:]} of the run's predictions, got shape {y.shape}.")
    far = float(np.linalg.norm(u[0] - y))
    expected = float(snapshots.residual_norm[0]) if "residual_norm" in snapshots else far
    if abs(far - expected) > SAME_TARGETS * max(expected, float(np.linalg.norm(y))):
        raise ValueError(
            "y must contain the targets on which the network was trained, got targets for which the initial residual "
            f"has norm {far:.6g} instead of {expected:.6g}."
        )
    arrays = compare_modes(k, y, u, settings["learning_rate"], steps, tolerance)
    table: dict[str, Any] = {name: (TABLE[name][: values.ndim], values) for name, values in arrays.items()}
    table["eigenvalue"] = ("mode", k.values[::-1])
    attrs = {"tolerance": float(tolerance), "settings": run.snapshots.attrs["settings"]}
    result = xarray.Dataset(table, coords={"step": steps, "mode": np.arange(1, n + 1)}, attrs=attrs)
    label_result(result, KIND)
    return result
