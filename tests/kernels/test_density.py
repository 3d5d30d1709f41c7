"""Test spectral densities against eigendecompositions."""

import numpy as np
import pytest
from problems import kernel_with
from tolerance import assert_close
from unchecked import unchecked

from lazynet.kernels import dense_operator, spectral_density


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_averages_over_all_eigenvalues(dtype):
    values = np.concatenate([np.geomspace(1e-3, 1, 597), [5.0, 20.0, 80.0]])
    k, _ = kernel_with(values)
    density = spectral_density(dense_operator(k.astype(dtype)))
    assert_close(density.weights.sum(axis=0), np.ones(8))
    for f in (lambda v: v, lambda v: np.exp(-3 * v), lambda v: v / (v + 0.1)):
        mean, error = density.average(f)
        assert error > 0
        assert abs(mean - f(values).mean()) <= 4 * error
    # Check the fraction of eigenvalues below 0.03 and the three isolated largest eigenvalues.
    below, error = density.average(lambda v: (v < 0.03).astype(float))
    assert abs(below - np.mean(values < 0.03)) <= 4 * error + 0.02
    np.testing.assert_allclose(density.values[-3:], values[-3:], rtol=1e-5)


def test_polynomials_have_only_the_error_of_the_random_vectors():
    k, _ = kernel_with(np.linspace(0.5, 1, 64))
    probes = np.random.default_rng(0).standard_normal((64, 8))
    probes /= np.linalg.norm(probes, axis=0)
    mean, _ = spectral_density(k, products=3).average(lambda v: v**5)
    assert_close(np.array(mean), np.array(np.mean(np.sum(probes * (np.linalg.matrix_power(k, 5) @ probes), axis=0))))


def test_bad_input():
    with pytest.raises(ValueError, match="products must be at least 1"):
        spectral_density(np.eye(3), products=0)
    with unchecked(), pytest.raises(ValueError, match="k must be a square matrix"):
        spectral_density(np.ones((3, 4)))
