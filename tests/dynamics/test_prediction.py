"""Closed forms of descent and flow, compared with plain iteration and neural-tangents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import neural_tangents
from reference import targets, unit_rows
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.kernels import spectrum
from lazynet.precision import float64

N, N_TEST = 12, 5


def kernels(singular=False):
    """Return the kernel on the training set and that between test and training sets, of rank 7 if `singular`."""
    x, x_test = unit_rows(N, 4), unit_rows(N_TEST, 4, seed=1)
    if singular:
        features = np.random.default_rng(2).normal(size=(N + N_TEST, 7))
        return features[:N] @ features[:N].T, features[N:] @ features[:N].T
    kernel = lz.analytic_kernel(lz.TwoLayer(width=2))
    return kernel(x), kernel(x_test, x)


def starts(outputs):
    rng = np.random.default_rng(3)
    shape = () if outputs == 1 else (outputs,)
    return rng.normal(size=(N, *shape)), rng.normal(size=(N_TEST, *shape))


def iterate(k, k_test, y, f0, f0_test, learning_rate, steps):
    u, v = f0.copy(), f0_test.copy()
    train, test = [u], [v]
    for _ in range(steps):
        u, v = u - learning_rate * k @ (u - y), v - learning_rate * k_test @ (u - y)
        train.append(u)
        test.append(v)
    return np.stack(train), np.stack(test)


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_descent_agrees_with_the_iteration(outputs, singular, fraction):
    """The learning rate goes up to 2 / lambda_max, at which the mode of the largest eigenvalue oscillates forever."""
    k, k_test = kernels(singular)
    y, (f0, f0_test) = targets(N, outputs), starts(outputs)
    rate = fraction * 2 / np.linalg.eigvalsh(k)[-1]
    train, test = iterate(k, k_test, y, f0, f0_test, rate, 1000)
    steps = [1, 10, 1000]
    trajectory = lz.kernel_descent(k, y, learning_rate=rate, steps=steps, f0=f0, k_test=k_test, f0_test=f0_test)
    assert trajectory.train.dtype == trajectory.test.dtype == np.float64
    np.testing.assert_array_equal(trajectory.step, steps)
    np.testing.assert_allclose(trajectory.time, rate * np.array(steps), rtol=1e-15)
    np.testing.assert_allclose(trajectory.train, train[steps], rtol=0, atol=1e-10)
    np.testing.assert_allclose(trajectory.test, test[steps], rtol=0, atol=1e-10)


def test_a_number_of_steps_gives_every_step():
    k, k_test = kernels()
    y = targets(N)
    every = lz.kernel_descent(k, y, learning_rate=0.3, steps=20, k_test=k_test)
    train, test = iterate(k, k_test, y, np.zeros(N), np.zeros(N_TEST), 0.3, 20)
    np.testing.assert_array_equal(every.step, np.arange(21))
    assert_close(every.train, train)
    assert_close(every.test, test)
    some = lz.kernel_descent(spectrum(k), y, learning_rate=0.3, steps=np.array([7, 0, 7]))
    assert some.test is None
    assert_close(some.train, every.train[[7, 0, 7]], ulps=8)
    assert lz.kernel_descent(k, y, learning_rate=0.3, steps=0).train.shape == (1, N)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_initial_prediction_may_be_a_number(outputs):
    k, k_test = kernels()
    y = targets(N, outputs)
    arguments = {"learning_rate": 0.3, "steps": [0, 5], "k_test": k_test}
    number = lz.kernel_descent(k, y, f0=0.25, f0_test=-1.0, **arguments)
    array = lz.kernel_descent(
        k, y, f0=np.full(y.shape, 0.25), f0_test=np.full((N_TEST, *y.shape[1:]), -1.0), **arguments
    )
    np.testing.assert_array_equal(number.train, array.train)
    np.testing.assert_array_equal(number.test, array.test)
    assert_close(number.train[0], np.full(y.shape, 0.25))
    assert_close(number.test[0], np.full((N_TEST, *y.shape[1:]), -1.0))


def test_divergence_gives_infinite_predictions():
    k, k_test = kernels()
    y = targets(N)
    rate = 3 / np.linalg.eigvalsh(k)[-1]
    trajectory = lz.kernel_descent(k, y, learning_rate=rate, steps=[0, 1, 50, 100_000], k_test=k_test)
    train, _ = iterate(k, k_test, y, np.zeros(N), np.zeros(N_TEST), rate, 50)
    np.testing.assert_allclose(trajectory.train[:3], train[[0, 1, 50]], rtol=1e-10, atol=1e-10)
    assert not np.isfinite(trajectory.train[3]).any()
    assert not np.isfinite(trajectory.test[3]).any()
    assert_close(trajectory.displacement[1], rate * np.sqrt(y @ k @ y))
    assert not np.isfinite(trajectory.displacement[3])


@pytest.mark.parametrize("outputs", [1, 3])
def test_flow_agrees_with_neural_tangents(outputs):
    """The loss of neural-tangents has a factor 1 / (n k), so its times are n k times those of kernel_flow."""
    k, k_test = kernels()
    y, (f0, f0_test) = targets(N, outputs), starts(outputs)
    times = [0.0, 0.3, 5.0, 200.0]
    trajectory = lz.kernel_flow(k, y, times=times, f0=f0, k_test=k_test, f0_test=f0_test)
    columns = [value.reshape(-1, outputs) for value in (y, f0, f0_test)]
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        predict = neural_tangents().predict.gradient_descent_mse(jnp.asarray(k), jnp.asarray(columns[0]))
        theirs = [
            predict(N * outputs * t, jnp.asarray(columns[1]), jnp.asarray(columns[2]), jnp.asarray(k_test))
            for t in times
        ]
        train, test = (np.stack([np.asarray(pair[i]) for pair in theirs]) for i in (0, 1))
    np.testing.assert_allclose(trajectory.train, train.reshape(trajectory.train.shape), rtol=0, atol=1e-8)
    np.testing.assert_allclose(trajectory.test, test.reshape(trajectory.test.shape), rtol=0, atol=1e-8)
    assert trajectory.step is None
    np.testing.assert_array_equal(trajectory.time, times)


@pytest.mark.parametrize("singular", [False, True])
def test_flow_is_the_limit_of_descent(singular):
    k, k_test = kernels(singular)
    y, (f0, f0_test) = targets(N), starts(1)
    arguments = {"f0": f0, "k_test": k_test, "f0_test": f0_test}
    flow = lz.kernel_flow(k, y, times=[2.0], **arguments)

    def error(steps):
        descent = lz.kernel_descent(k, y, learning_rate=2.0 / steps, steps=[steps], **arguments)
        return np.array([np.abs(descent.train - flow.train).max(), np.abs(descent.test - flow.test).max()])

    assert np.all(error(20_000) < 1e-3)
    # The difference between descent and flow is of first order in the learning rate.
    np.testing.assert_allclose(error(20_000) / error(40_000), 2, rtol=0.02)


def test_flow_ends_at_kernel_regression():
    k, k_test = kernels()
    y = targets(N)
    trajectory = lz.kernel_flow(k, y, times=[1e9], k_test=k_test)
    assert_close(trajectory.train[0], y)
    assert_close(trajectory.test[0], k_test @ np.linalg.solve(k, y), ulps=1000)


def test_float32_kernels_are_predicted_in_float64():
    k, k_test = kernels()
    y = targets(N)
    arguments = {"learning_rate": 0.3, "steps": [3, 400]}
    low = [value.astype(np.float32) for value in (k, y, k_test)]
    for convert in (np.asarray, jnp.asarray):
        arrays = [convert(value) for value in low]
        trajectory = lz.kernel_descent(arrays[0], arrays[1], k_test=arrays[2], **arguments)
        assert type(trajectory.train) is type(trajectory.test) is np.ndarray
        assert trajectory.train.dtype == trajectory.test.dtype == np.float64
        double = [value.astype(np.float64) for value in low]
        expected = lz.kernel_descent(double[0], double[1], k_test=double[2], **arguments)
        np.testing.assert_array_equal(trajectory.train, expected.train)
        assert_close(trajectory.train, lz.kernel_descent(k, y, **arguments).train, dtype="float32", ulps=1000)


def test_results_stay_float64_outside_of_the_context():
    network, x = lz.TwoLayer(width=4), np.eye(3, dtype=np.float32)
    k = lz.analytic_kernel(network)(x)
    k0 = lz.empirical_ntk(network, network.init(jax.random.key(0), x), x)
    trajectory = lz.kernel_descent(k, np.ones(3), learning_rate=0.1, steps=3, k_test=k0)
    flow = lz.kernel_flow(k, np.ones(3), times=[1.0], k_test=k0)
    assert not jax.config.jax_enable_x64
    for value in (k, k0, *trajectory[:3], *flow[:3]):
        assert type(value) is np.ndarray
        assert (1 + value).dtype == value.sum().dtype == value.dtype == np.float64
    assert trajectory.step.dtype == np.int64


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("features", [5, 40])
def test_linearized_displacement_agrees_with_the_iteration(features, outputs):
    """Iterate theta <- theta - eta J' (J theta + f0 - y); K = J J' is singular if J has fewer columns than rows."""
    jacobian = np.random.default_rng(0).normal(size=(N, features)) / 3
    k = jacobian @ jacobian.T
    y, (f0, _) = targets(N, outputs).reshape(N, -1), starts(outputs)
    f0 = f0.reshape(N, -1)
    for fraction in (0.1, 0.9):
        rate = fraction * 2 / np.linalg.eigvalsh(k)[-1]
        theta, norms = np.zeros((features, outputs)), [0.0]
        for _ in range(300):
            theta = theta - rate * jacobian.T @ (jacobian @ theta + f0 - y)
            norms.append(np.linalg.norm(theta))
        steps = np.array([0, 1, 10, 300])
        trajectory = lz.kernel_descent(k, y, learning_rate=rate, steps=steps, f0=f0)
        np.testing.assert_allclose(trajectory.displacement, np.array(norms)[steps], rtol=1e-9, atol=1e-12)


def test_linearized_displacement_tends_to_the_norm_of_the_labels():
    k, _ = kernels()
    y = targets(N)
    trajectory = lz.kernel_descent(k, y, learning_rate=1 / np.linalg.eigvalsh(k)[-1], steps=[10**7])
    np.testing.assert_allclose(trajectory.displacement, np.sqrt(y @ np.linalg.solve(k, y)), rtol=1e-10)


def test_null_directions_of_the_kernel_do_not_move():
    """This holds even if a test row has a component along a null direction, which no consistent k_test has."""
    k, k_test = np.diag([2.0, 0.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    trajectory = lz.kernel_descent(k, np.ones(2), learning_rate=0.5, steps=[3, 1000], k_test=k_test)
    np.testing.assert_array_equal(trajectory.train, [[1.0, 0.0]] * 2)
    np.testing.assert_array_equal(trajectory.test, [[0.5, 0.0], [0.5, 0.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"steps": -1}, r"steps must be a nonnegative integer .*, got -1\."),
        ({"steps": []}, "steps"),
        ({"steps": [0, -3]}, "steps"),
        ({"steps": [0.5]}, "steps"),
        ({"steps": [float("nan")]}, "steps"),
        ({"y": np.ones(3)}, "y "),
        ({"y": np.array([1.0, np.nan])}, "y "),
        ({"k": np.array([[1.0, 0.0], [0.5, 1.0]])}, "k "),
        ({"k": np.diag([1.0, np.inf])}, "k "),
        ({"k": np.ones((2, 3))}, "k "),
        ({"k": [[1.0, 0.0], [1.0]]}, "k must be an array of real numbers"),
        ({"f0": np.ones(3)}, r"f0 must be a number or an array of shape \(2,\), got shape \(3,\)"),
        ({"f0": float("nan")}, "f0"),
        ({"k_test": np.ones((4, 3))}, r"k_test must be a matrix of shape \(n_test, 2\), got shape \(4, 3\)"),
        ({"k_test": np.full((4, 2), np.nan)}, "k_test"),
        ({"k_test": np.ones((4, 2)), "f0_test": np.ones(2)}, "f0_test"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"k": np.eye(2), "y": np.ones(2), "learning_rate": 0.1, "steps": 3} | change
    with unchecked(), pytest.raises(ValueError, match=rf"^{message}"):
        lz.kernel_descent(**arguments)


@pytest.mark.parametrize("times", [[], [-1.0], [np.nan], 3.0])
def test_bad_times_are_refused(times):
    with unchecked(), pytest.raises(ValueError, match="times must be a nonempty list of nonnegative numbers"):
        lz.kernel_flow(np.eye(2), np.ones(2), times=times)


def test_a_trajectory_has_no_test_predictions_without_a_test_kernel():
    k, k_test = kernels()
    trajectory = lz.kernel_descent(k, targets(N), learning_rate=0.1, steps=2, k_test=k_test)
    assert isinstance(trajectory, lz.Trajectory)
    assert trajectory.test.shape == (3, N_TEST)
    without_test = lz.kernel_flow(k, targets(N), times=[0.0, 1.0])
    assert without_test.test is None
    assert without_test.step is None
