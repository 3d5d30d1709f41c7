"""Late and infinite times on singular kernels, where modes below rounding are not learned."""

import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


RANDOM = np.random.default_rng(0)
X, X_TEST = unit(RANDOM.normal(size=(30, 6))), unit(RANDOM.normal(size=(9, 6)))
Y = np.sin(3 * X[:, 0])


@cache
def fewer_parameters_than_rows():
    network = lz.TwoLayer(width=8, train="readout", symmetric=False, readout="gaussian")
    variables = network.init(jax.random.key(0), jnp.asarray(X, jnp.float32))
    return lz.empirical_ntk(network, variables, X), lz.empirical_ntk(network, variables, X_TEST, X), Y, 1e-10


@cache
def contradicting_duplicates():
    kernel, x, y = lz.analytic_kernel(lz.TwoLayer(width=64)), np.r_[X, X[:3]], np.r_[Y, -Y[:3]]
    return kernel(x), kernel(X_TEST, x), y, 1e-12


PROBLEMS = {problem.__name__: problem for problem in (fewer_parameters_than_rows, contradicting_duplicates)}
LATE = (1e6, 1e9, 1e12, 1e14, 1e15, 1e16, 1e18, np.inf)


def exact(problem, time):
    """Return the predictions on the training and the test set at a finite or infinite time."""
    k, k_test, y, cutoff = PROBLEMS[problem]()
    values, vectors = np.linalg.eigh(k)
    kept = values > cutoff * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    grown = -np.expm1(-np.minimum(time, 1e300) * values)
    return vectors @ (grown * (vectors.T @ y)), k_test @ vectors @ (grown / values * (vectors.T @ y))


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_flow_at_late_times(problem, method):
    k, k_test, y, _ = PROBLEMS[problem]()
    tolerance = 1e-8 if method == "krylov" else None
    path = lz.kernel_flow(k, y, times=LATE, k_test=k_test, method=method, tolerance=tolerance)
    np.testing.assert_array_equal(path.time, LATE)
    for i, time in enumerate(LATE):
        train, test = exact(problem, time)
        np.testing.assert_allclose(path.train[i], train, atol=1e-6 * abs(y).max())
        np.testing.assert_allclose(path.test[i], test, atol=1e-6 * abs(test).max())
    assert path.error.total < 1e-5


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_limit_is_that_of_the_pseudo_inverse_and_of_the_ensemble(problem):
    k, k_test, y, cutoff = PROBLEMS[problem]()
    right = k_test @ np.linalg.pinv(k, rcond=cutoff) @ y
    found = lz.kernel_flow(k, y, times=[np.inf], k_test=k_test).test[0]
    np.testing.assert_allclose(found, right, atol=1e-6 * abs(right).max())
    rows = len(y) + len(right)
    start = np.zeros((rows, rows))
    ensemble = lz.kernel_ensemble(k, y, times=[1e12, np.inf], start_covariance=start, k_test=k_test)
    np.testing.assert_allclose(ensemble.test_mean, [right, right], atol=1e-6 * abs(right).max())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_descent_of_many_steps(problem, momentum):
    k, k_test, y, _ = PROBLEMS[problem]()
    rate, steps = 1 / np.linalg.eigvalsh(k)[-1], [10**9, 10**12, 10**15]
    path = lz.kernel_descent(k, y, learning_rate=rate, steps=steps, momentum=momentum, k_test=k_test)
    train, test = exact(problem, np.inf)
    np.testing.assert_allclose(path.train, [train] * 3, atol=1e-6 * abs(y).max())
    np.testing.assert_allclose(path.test, [test] * 3, atol=1e-6 * abs(test).max())


def test_infinite_times_are_for_the_squared_loss_only():
    with pytest.raises(ValueError, match=r"^times must be a nonempty list of finite, nonnegative numbers, got inf"):
        lz.kernel_flow(np.eye(2), np.array([1.0, -1.0]), times=[np.inf], loss="logistic")


def test_a_zero_kernel_predicts_no_change():
    path = lz.kernel_flow(np.zeros((2, 2)), np.ones(2), times=[1.0, np.inf], k_test=np.zeros((1, 2)), f0=0.5)
    assert (path.train == 0.5).all()
    assert (path.test == 0).all()


def test_an_error_above_the_tolerance_is_told():
    """The float32 entries of a nearly singular kernel do not determine the late predictions."""
    k = lz.analytic_kernel(lz.TwoLayer(width=64))(np.r_[X, unit(X[:3] + 1e-4)], dtype="float32")
    with pytest.warns(UserWarning, match=r"estimated error of .* above the tolerance of 1.0e-04"):
        path = lz.kernel_flow(k, np.r_[Y, -Y[:3]], times=[1e6])
    assert path.error.total > 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lz.kernel_flow(k, np.r_[Y, -Y[:3]], times=[1.0])
        lz.kernel_flow(k, np.r_[Y, -Y[:3]], times=[1e6], tolerance=1e9)
