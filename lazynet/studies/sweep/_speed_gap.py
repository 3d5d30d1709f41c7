"""The deviation of networks from the prediction of Theorem 4.1 of Arora et al. 2019."""

import numpy as np

from lazynet.studies.sweep._points import check_contains, is_plain, ordered, settings_of, while_training
from lazynet.typing import DataArray, Result


def speed_gap(result: Result) -> DataArray:
    """Return the largest deviation of each network from the prediction of Theorem 4.1 of Arora et al. 2019.

    The deviation is the maximum over snapshots k of
    | ||y - u(k)|| - sqrt(sum_i (1 - eta lambda_i)^(2k) (v_i'(y - u(0)))^2) |. The square root equals sqrt(2 L), where L
    is the loss that the kernel predicts at step k. The theorem assumes u(0) = 0, which holds if the initialization is
    symmetric.

    For a network that stopped early, the maximum covers only the snapshots up to the step at which it stopped. The
    deviation is NaN if the network diverged or the prediction overflowed.

    Args:
        result: Result of `lazynet.sweep` with plain full-batch gradient descent on the squared loss.

    Returns:
        The deviation for each width, seed and value of the other axes, in the units of the targets, as float64.

    Raises:
        ValueError: If the result does not include the training loss that the kernel predicts, or if networks are not
            trained by plain gradient descent. If a setting of the training is an axis, select one of its values first.

    >>> import lazynet as lz
    >>> from lazynet.studies.sweep import speed_gap
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> gap = speed_gap(lz.sweep(lz.TwoLayer(width=2), data, [64, 1024], seeds=4, steps=10)).mean("seed")
    >>> bool(gap[1] < gap[0])
    True
    """
    result = ordered(result)
    check_contains(result, "kernel_train_loss", "residual_norm")
    if not is_plain(settings_of(result)):
        raise ValueError(
            "result must come from plain full-batch gradient descent on the squared loss, which the theorem covers, "
            "got another loss, optimizer or batch size."
        )
    gap = abs(result.residual_norm - np.sqrt(2 * result.kernel_train_loss))
    # The prediction keeps changing after a network has stopped, so exclude later snapshots from the maximum.
    gap = gap.where(while_training(result) | gap.isnull(), 0.0)
    return gap.max("step", skipna=False).transpose("width", "seed", ...)
