"""Theorem 4.1 of Arora et al. 2019 as a number."""

import numpy as np

from lazynet.typing import DataArray, Result


def speed_gap(result: Result) -> DataArray:
    """How far networks are from Theorem 4.1 of Arora et al. 2019 at most.

    max over snapshots of | ||y - u(k)|| - sqrt(sum_i (1 - eta lambda_i)^2k (v_i'(y - u(0)))^2) |, the second of which
    is sqrt(2 L) of the kernel's own loss L at step k. The theorem has u(0) = 0, as a symmetric start has.

    Args:
        result: of `lazynet.sweep` by plain full-batch descent on the squared loss.

    Returns:
        The gap, in the unit of ||y||, over width, seed and the sweep's other axes.

    Raises:
        ValueError: if the sweep has no prediction of the kernel.

    >>> import lazynet as lz
    >>> from lazynet.studies.sweep import speed_gap
    >>> data = lz.load_dataset("digits", n_train=8, n_test=8)
    >>> gap = speed_gap(lz.sweep(lz.TwoLayer(width=2), data, [64, 4096], seeds=4, steps=20)).mean("seed")
    >>> bool(gap[1] < gap[0])
    True
    """
    if "kernel_train_loss" not in result:
        raise ValueError("The sweep has no kernel_train_loss, which only plain full-batch sgd on the squared loss has.")
    predicted = np.sqrt(2 * result.kernel_train_loss)
    return abs(result.residual_norm - predicted).max("step").transpose("width", "seed", ...)
