"""kernel_ensemble compared with neural-tangents, with training in weight space, and with wide networks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import neural_tangents
from problems import kernel_with
from reference import targets, unit_rows
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics import _ensemble as ensemble_module
from lazynet.kernels import kernel_operator, spectrum
from lazynet.precision import float64

N, N_TEST = 12, 5


NETWORK = lz.TwoLayer(width=1, symmetric=False)
NTK, NNGP = (lz.analytic_kernel(NETWORK.clone(train=train)) for train in ("hidden", "readout"))


def problem(kernel=NTK):
    """Return the kernel on the training set, that between test and training sets, and the covariance at the start."""
    x, x_test = unit_rows(N, 4), unit_rows(N_TEST, 4, seed=1)
    return kernel(x), kernel(x_test, x), NNGP(np.concatenate([x, x_test]))


class Kernels(NamedTuple):
    """Kernels of a network in the form that neural-tangents expects."""

    nngp: np.ndarray
    ntk: np.ndarray


def both_kernels(x1, x2, get):
    x1, x2 = np.asarray(x1), None if x2 is None else np.asarray(x2)
    both = Kernels(jnp.asarray(NNGP(x1, x2)), jnp.asarray(NTK(x1, x2)))
    return getattr(both, get) if isinstance(get, str) else both


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_ensemble_agrees_with_neural_tangents(outputs):
    """The loss of neural-tangents has a factor 1 / (n k), so its times are n k times those of kernel_ensemble."""
    x, x_test, y = unit_rows(N, 4), unit_rows(N_TEST, 4, seed=1), targets(N, outputs)
    times = np.array([0.0, 0.3, 5.0, 200.0, np.inf])
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        make = neural_tangents().predict.gradient_descent_mse_ensemble
        predict = make(both_kernels, jnp.asarray(x), jnp.asarray(y.reshape(N, -1)))

        def theirs(t, x_test):
            posteriors = predict(t, x_test=x_test, get=("ntk", "nngp"), compute_cov=True)
            return jax.tree.map(np.asarray, posteriors)

        at = {
            part: (theirs(N * outputs * times[:-1], rows), theirs(None, rows))
            for part, rows in (("train", None), ("test", jnp.asarray(x_test)))
        }
    for name, kernel in (("ntk", NTK), ("nngp", NNGP)):
        k, k_test, start = problem(kernel)
        ensemble = lz.kernel_ensemble(k, y, times=times, start_covariance=start, k_test=k_test)
        for part, (finite, limit) in at.items():
            for field in ("mean", "covariance"):
                ours = getattr(ensemble, f"{part}_{field}")
                before, last = (getattr(getattr(posteriors, name), field) for posteriors in (finite, limit))
                np.testing.assert_allclose(ours[:-1], before.reshape(ours[:-1].shape), rtol=0, atol=1e-8)
                np.testing.assert_allclose(ours[-1], last.reshape(ours[-1].shape), rtol=0, atol=1e-8)


@pytest.mark.parametrize("features", [7, 40])
def test_the_ensemble_of_linear_models_trained_in_weight_space(features):
    """Take Runge-Kutta steps of theta' = -J' (J theta - y) from starts with an exact mean and covariance.

    With 7 features for 12 rows, the kernel is singular.
    """
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(N + N_TEST, features)) / np.sqrt(features)
    root = rng.normal(size=(features, features))
    y = targets(N)
    theta = np.sqrt(features) * np.concatenate([root, -root], axis=1)
    train = jacobian[:N]

    def slope(theta):
        return -train.T @ (train @ theta - y[:, None])

    step, outputs = 0.02, [jacobian @ theta]
    for _ in range(200):
        a = slope(theta)
        b = slope(theta + step / 2 * a)
        c = slope(theta + step / 2 * b)
        d = slope(theta + step * c)
        theta = theta + step / 6 * (a + 2 * b + 2 * c + d)
        outputs.append(jacobian @ theta)
    times = [0.0, 0.2, 4.0]
    k = jacobian @ train.T
    start = jacobian @ root @ root.T @ jacobian.T
    ensemble = lz.kernel_ensemble(k[:N], y, times=times, start_covariance=start, k_test=k[N:])
    for i, t in enumerate(times):
        f = outputs[round(t / step)]
        mean, covariance = f.mean(axis=1), np.cov(f, bias=True)
        np.testing.assert_allclose(ensemble.train_mean[i], mean[:N], rtol=0, atol=1e-6)
        np.testing.assert_allclose(ensemble.test_mean[i], mean[N:], rtol=0, atol=1e-6)
        np.testing.assert_allclose(ensemble.train_covariance[i], covariance[:N, :N], rtol=0, atol=1e-5)
        np.testing.assert_allclose(ensemble.test_covariance[i], covariance[N:, N:], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_ensemble_of_wide_networks():
    """1000 networks of width 512 agree to within five standard errors, plus 0.02 for the finite width."""
    members, n, steps, eta = 1000, 4, 50, 0.04
    x = unit_rows(n + 3, 3, seed=4)
    y = targets(n, seed=1)
    network = NETWORK.clone(width=512)

    @jax.jit
    def outputs(keys, x, y):
        def train(key):
            variables = dict(network.init(key, x))

            def loss(params):
                return jnp.sum((network.apply({**variables, "params": params}, x[:n]) - y) ** 2) / 2

            def step(params, _):
                return jax.tree.map(lambda w, g: w - eta * g, params, jax.grad(loss)(params)), None

            params, _ = jax.lax.scan(step, variables["params"], None, length=steps)
            return network.apply(variables, x), network.apply({**variables, "params": params}, x)

        return jax.vmap(train)(keys)

    keys = jax.random.split(jax.random.key(0), members)
    before, after = (np.asarray(f, np.float64) for f in outputs(keys, x.astype("float32"), y.astype("float32")))
    k = lz.analytic_kernel(network)(x)
    start = lz.analytic_kernel(network.clone(train="readout"))(x)
    times = [0.0, steps * eta]
    ensemble = lz.kernel_ensemble(k[:n, :n], y, times=times, start_covariance=start, k_test=k[n:, :n])
    for i, f in enumerate((before, after)):
        for part, rows in (("train", slice(0, n)), ("test", slice(n, None))):
            mean, covariance = getattr(ensemble, f"{part}_mean")[i], getattr(ensemble, f"{part}_covariance")[i]
            variance = np.diag(covariance)
            error = np.sqrt(variance / members)
            assert np.all(np.abs(f[:, rows].mean(axis=0) - mean) < 5 * error + 0.02 * i)
            error = np.sqrt((np.outer(variance, variance) + covariance**2) / members)
            assert np.all(np.abs(np.cov(f[:, rows].T) - covariance) < 5 * error + 0.02 * i)
    assert np.abs(ensemble.train_mean[1]).max() > 0.2
    assert np.all(np.diag(ensemble.train_covariance[1]) < 0.5 * np.diag(ensemble.train_covariance[0]))


def test_the_mean_agrees_with_kernel_flow():
    k, k_test, start = problem()
    y, times = targets(N, 3), [0.0, 0.5, 20.0]
    ensemble = lz.kernel_ensemble(k, y, times=times, start_covariance=start, k_test=k_test)
    trajectory = lz.kernel_flow(k, y, times=times, k_test=k_test)
    np.testing.assert_array_equal(ensemble.time, times)
    assert_close(ensemble.train_mean, trajectory.train)
    assert_close(ensemble.test_mean, trajectory.test, ulps=1000)


def test_the_limit_for_a_trained_readout_is_bayesian_inference():
    k, k_test, start = problem(NNGP)
    np.testing.assert_array_equal(k, start[:N, :N])
    y = targets(N)
    ensemble = lz.kernel_ensemble(k, y, times=[np.inf], start_covariance=start, k_test=k_test)
    solved = np.linalg.solve(k, np.column_stack([y, k_test.T]))
    np.testing.assert_allclose(ensemble.test_mean[0], k_test @ solved[:, 0], rtol=0, atol=1e-10)
    posterior = start[N:, N:] - k_test @ solved[:, 1:]
    np.testing.assert_allclose(ensemble.test_covariance[0], posterior, rtol=0, atol=1e-10)
    assert_close(ensemble.train_mean[0], y)
    assert not ensemble.train_covariance.any()
    # The distribution of trained networks is wider, because its prior covariance differs from its kernel.
    k, k_test, _ = problem()
    other = lz.kernel_ensemble(k, y, times=[np.inf], start_covariance=start, k_test=k_test)
    assert np.trace(other.test_covariance[0]) > 1.05 * np.trace(posterior)


def test_null_directions_of_the_kernel_are_never_learned():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(N + N_TEST, 7))
    k = features @ features.T
    root = rng.normal(size=(N + N_TEST, N + N_TEST))
    start, y = root @ root.T, targets(N)
    ensemble = lz.kernel_ensemble(k[:N, :N], y, times=[1e4, 1e16, np.inf], start_covariance=start, k_test=k[N:, :N])
    inverse = np.linalg.pinv(k[:N, :N], rcond=1e-10, hermitian=True)
    unseen = np.eye(N) - k[:N, :N] @ inverse
    a = k[N:, :N] @ inverse
    d = np.concatenate([-a, np.eye(N_TEST)], axis=1)
    tolerance = 1e-9
    for i in range(3):
        np.testing.assert_allclose(ensemble.train_mean[i], y - unseen @ y, rtol=0, atol=tolerance)
        np.testing.assert_allclose(
            ensemble.train_covariance[i], unseen @ start[:N, :N] @ unseen, atol=tolerance, rtol=0
        )
        np.testing.assert_allclose(ensemble.test_mean[i], a @ y, rtol=0, atol=tolerance)
        np.testing.assert_allclose(ensemble.test_covariance[i], d @ start @ d.T, rtol=0, atol=tolerance)
    assert all(np.isfinite(part).all() for part in ensemble[1:])
    zero = lz.kernel_ensemble(np.zeros((2, 2)), np.ones(2), times=[np.inf], start_covariance=np.eye(2))
    np.testing.assert_array_equal(zero.train_mean, np.zeros((1, 2)))
    np.testing.assert_array_equal(zero.train_covariance[0], np.eye(2))


def test_every_form_of_kernel_and_float32():
    k, k_test, start = problem()
    y = targets(N)
    arguments = {"times": [0.7, np.inf], "start_covariance": start, "k_test": k_test}
    expected = lz.kernel_ensemble(k, y, **arguments)
    for kernel in (spectrum(k), kernel_operator(NTK, unit_rows(N, 4)), jnp.asarray(k, "float32")):
        single = isinstance(kernel, jax.Array)
        if single:
            arguments = {"times": [0.7, np.inf]} | {
                name: jnp.asarray(arguments[name], "float32") for name in ("start_covariance", "k_test")
            }
        ensemble = lz.kernel_ensemble(kernel, y.astype("float32") if single else y, **arguments)
        assert isinstance(ensemble, lz.Ensemble)
        for array, reference in zip(ensemble[1:], expected[1:], strict=True):
            assert type(array) is np.ndarray
            assert array.dtype == np.float64
            assert_close(array, reference, dtype="float32" if single else None, ulps=5000)
    for covariance in (ensemble.train_covariance, ensemble.test_covariance):
        np.testing.assert_array_equal(covariance, covariance.swapaxes(1, 2))
        assert np.linalg.eigvalsh(covariance).min() > -1e-5


def test_without_a_test_kernel_there_are_no_test_predictions():
    k, _, start = problem()
    ensemble = lz.kernel_ensemble(k, targets(N), times=[1.0], start_covariance=start[:N, :N])
    assert ensemble.test_mean is None
    assert ensemble.test_covariance is None


INDEFINITE = kernel_with([-0.25, 0.5, 1.0])[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": []}, "times"),
        ({"times": [-1.0]}, "times"),
        ({"times": [np.nan]}, "times"),
        ({"times": 3.0}, "times"),
        ({"y": np.ones(3)}, "y "),
        ({"y": np.array([1.0, np.nan])}, "y "),
        ({"k": np.array([[1.0, 0.0], [0.5, 1.0]])}, "k "),
        ({"k": np.diag([1.0, np.inf])}, "k "),
        ({"k": np.diag([1.0, -0.5])}, "k must be positive semidefinite"),
        ({"k_test": np.ones((1, 3))}, "k_test"),
        ({"k_test": np.full((1, 2), np.nan)}, "k_test"),
        ({"start_covariance": np.eye(2)}, r"start_covariance must have shape \(3, 3\)"),
        ({"start_covariance": np.ones((3, 2))}, "start_covariance"),
        ({"start_covariance": np.full((3, 3), np.nan)}, "start_covariance"),
        ({"start_covariance": np.triu(np.ones((3, 3)))}, "start_covariance"),
        ({"start_covariance": INDEFINITE}, "start_covariance must be positive semidefinite"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"k": np.eye(2), "y": np.ones(2), "times": [1.0], "k_test": np.ones((1, 2))}
    with unchecked(), pytest.raises(ValueError, match=f"^{message}"):
        lz.kernel_ensemble(**{**arguments, "start_covariance": np.eye(3), **change})


def test_covariances_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(ensemble_module, "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"^An ensemble of 3 rows at 100 times"):
        lz.kernel_ensemble(np.eye(3), np.ones(3), times=np.ones(100), start_covariance=np.eye(3))


def test_descent_agrees_with_the_iteration():
    """Outputs are linear in the initial outputs, so iterate each column of a square root of their covariance."""
    k, k_test, start = problem()
    y, rate, steps = targets(N), 0.7 / np.linalg.eigvalsh(problem()[0])[-1], [0, 1, 2, 7, 400]
    ensemble = lz.kernel_ensemble(
        k, y, times=rate * np.array(steps), start_covariance=start, k_test=k_test, learning_rate=rate
    )
    values, vectors = np.linalg.eigh(start)
    # Iterating the columns of the root gives the covariance; iterating zeros with the true targets gives the mean.
    f = np.column_stack([vectors * np.sqrt(np.maximum(values, 0)), np.zeros(N + N_TEST)])
    goal = np.column_stack([np.zeros((N, N + N_TEST)), y])
    both, place = np.concatenate([k, k_test]), 0
    for step in range(steps[-1] + 1):
        if step == steps[place]:
            root = f[:, :-1]
            np.testing.assert_allclose(ensemble.train_mean[place], f[:N, -1], atol=1e-10)
            np.testing.assert_allclose(ensemble.test_mean[place], f[N:, -1], atol=1e-10)
            np.testing.assert_allclose(ensemble.train_covariance[place], root[:N] @ root[:N].T, atol=1e-10)
            np.testing.assert_allclose(ensemble.test_covariance[place], root[N:] @ root[N:].T, atol=1e-10)
            place += 1
        f = f - rate * both @ (f[:N] - goal)
    assert place == len(steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.15]}, "times must be multiples of learning_rate"),
        ({"times": [np.inf]}, "times must be finite for gradient descent"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
    ],
)
def test_bad_steps_of_descent_are_refused(change, message):
    arguments = {"k": np.eye(2), "y": np.ones(2), "times": [0.1], "learning_rate": 0.1, "start_covariance": np.eye(2)}
    with pytest.raises(ValueError, match=message):
        lz.kernel_ensemble(**{**arguments, **change})
