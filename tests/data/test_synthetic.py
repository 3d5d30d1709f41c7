import re

import jax
import numpy as np
import pytest
from unchecked import unchecked

from lazynet.data import gaussian_mixture, is_labels, sphere

N = 20_000


def assert_uniform_on_the_sphere(x):
    n, dim = x.shape
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-14)
    # For a uniform point, E[x] = 0 and E[x x'] = I / d; the variance is 1/d for entries and at most 3/d^2 for products.
    assert np.abs(x.mean(axis=0)).max() < 6 / np.sqrt(n * dim)
    assert np.abs(x.T @ x / n - np.eye(dim) / dim).max() < 6 * np.sqrt(3 / n) / dim


def test_sphere_with_normal_targets(key):
    data = sphere(N, 50, 5, key)
    assert_uniform_on_the_sphere(data.x_train)
    assert data.name == "sphere"
    assert data.x_test.shape == (50, 5)
    assert abs(data.y_train.mean()) < 6 / np.sqrt(N)
    assert abs(data.y_train.var() - 1) < 6 * np.sqrt(2 / N)
    assert np.abs(data.x_train.T @ data.y_train / N).max() < 6 / np.sqrt(5 * N)


def test_sphere_with_signs(key):
    y = sphere(N, 0, 3, key, targets="signs").y_train
    assert is_labels(y)
    assert abs(y.mean()) < 6 / np.sqrt(N)


def test_sphere_with_a_function(key):
    data = sphere(30, 7, 4, key, targets=lambda x: x[:, :2] ** 2)
    np.testing.assert_array_equal(data.y_train, data.x_train[:, :2] ** 2)
    np.testing.assert_array_equal(data.y_test, data.x_test[:, :2] ** 2)
    assert sphere(30, 0, 4, key, targets=lambda x: x[:, :2] / (len(x) > 0)).y_test.shape == (0, 2)


@pytest.mark.parametrize("make", [sphere, gaussian_mixture])
def test_points_depend_on_the_key_alone(make, key):
    data, again = make(20, 5, 3, key), make(20, 9, 3, key)
    np.testing.assert_array_equal(data.x_train, again.x_train)
    np.testing.assert_array_equal(data.y_train, again.y_train)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(data.x_test, make(20, 5, 3, key).x_test)
    assert (data.x_train != make(20, 5, 3, jax.random.fold_in(key, 1)).x_train).all()
    assert not np.isin(data.x_test, data.x_train).any()
    assert make(3, 0, 2, key).n_test == 0


def test_mixture_of_two_classes_is_balanced_and_has_the_given_spread(key):
    data = gaussian_mixture(N + 1, 10, 8, key, spread=0.3)
    assert data.name == "gaussian-mixture"
    assert data.y_train.sum() == 1
    assert is_labels(data.y_train)
    # The rows are in random order, so half of all neighbors have equal labels.
    assert abs(np.mean(data.y_train[1:] * data.y_train[:-1])) < 6 / np.sqrt(N)
    np.testing.assert_allclose(np.linalg.norm(data.x_train, axis=1), 1, rtol=1e-14)
    for sign in (-1, 1):
        rows = data.x_train[data.y_train == sign]
        center = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
        # Scaling to unit norm removes the radial part: 7/8 of spread^2 is left, up to order spread^4.
        tangent = rows / (rows @ center)[:, None] - center
        assert np.mean(np.sum(tangent**2, axis=1)) == pytest.approx(0.3**2 * 7 / 8, rel=0.1)


def test_mixture_without_spread_sits_on_its_centers(key):
    data = gaussian_mixture(12, 6, 20, key, components=3, spread=0)
    assert data.y_train.shape == (12, 3)
    assert is_labels(data.y_train)
    np.testing.assert_array_equal((data.y_train > 0).sum(axis=0), 4)
    np.testing.assert_array_equal((data.y_test > 0).sum(axis=0), 2)
    centers = [data.x_train[data.y_train.argmax(axis=1) == label] for label in range(3)]
    for label, rows in enumerate(centers):
        np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-15)
        test_rows = data.x_test[data.y_test.argmax(axis=1) == label]
        np.testing.assert_allclose(test_rows, np.broadcast_to(rows[0], test_rows.shape), atol=1e-15)
    assert np.abs(centers[0][0] - centers[1][0]).max() > 0.01


@pytest.mark.parametrize("make", [sphere, gaussian_mixture])
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((0, 1, 2), "n_train must be a positive integer"),
        ((2.0, 1, 2), "n_train must be a positive integer"),
        ((2, -1, 2), "n_test must be an integer >= 0"),
        ((2, 1, 0), "dim must be a positive integer"),
    ],
)
def test_bad_counts(make, counts, message, key):
    with unchecked(), pytest.raises(ValueError, match=re.escape(message)):
        make(*counts, key)


def test_other_bad_arguments(key):
    for make in (sphere, gaussian_mixture):
        with unchecked(), pytest.raises(ValueError, match="key must be a single JAX random key"):
            make(2, 1, 2, 3)
    with pytest.raises(ValueError, match="targets must be one of normal, signs or a function"):
        sphere(2, 1, 2, key, targets="random")
    with pytest.raises(ValueError, match="components must be an integer >= 2"):
        gaussian_mixture(2, 1, 2, key, components=1)
    for spread in (-1.0, np.inf, np.nan, "wide"):
        with unchecked(), pytest.raises(ValueError, match="spread must be finite and nonnegative"):
            gaussian_mixture(2, 1, 2, key, spread=spread)
