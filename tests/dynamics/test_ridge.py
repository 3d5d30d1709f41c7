"""Test training with a ridge penalty and Nesterov momentum against gradient descent on explicit parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.linalg
from peer import neural_tangents
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics._laws import Law
from lazynet.kernels import dense_operator, spectrum
from lazynet.precision import float64

N, N_TEST, FEATURES, STEPS = 14, 5, 20, 80
RNG = np.random.default_rng(0)
# Features of a linear model whose kernel has eigenvalues from 1 down to about 1e-6.
BASIS = np.linalg.qr(RNG.normal(size=(N, N)))[0]
Z = BASIS * np.geomspace(1, 1e-3, N) @ np.linalg.qr(RNG.normal(size=(FEATURES, N)))[0].T
Z_TEST = 0.3 * RNG.normal(size=(N_TEST, FEATURES))
K, K_TEST = Z @ Z.T, Z_TEST @ Z.T
Y, F0, F0_TEST = np.sign(RNG.normal(size=N)), RNG.normal(size=N), RNG.normal(size=N_TEST)
LARGEST = float(np.linalg.eigvalsh(K)[-1])
RIDGES = [1e-3 * LARGEST, 0.1 * LARGEST, 3 * LARGEST]
STARTS = {"f0": F0, "k_test": K_TEST, "f0_test": F0_TEST}


def descend(ridge, rate, momentum=0.0, nesterov=False, loss=None, batches=None, steps=STEPS, decay=0.0, theta_0=0.0):
    """Train the linear model with optax, and return the parameters after every step."""
    loss = loss or lz.losses.get_loss("squared")
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        rule = optax.sgd(rate, momentum=momentum or None, nesterov=nesterov)
        rows = np.tile(np.arange(N), (steps, 1)) if batches is None else batches
        scale = N / rows.shape[1] if loss.reduction == "sum" else 1.0
        z, f0, y = map(jnp.asarray, (Z, F0, Y))

        def step(carry, rows):
            def penalized(theta):
                penalty = ridge / 2 * jnp.sum(theta**2) + decay / 2 * jnp.sum((theta_0 + theta) ** 2)
                return scale * loss(f0[rows] + z[rows] @ theta, y[rows]) + penalty

            theta, state = carry
            update, state = rule.update(jax.grad(penalized)(theta), state)
            return (theta + update, state), theta + update

        theta = jnp.zeros(FEATURES)
        path = jax.lax.scan(step, (theta, rule.init(theta)), jnp.asarray(rows))[1]
        return np.concatenate([np.zeros((1, FEATURES)), path])


def assert_is_path(trajectory, path):
    for found, start, features in ((trajectory.train, F0, Z), (trajectory.test, F0_TEST, Z_TEST)):
        np.testing.assert_allclose(found, start + path @ features.T, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(trajectory.displacement, np.linalg.norm(path, axis=1), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("ridge", RIDGES[1:])
def test_every_step_equals_descent_on_parameters(ridge, momentum, method):
    rate = 1.5 / (LARGEST + ridge)
    trajectory = lz.kernel_descent(
        K, Y, learning_rate=rate, steps=STEPS, momentum=momentum, ridge=ridge, method=method, tolerance=1e-9, **STARTS
    )
    assert_is_path(trajectory, descend(ridge, rate, momentum))
    assert trajectory.error.total < 1e-9


@pytest.mark.parametrize("ridge", [0.0, RIDGES[1]])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.8, "nesterov": True},
        {"loss": "logistic"},
        {"loss": lz.losses.Loss("mean", lambda f, y: 0.5 * (f - y) ** 2, "mean")},
        {"batches": 4},
        {"batches": 4, "momentum": 0.8, "nesterov": True, "loss": "hinge"},
    ],
    ids=["nesterov", "logistic", "mean", "batches", "all"],
)
def test_other_losses_and_batches_are_followed_step_by_step(options, ridge):
    rate, options = 0.7 / (LARGEST + ridge), dict(options)
    if "batches" in options:
        options["batches"] = np.random.default_rng(1).integers(N, size=(STEPS, options["batches"]))
        rate /= 4
    trajectory = lz.kernel_descent(K, Y, learning_rate=rate, steps=STEPS, ridge=ridge, **options, **STARTS)
    loss = lz.losses.get_loss(options.pop("loss", "squared"))
    assert_is_path(trajectory, descend(ridge, rate, loss=loss, **options))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.8, "nesterov": True, "batches": 4, "loss": "logistic"}])
@pytest.mark.parametrize("ridge", [0.0, RIDGES[1]])
def test_weight_decay_pulls_toward_zero(options, ridge):
    theta_0, decay = RNG.normal(size=FEATURES), 0.3
    origin = lz.Origin(Z @ theta_0, Z_TEST @ theta_0, float(np.linalg.norm(theta_0)))
    rate, options = 0.3 / (LARGEST + ridge + decay), dict(options)
    if "batches" in options:
        options["batches"] = np.random.default_rng(2).integers(N, size=(STEPS, 4))
    trajectory = lz.kernel_descent(
        K, Y, learning_rate=rate, steps=STEPS, ridge=ridge, weight_decay=decay, origin=origin, **options, **STARTS
    )
    loss = lz.losses.get_loss(options.pop("loss", "squared"))
    assert_is_path(trajectory, descend(ridge, rate, loss=loss, decay=decay, theta_0=theta_0, **options))


def test_weight_decay_needs_its_origin():
    options = {"learning_rate": 0.1, "steps": 2}
    good = lz.Origin(np.zeros(N), None, 1.0)
    with pytest.raises(ValueError, match=r"origin must be a lazynet\.Origin if weight_decay is positive, got None"):
        lz.kernel_descent(K, Y, weight_decay=0.1, **options)
    with pytest.raises(ValueError, match="origin must be None if weight_decay is 0"):
        lz.kernel_descent(K, Y, origin=good, **options)
    with unchecked():
        for origin, message in (
            (good._replace(train=np.zeros(3)), r"origin\.train must have the shape"),
            (good, r"origin\.test must have shape"),
            (good._replace(train=np.full(N, np.nan)), r"origin\.train must be finite"),
            (lz.Origin(np.zeros(N), np.zeros(N_TEST), -1.0), r"origin\.norm must be"),
        ):
            with pytest.raises(ValueError, match=message):
                lz.kernel_descent(K, Y, weight_decay=0.1, origin=origin, **options, **STARTS)
        with pytest.raises(ValueError, match="weight_decay must be"):
            lz.kernel_descent(K, Y, weight_decay=-0.1, origin=good, **options)


def test_nesterov_momentum_is_a_written_out_recursion_and_not_the_heavy_ball():
    rate, mu = 0.5 / LARGEST, 0.9
    c = v = np.zeros(N)
    outputs = [F0]
    for _ in range(300):
        g = F0 + K @ c - Y
        v = mu * v + g
        c = c - rate * (g + mu * v)
        outputs.append(F0 + K @ c)
    options = {"learning_rate": rate, "steps": 300, "momentum": mu, "f0": F0}
    nesterov = lz.kernel_descent(K, Y, nesterov=True, **options).train
    np.testing.assert_allclose(nesterov, np.stack(outputs), rtol=1e-10, atol=1e-10)
    heavy = lz.kernel_descent(K, Y, **options).train
    assert np.abs(heavy - nesterov).max() > 0.1
    for wrong in ({"method": "exact"}, {"tolerance": 1e-3}):
        with pytest.raises(ValueError, match="must be None unless the squared loss is used on the full batch without"):
            lz.kernel_descent(K, Y, nesterov=True, **options, **wrong)
    with pytest.raises(ValueError, match="nesterov must be False if momentum is 0"):
        lz.kernel_descent(K, Y, learning_rate=rate, steps=3, nesterov=True)


@pytest.mark.parametrize("ridge", RIDGES)
def test_descent_and_flow_converge_to_kernel_ridge_regression(ridge):
    inverse = np.linalg.solve(K + ridge * np.eye(N), Y - F0)
    expected = F0 + K @ inverse, F0_TEST + K_TEST @ inverse
    late = lz.kernel_descent(K, Y, learning_rate=1 / (LARGEST + ridge), steps=[10**6], ridge=ridge, **STARTS)
    flow = lz.kernel_flow(K, Y, times=[np.inf], ridge=ridge, **STARTS)
    for found in (late, flow):
        np.testing.assert_allclose(found.train[0], expected[0], rtol=1e-8)
        np.testing.assert_allclose(found.test[0], expected[1], rtol=1e-8)


@pytest.mark.parametrize("ridge", RIDGES)
def test_flow_is_a_matrix_exponential(ridge):
    times = np.array([0.0, 0.3, 10.0, 1e4])
    flow = lz.kernel_flow(K, Y, times=times, ridge=ridge, **STARTS)
    shifted = K + ridge * np.eye(N)
    for i, t in enumerate(times):
        c = np.linalg.solve(shifted, (np.eye(N) - scipy.linalg.expm(-t * shifted)) @ (Y - F0))
        np.testing.assert_allclose(flow.train[i], F0 + K @ c, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(flow.test[i], F0_TEST + K_TEST @ c, rtol=1e-9, atol=1e-10)


def test_flow_on_another_loss_agrees_with_scipy():
    ridge, times = RIDGES[1], np.array([0.0, 1.0, 30.0])

    def velocity(t, c):
        return Y / (1 + np.exp(Y * (F0 + K @ c))) / N - ridge * c

    solved = scipy.integrate.solve_ivp(velocity, (0, 30.0), np.zeros(N), t_eval=times, rtol=1e-11, atol=1e-12)
    with unchecked():
        flow = lz.kernel_flow(K, Y, times=times, loss="logistic", ridge=ridge, tolerance=1e-8, **STARTS)
    np.testing.assert_allclose(flow.train, F0 + solved.y.T @ K, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(flow.test, F0_TEST + solved.y.T @ K_TEST.T, rtol=1e-7, atol=1e-7)


def test_the_error_of_the_krylov_method_is_at_least_the_true_error():
    """The spectrum decays slowly, so that a few kernel products leave a measurable error."""
    random, n, checked = np.random.default_rng(5), 200, 0
    vectors = np.linalg.qr(random.normal(size=(n, n)))[0]
    for trial in range(30):
        values = np.geomspace(1, 10.0 ** random.uniform(-6, -1), n)
        k, y = vectors * values @ vectors.T, random.normal(size=n)
        ridge, momentum = 10.0 ** random.uniform(-4, 0), (0.0, 0.0, 0.9)[trial % 3]
        options = {"learning_rate": random.uniform(0.2, 1.9) / (1 + ridge), "momentum": momentum, "ridge": ridge}
        steps = [3, int(10 ** random.uniform(1, 4))]
        with unchecked():
            fast = lz.kernel_descent(k, y, steps=steps, method="krylov", tolerance=1e-3, **options)
            exact = lz.kernel_descent(k, y, steps=steps, method="exact", **options)
        error = np.linalg.norm(fast.train - exact.train, axis=1).max() / np.linalg.norm(y)
        assert error <= fast.error.total
        checked += error > 1e-6
    assert checked > 15


class Kernels(NamedTuple):
    """Kernels of a network in the form that neural-tangents expects."""

    nngp: np.ndarray
    ntk: np.ndarray


@pytest.mark.slow
def test_ensembles_of_networks_with_a_ridge_agree_with_neural_tangents():
    network = lz.TwoLayer(width=1, symmetric=False)
    ntk, nngp = (lz.analytic_kernel(network.clone(train=train)) for train in ("hidden", "readout"))
    data = lz.load_dataset("digits", n_train=24, n_test=8)
    x, x_test, y, n = data.x_train, data.x_test, data.y_train, 24

    def both(x1, x2, get):
        x1, x2 = np.asarray(x1), None if x2 is None else np.asarray(x2)
        found = Kernels(*(jnp.asarray(kernel(x1, x2)) for kernel in (nngp, ntk)))
        return getattr(found, get) if isinstance(get, str) else found

    start = nngp(np.concatenate([x, x_test]))
    for ridge in (1e-3, 0.3):
        times = [0.5, 20.0, np.inf]
        ours = lz.kernel_ensemble(ntk(x), y, times=times, start_covariance=start, k_test=ntk(x_test, x), ridge=ridge)
        with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), unchecked():
            predict = neural_tangents().predict.gradient_descent_mse_ensemble(
                both, jnp.asarray(x), jnp.asarray(y)[:, None], diag_reg=ridge, diag_reg_absolute_scale=True
            )
            for i, t in enumerate(times):
                theirs = predict(
                    t=None if t == np.inf else n * t, x_test=jnp.asarray(x_test), get="ntk", compute_cov=True
                )
                np.testing.assert_allclose(ours.test_mean[i], np.asarray(theirs.mean)[:, 0], rtol=1e-8, atol=1e-10)
                np.testing.assert_allclose(ours.test_covariance[i], np.asarray(theirs.covariance), rtol=1e-8, atol=1e-9)
            bayesian = predict(t=None, x_test=jnp.asarray(x_test), get="nngp", compute_cov=True)
        posterior = lz.kernel_posterior(nngp(x), y, noise=ridge, k_test=nngp(x_test, x), k_test_test=nngp(x_test))
        np.testing.assert_allclose(posterior.mean, np.asarray(bayesian.mean)[:, 0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(posterior.covariance, np.asarray(bayesian.covariance), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rate", [None, 0.4])
def test_ensembles_with_a_ridge_are_linear_maps_of_the_start(rate):
    """Compare the mean and covariance with those computed from the trajectories that start at each unit vector."""
    ridge, times = RIDGES[1], [0.0, 2.0, 40.0]
    root = RNG.normal(size=(N + N_TEST, N + N_TEST))
    start = root @ root.T
    ensemble = lz.kernel_ensemble(
        K, Y, times=times, start_covariance=start, k_test=K_TEST, learning_rate=rate, ridge=ridge
    )

    def outputs(f0):
        options = {"f0": f0[:N], "k_test": K_TEST, "f0_test": f0[N:], "ridge": ridge}
        if rate is None:
            return lz.kernel_flow(K, Y, times=times, **options)
        return lz.kernel_descent(K, Y, learning_rate=rate, steps=[round(t / rate) for t in times], **options)

    at_zero = outputs(np.zeros(N + N_TEST))
    maps = [outputs(unit) for unit in np.eye(N + N_TEST)]
    for part, mean, covariance in (
        ("train", ensemble.train_mean, ensemble.train_covariance),
        ("test", ensemble.test_mean, ensemble.test_covariance),
    ):
        offset = getattr(at_zero, part)
        np.testing.assert_allclose(mean, offset, rtol=1e-9, atol=1e-10)
        linear = np.stack([getattr(each, part) - offset for each in maps], axis=-1)
        np.testing.assert_allclose(covariance, linear @ start @ np.swapaxes(linear, 1, 2), rtol=1e-8, atol=1e-8)


def test_the_posterior_equals_a_conditioned_gaussian():
    noise, inner = 0.2, RNG.normal(size=(N + N_TEST, N + N_TEST))
    s = inner @ inner.T
    inverse = np.linalg.inv(s + np.diag(np.r_[np.full(N, noise), np.zeros(N_TEST)]))
    # The covariance of the test values given the others is the inverse of a block of the precision matrix.
    covariance = np.linalg.inv(inverse[N:, N:])
    for y in (Y, np.stack([Y, F0], axis=1)):
        found = lz.kernel_posterior(s[:N, :N], y, noise=noise, k_test=s[N:, :N], k_test_test=s[N:, N:])
        assert isinstance(found, lz.Posterior)
        np.testing.assert_allclose(found.mean, -covariance @ inverse[N:, :N] @ y, rtol=1e-7)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-7)
    with pytest.raises(ValueError, match="k must be positive definite after adding noise = 0 to its diagonal"):
        lz.kernel_posterior(np.ones((2, 2)), np.ones(2), noise=0.0, k_test=np.ones((1, 2)), k_test_test=np.eye(1))
    with unchecked(), pytest.raises(ValueError, match=r"k_test_test must have shape \(1, 1\)"):
        lz.kernel_posterior(np.eye(2), np.ones(2), noise=0.1, k_test=np.ones((1, 2)), k_test_test=np.eye(2))


@pytest.mark.parametrize("operator", [False, True])
def test_complexity_with_a_ridge(operator):
    k = dense_operator(K) if operator else K
    for ridge in RIDGES:
        expected = np.sqrt(2 * Y @ np.linalg.solve(K + ridge * np.eye(N), Y) / N)
        assert lz.complexity(k, Y, ridge=ridge) == pytest.approx(expected, rel=1e-5 if operator else 1e-12)
    singular = np.ones((2, 2))
    assert lz.complexity(singular, np.ones(2), ridge=1.0) == pytest.approx(np.sqrt(2 / 3))


def test_a_spectrum_and_zero_eigenvalues_take_a_ridge():
    k = Z[:, :1] @ Z[:, :1].T
    c = np.linalg.solve(k + 0.5 * np.eye(N), Y)
    for kernel in (k, spectrum(k)):
        limit = lz.kernel_flow(kernel, Y, times=[np.inf], ridge=0.5, k_test=Z_TEST[:, :1] @ Z[:, :1].T)
        np.testing.assert_allclose(limit.train[0], k @ c, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(limit.test[0], Z_TEST[:, :1] @ Z[:, :1].T @ c, rtol=1e-9, atol=1e-12)


def test_above_the_limit_predictions_are_infinite_and_those_of_null_modes_stay():
    law = Law(np.array([15_000.0]), np.array([5000]), 3.0, ridge=2.0)
    with np.errstate(invalid="ignore", over="ignore"):
        grown = law.growth(np.array([0.0, 1.0]))[0]
    assert grown[0] == 0
    assert not np.isfinite(grown[1])


@pytest.mark.parametrize("ridge", [-1.0, np.nan, np.inf, "1"])
def test_wrong_ridges_are_refused(ridge):
    with unchecked():
        for call in (
            lambda: lz.kernel_descent(K, Y, learning_rate=0.1, steps=2, ridge=ridge),
            lambda: lz.kernel_flow(K, Y, times=[1.0], ridge=ridge),
            lambda: lz.kernel_ensemble(K, Y, times=[1.0], start_covariance=K, ridge=ridge),
            lambda: lz.complexity(K, Y, ridge=ridge),
        ):
            with pytest.raises(ValueError, match="ridge must be"):
                call()


def test_too_large_rates_are_refused_by_the_krylov_method():
    with pytest.raises(ValueError, match=r"at most 2 / \(lambda_max \+ ridge\) = "):
        lz.kernel_descent(K, Y, learning_rate=1.5 / LARGEST, steps=9, ridge=LARGEST, method="krylov")
