"""Theorem 4.1 of Arora et al. 2019 as a number, against plain gradient descent on the kernel."""

import numpy as np
import pytest

import lazynet as lz
from lazynet.studies.sweep import speed_gap


@pytest.mark.slow
def test_the_gap_is_between_the_norms_of_residuals():
    data, steps = lz.load_dataset("digits", n_train=16, n_test=4), 30
    result = lz.sweep(lz.TwoLayer(width=2), data, [64, 256], 2, steps)
    k, rate = lz.analytic_kernel(lz.TwoLayer(width=2))(data.x_train), float(result.learning_rate[0])
    residual, norms = data.y_train.copy(), {0: np.linalg.norm(data.y_train)}
    for step in range(1, steps + 1):
        residual = residual - rate * k @ residual
        norms[step] = np.linalg.norm(residual)
    gap = speed_gap(result)
    assert gap.dims == ("width", "seed")
    for width in (64, 256):
        for seed in (0, 1):
            own = result.residual_norm.sel(width=width, seed=seed)
            far = [abs(float(own.sel(step=step)) - norms[step]) for step in result.step.values]
            np.testing.assert_allclose(float(gap.sel(width=width, seed=seed)), max(far), rtol=1e-6)


@pytest.mark.slow
def test_a_sweep_without_a_prediction_is_refused():
    data = lz.load_dataset("digits", n_train=16, n_test=4)
    result = lz.sweep(lz.TwoLayer(width=2), data, [8], 1, 3, batch_size=4)
    with pytest.raises(ValueError, match=r"^result must contain the variable kernel_train_loss"):
        speed_gap(result)
