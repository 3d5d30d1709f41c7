"""`lazynet.forecast`: forecasts of training from initial weights alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.data import Dataset
from lazynet.execution import RunFolder, as_run_folder, run
from lazynet.experiment import ORDERS, Measure, check_memory_of, make_spec, make_training
from lazynet.hosts import is_first, together
from lazynet.networks import GivenNetwork, Scale, traits
from lazynet.plan import check_memory
from lazynet.programs import entry
from lazynet.studies.forecast._study import Forecast
from lazynet.typing import MaybeNone, Result


@entry
def forecast(
    network: GivenNetwork,
    data: Dataset,
    widths: Sequence[int],
    seeds: int | Sequence[int] = 8,
    steps: int = 1000,
    *,
    order: int | None = None,
    learning_rate: Scale | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    snapshots: int | Sequence[int] | np.ndarray | None = None,
    dtype: str = "float32",
    out: str | Path | RunFolder | None = None,
    progress: bool = True,
) -> Result | MaybeNone:
    """Forecast from initial weights alone, without training, how closely networks will follow their predictions.

    The networks are those of `lazynet.sweep` with the same arguments, trained by full-batch gradient descent on the
    squared loss. Each network's own kernel K_0 at initialization gives the outputs of its linearization, and hence
    `start_gap_train` and `start_gap_test`, without approximation. It also gives the parameters of the linearization at
    each snapshot, theta_0 + J' c, where J is the Jacobian at initialization and f_lin = f_0 + K_0 c. The movement of
    these parameters, the flips of activations, and the drift of the kernel at these parameters are forecasts for the
    network.

    The outputs of the network are forecast by kernel descent with the kernels at these parameters, interpolated between
    snapshots. Their distances from the two predictions are the forecasts `linearization_gap_*` and `kernel_gap_*`. For
    small learning rates and closely spaced snapshots, they are right to leading order in the movement.

    Args:
        network: The family of networks; its own width is replaced by each width in `widths`.
        data: The training and test examples.
        widths: Numbers of hidden units.
        seeds: A list of seeds, or an integer s for the seeds 0, ..., s - 1.
        steps: Number of training steps to forecast.
        order: None, or 3 to train the third-order Taylor polynomial of each network about its initial parameters,
            instead of using kernels that change. This takes several times as long as training the network, and requires
            an activation that is three times differentiable.
        learning_rate: Learning rate eta, as in `lazynet.sweep`.
        axes: As in `lazynet.sweep`; only fields of the network, n_train, label_noise and learning_rate.
        snapshots: As in `lazynet.sweep`. The kernels are interpolated between snapshots, so more snapshots make
            forecasts more accurate.
        dtype: Dtype in which Taylor polynomials are trained, "float32" or "float64".
        out: A new folder, or a `lazynet.RunFolder` to resume the forecast, share it among processes or limit its run
            time.
        progress: Whether to show progress on a terminal.

    Returns:
        An `xarray.Dataset` with the variables of a sweep that can be forecast, or None in a shard or on a host other
        than the first. `lazynet.verify` and `lazynet.plot` accept it.

    Raises:
        ValueError: If an argument is invalid. The error is raised before any work starts.
        TimeoutError: If the time limit of `out` expires; the forecast can be resumed.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> network = lz.TwoLayer(width=2, activation="tanh", symmetric=False)
    >>> forecast = lz.forecast(network, data, widths=[64], seeds=2, steps=20)
    >>> sweep = lz.sweep(network, data, widths=[64], seeds=2, steps=20)
    >>> ratio = forecast.linearization_gap_train.max("step") / sweep.linearization_gap_train.max("step")
    >>> bool((abs(ratio - 1) < 0.5).all())
    True
    """
    with together():
        if order is not None and not (isinstance(order, int) and order in ORDERS):
            raise ValueError(f"order must be None or 3, got {order!r}.")
        training = make_training(steps, snapshots=snapshots, dtype=dtype, measure=Measure(kernel_drift=False))
        spec = make_spec(network, data, widths, seeds, training, learning_rate, axes)
        if not all(point.training.plain for point in spec.points):
            raise ValueError(
                "axes must vary only fields of the network, n_train, label_noise or learning_rate in a forecast, got "
                f"{', '.join(spec.varied)}."
            )
        for point in spec.points:
            layer = traits(point.network).hidden_layer
            kinked = traits(point.network).kernel_of_signs or (layer is not None and layer.binary_slope)
            if order is not None and kinked:
                raise ValueError(
                    "order must be None unless the activation is three times differentiable, got 3 with the activation "
                    f"{getattr(point.network, 'activation', None)!r}."
                )
            size, rows = point.data.y_train.size, (point.data.n_train + point.data.n_test) * point.data.outputs
            check_memory(f"A forecast with {size} outputs on the training set", 8 * size * (3 * rows + 2 * size))
        folder = as_run_folder(out)
        if folder is not None and is_first():
            folder.check()
        check_memory_of(spec)
    return run(Forecast(spec, order), folder, progress)
