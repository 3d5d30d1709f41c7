"""Kernel flow and descent of every loss, with momentum and mini-batches, compared with independent references."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from peer import neural_tangents
from problems import kernel_with
from reference import unit_rows
from scipy.special import expit, softmax
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics import _coefficients as coefficients
from lazynet.dynamics import _flow as flow
from lazynet.kernels import CrossOperator, dense_operator, kernel_operator, spectrum
from lazynet.losses import Loss, hinge, logistic, squared
from lazynet.networks import Linearized
from lazynet.precision import float64
from lazynet.training import AutodiffStepper, Member

# Evaluate every flow at three times, because each number of times needs its own compilation.
N, N_TEST = 20, 6
KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))
# The library does not recognize this loss as the squared loss, so it uses no closed form.
PLAIN = Loss("plain", squared().per_example)
GRADIENT = {
    "logistic": lambda f, y: -y * expit(-y * f),
    "softmax": lambda f, y: softmax(f, axis=1) - (y == y.max(axis=1, keepdims=True)),
    "hinge": lambda f, y: -y * (y * f < 1),
    "plain": lambda f, y: f - y,
}
LOSSES = {**lz.losses.LOSSES, "plain": lambda reduction: PLAIN}


def problem(loss, seed=0):
    """Return kernels, targets in the form that the loss expects, and initial predictions."""
    x, x_test = unit_rows(N, 5, seed), unit_rows(N_TEST, 5, seed + 1)
    rng = np.random.default_rng(seed)
    shape = (3,) if loss == "softmax" else ()
    y = np.eye(3)[rng.integers(3, size=N)] - 1 / 3 if loss == "softmax" else rng.choice([-1.0, 1.0], size=N)
    f0, f0_test = 0.3 * rng.normal(size=(N, *shape)), 0.3 * rng.normal(size=(N_TEST, *shape))
    return KERNEL(x), KERNEL(x_test, x), y, f0, f0_test


def runge_kutta(gradient, k, k_test, f0, f0_test, end, steps):
    """Integrate the coefficients with the classical Runge-Kutta method with fixed steps."""
    c, h = np.zeros_like(f0), end / steps

    def slope(c):
        return -gradient(f0 + k @ c)

    for _ in range(steps):
        k1 = slope(c)
        k2 = slope(c + h / 2 * k1)
        k3 = slope(c + h / 2 * k2)
        c = c + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(c + h * k3))
    return f0 + k @ c, f0_test + k_test @ c


def root_mean_square(x):
    return np.sqrt(np.mean(np.square(x)))


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "reduction"), [("logistic", "sum"), ("softmax", "mean")])
def test_flow_agrees_with_runge_kutta(loss, reduction):
    k, k_test, y, f0, f0_test = problem(loss)
    size = 1 if reduction == "sum" else N
    times = size * np.array([1.0, 10.0, 100.0]) / np.linalg.eigvalsh(k)[-1]
    starts = {"f0": f0, "k_test": k_test, "f0_test": f0_test}
    trajectory = lz.kernel_flow(k, y, times=times[[2, 0, 1]], loss=LOSSES[loss](reduction), tolerance=1e-6, **starts)
    assert trajectory.step is None
    np.testing.assert_array_equal(trajectory.time, times[[2, 0, 1]])
    for at, end in zip((1, 2, 0), times, strict=True):
        coarse, fine = (
            runge_kutta(lambda f: GRADIENT[loss](f, y) / size, k, k_test, f0, f0_test, end, steps)
            for steps in (200, 400)
        )
        for predicted, rough, good in zip((trajectory.train, trajectory.test), coarse, fine, strict=True):
            assert root_mean_square(good - rough) <= 1e-7
            assert root_mean_square(predicted[at] - good) <= 1e-6 * root_mean_square(good)


def hinge_flow(k, y, times):
    """Return the exact flow of the hinge loss from zero, which is linear in time until the next margin reaches 1.

    The flow follows the subgradient of least norm, in which examples with margin 1 have weights in [0, 1].
    """
    kernel = y[:, None] * k * y
    factor = np.linalg.cholesky(kernel)
    margin, now, predictions = np.zeros(len(y)), 0.0, []
    for stop in times:
        while now < stop:
            edge = np.abs(margin - 1) < 1e-9
            share = (margin < 1).astype(float)
            share[edge] = 0
            if edge.any():
                solved = scipy.optimize.lsq_linear(factor[edge].T, -factor.T @ share, (0, 1), method="bvls", tol=1e-14)
                share[edge] = solved.x
            speed = kernel @ share
            comes = ~edge & ((1 - margin) * speed > 0)
            step = min(stop - now, ((1 - margin)[comes] / speed[comes]).min(initial=np.inf))
            margin, now = margin + step * speed, now + step
        predictions.append(y * margin)
    return np.stack(predictions)


@pytest.mark.slow
def test_flow_of_the_hinge_loss_agrees_with_the_exact_flow():
    """With JAX's subgradient, margins that should stay at 1 oscillate; the estimated error must cover this."""
    k, y = KERNEL(np.abs(unit_rows(N, 5))), problem("hinge")[2]
    times, ones = np.array([0.1, 0.5, 5.0]), np.ones(N)
    # All entries of the kernel are positive, so no margin decreases.
    assert (k > 0).all()
    exact = hinge_flow(k, ones, times)
    assert (exact[-1] > 1).any()
    passing = lz.kernel_flow(k, ones, times=times, loss=hinge("sum"), tolerance=1e-7)
    assert np.abs(passing.train - exact).max() <= 1e-6
    exact = hinge_flow(k, y, times)
    assert (np.abs(y * exact[-1] - 1) < 1e-9).sum() > 3
    staying = lz.kernel_flow(k, y, times=times, loss=hinge("sum"), tolerance=1e-2)
    assert staying.error.total <= 1e-2
    worst, size = (np.linalg.norm(x, axis=1).max() for x in (staying.train - exact, exact))
    assert worst <= staying.error.total * size
    assert worst <= 1e-3 * size


@pytest.mark.parametrize("trial", range(4))
def test_the_estimated_error_bounds_the_true_error(trial):
    """The reference is a solution with a much smaller tolerance or, for the squared loss, the closed form."""
    rng = np.random.default_rng(trial)
    k, _ = kernel_with(8 * np.geomspace(10 ** rng.uniform(-6, -1), 1, N), seed=trial)
    y, f0 = rng.choice([-1.0, 1.0], size=N), rng.normal(size=N)
    times = np.geomspace(0.1, 10 ** rng.uniform(0, 3), 3)
    loss = (logistic("sum"), PLAIN)[trial % 2]
    if loss == PLAIN:
        good = lz.kernel_flow(k, y, times=times, f0=f0).train
    else:
        good = lz.kernel_flow(k, y, times=times, f0=f0, loss=loss, tolerance=1e-12).train
    size = np.linalg.norm(good - f0, axis=1).max()
    for tolerance in (1e-2, 1e-5, 1e-8):
        trajectory = lz.kernel_flow(k, y, times=times, f0=f0, loss=loss, tolerance=tolerance)
        assert trajectory.error.total <= tolerance
        assert np.linalg.norm(trajectory.train - good, axis=1).max() <= 10 * trajectory.error.total * size
    # Rounding the kernel to float32 must be covered by the storage error.
    rough = lz.kernel_flow(k.astype(np.float32), y, times=times, f0=f0, loss=loss, tolerance=1e-3)
    assert 1e-8 < rough.error.storage < 1e-3
    precise = lz.kernel_flow(k.astype(np.float32).astype(float), y, times=times, f0=f0, loss=loss, tolerance=1e-8)
    assert np.linalg.norm(precise.train - good, axis=1).max() <= 10 * rough.error.storage * size


def test_an_unreachable_tolerance_warns():
    k, _, y, _, _ = problem("logistic")
    with pytest.warns(UserWarning, match="above the tolerance of 1.0e-16: .* from time stepping"):
        trajectory = lz.kernel_flow(k, y, times=[0.0, 0.5, 1.0], loss=logistic("sum"), tolerance=1e-16)
    assert trajectory.error.total > 1e-16


def test_flow_agrees_with_neural_tangents():
    """The solver of neural-tangents is accurate to about 1e-8."""
    k, k_test, y, f0, f0_test = problem("softmax")
    times, loss = [0.5, 20.0, 200.0], lz.losses.softmax()
    trajectory = lz.kernel_flow(k, y, times=times, loss=loss, f0=f0, k_test=k_test, f0_test=f0_test, tolerance=1e-9)
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        arrays = [jnp.asarray(value) for value in (k, y, times, f0, f0_test, k_test)]
        train, test = neural_tangents().predict.gradient_descent(loss, *arrays[:2])(*arrays[2:])
    np.testing.assert_allclose(trajectory.train, train, rtol=0, atol=1e-6)
    np.testing.assert_allclose(trajectory.test, test, rtol=0, atol=1e-6)


def descend(features, features_test, y, f0, f0_test, loss, learning_rate, momentum, rows):
    """Train a linear model with optax and NumPy gradients; return the predictions at every step."""
    optimizer = optax.sgd(learning_rate, momentum or None)
    with float64():
        theta = jnp.zeros((features.shape[1], *f0.shape[1:]))
        state = optimizer.init(theta)
        train, test = [f0], [f0_test]
        for batch in rows:
            f = f0[batch] + features[batch] @ np.asarray(theta)
            gradient = GRADIENT[loss.name](f, y[batch])
            gradient = gradient / len(batch) * (1 if loss.reduction == "mean" else len(y))
            update, state = optimizer.update(jnp.asarray(features[batch].T @ gradient), state)
            theta = optax.apply_updates(theta, update)
            train.append(f0 + features @ np.asarray(theta))
            test.append(f0_test + features_test @ np.asarray(theta))
    return np.stack(train), np.stack(test)


CASES = [
    ("logistic", "sum", 0.0, None),
    ("logistic", "mean", 0.9, 7),
    ("softmax", "sum", 0.9, 1),
    ("hinge", "mean", 0.5, None),
    ("plain", "sum", 0.9, None),
    ("squared", "sum", 0.9, None),
    ("squared", "sum", 0.9, 7),
]


@pytest.mark.parametrize(("name", "reduction", "momentum", "batch"), CASES)
def test_descent_agrees_with_optax_in_the_parameters(name, reduction, momentum, batch):
    _, _, y, f0, f0_test = problem(name)
    rng = np.random.default_rng(0)
    features, features_test = rng.normal(size=(N, 31)) / 6, rng.normal(size=(N_TEST, 31)) / 6
    rows = None if batch is None else rng.integers(N, size=(40, batch))
    full = np.tile(np.arange(N), (40, 1))
    loss = {"squared": squared, "plain": lambda: PLAIN}.get(name, lambda: LOSSES[name](reduction))()
    rate = 0.05 * (N if reduction == "mean" else 1)
    reference = Loss("plain", loss.per_example) if name == "squared" else loss
    train, test = descend(
        features, features_test, y, f0, f0_test, reference, rate, momentum, full if rows is None else rows
    )
    starts = {"f0": f0, "k_test": features_test @ features.T, "f0_test": f0_test, "batches": rows}
    arguments = {"learning_rate": rate, "loss": loss, "momentum": momentum, **starts}
    trajectory = lz.kernel_descent(features @ features.T, y, steps=40, **arguments)
    assert np.linalg.norm(train[-1] - train[0]) > 0.5
    np.testing.assert_allclose(trajectory.train, train, rtol=0, atol=1e-11)
    np.testing.assert_allclose(trajectory.test, test, rtol=0, atol=1e-11)
    np.testing.assert_allclose(trajectory.time, rate * np.arange(41), rtol=1e-15)
    assert trajectory.error.truncation == 0


@pytest.mark.slow
def test_results_do_not_depend_on_the_division_into_calls(monkeypatch):
    k, k_test, y, f0, _ = problem("logistic")
    batches = np.random.default_rng(0).integers(N, size=(700, 3))
    steps, reports = [0, 700, 3, 3, 350, 351], []
    arguments = {"learning_rate": 0.3, "steps": steps, "loss": "logistic", "f0": f0, "batches": batches}
    expected = lz.kernel_descent(k, y, **arguments)
    all_steps = lz.kernel_descent(k, y, **arguments | {"steps": 700})
    np.testing.assert_allclose(all_steps.train[steps], expected.train, rtol=0, atol=1e-12)
    times, shared = [0.0, 0.2, 30.0], {"loss": logistic("sum"), "f0": f0, "k_test": k_test, "tolerance": 1e-8}
    expected_flow = lz.kernel_flow(k, y, times=times, **shared)
    np.testing.assert_array_equal(expected_flow.train[0], f0)
    monkeypatch.setattr(coefficients, "CALL_STEPS", 11)
    monkeypatch.setattr(flow, "CALL_STEPS", 5)
    parts = lz.kernel_descent(k, y, progress=lambda *at: reports.append(at), **arguments)
    np.testing.assert_array_equal(parts.train, expected.train)
    assert len(reports) >= 700 / 11
    assert reports[-1] == (700, 0.0)
    reports.clear()
    parts = lz.kernel_flow(k, y, times=times, progress=lambda *at: reports.append(at), **shared)
    np.testing.assert_allclose(parts.train, expected_flow.train, rtol=0, atol=1e-7)
    assert len(reports) > 10


@pytest.mark.slow
def test_descent_agrees_with_the_linearized_network(key):
    """Train the network with AutodiffStepper, and record its batches by passing indices as data."""
    network, loss, batch_size, steps = lz.TwoLayer(width=64, symmetric=False), logistic("sum"), 6, 30
    x = unit_rows(N + N_TEST, 5)
    y = np.random.default_rng(0).choice([-1.0, 1.0], size=N)
    stepper = AutodiffStepper(Linearized(network), loss, lambda rate: optax.sgd(rate, 0.5), batch_size)
    with float64():
        variables = dict(jax.jit(network.init)(key, x))
        member = Member(stepper.network.at(variables), key, None)
        shared = {"x": jnp.asarray(x[:N]), "y": jnp.asarray(y), "learning_rate": jnp.asarray(0.2)}
        numbers = {"x": jnp.arange(N), "y": jnp.arange(N)}

        @jax.jit
        def step(state, t):
            state = stepper.step(state, member, shared, t)[0]
            return state, stepper._batch(numbers, t, state[-1])[0]

        outputs = jax.jit(lambda state: stepper.network.apply(stepper.read(state, member, shared), x))
        state, order = jax.jit(lambda: stepper.start(member, shared))(), []
        start = np.asarray(outputs(state))
        for t in range(steps):
            state, batch = step(state, t)
            order.append(np.asarray(batch))
        trained = np.asarray(outputs(state))
        k = lz.empirical_ntk(network, variables, x, x[:N])
    starts = {"f0": start[:N], "k_test": k[N:], "f0_test": start[N:], "batches": np.stack(order)}
    trajectory = lz.kernel_descent(k[:N], y, learning_rate=0.2, steps=[steps], loss=loss, momentum=0.5, **starts)
    assert np.linalg.norm(trajectory.train[-1] - start[:N]) > 0.5
    np.testing.assert_allclose(np.concatenate([trajectory.train[0], trajectory.test[0]]), trained, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_a_wide_network_follows_the_flow():
    """With the logistic loss at width 2^13, outputs agree to 4% of their RMS up to t = 10 / lambda_max."""
    network = lz.TwoLayer(width=2**13)
    data = lz.load_dataset("digits", classes=(0, 1), n_train=64, n_test=32)
    k, k_test = KERNEL(data.x_train), KERNEL(data.x_test, data.x_train)
    end, steps = 10 / np.linalg.eigvalsh(k)[-1], 60
    options = {"loss": logistic("sum"), "snapshots": 1, "measure": lz.Measure(kernel_drift=False)}
    run = lz.train(network, data, jax.random.key(0), steps, learning_rate=end / steps, **options)
    trajectory = lz.kernel_flow(k, data.y_train, times=[end], loss=logistic("sum"), k_test=k_test)
    for name, predicted in (("train", trajectory.train[0]), ("test", trajectory.test[0])):
        trained = run.snapshots[f"{name}_prediction"].values[-1]
        assert root_mean_square(trained - predicted) <= 0.04 * root_mean_square(trained)


def test_every_form_of_a_kernel():
    """Operators, spectra and kernels that are not stored are converted to a matrix; singular kernels are allowed."""
    x, x_test = unit_rows(N, 5), unit_rows(N_TEST, 5, 1)
    k, k_test, y, _, _ = problem("logistic")
    arguments = {"learning_rate": 0.3, "steps": [0, 50], "loss": "logistic", "k_test": k_test}
    expected = lz.kernel_descent(k, y, **arguments)
    forms = (spectrum(k), dense_operator(k), kernel_operator(KERNEL, x, storage="none"), jnp.asarray(k, jnp.float32))
    for form in forms:
        trajectory = lz.kernel_descent(form, y, **arguments)
        allowed = 10 * trajectory.error.total * np.linalg.norm(expected.train[-1])
        assert np.linalg.norm(trajectory.train - expected.train) <= allowed < 1e-3
    cross = lz.kernel_descent(k, y, **arguments | {"k_test": CrossOperator(KERNEL, x_test, x, "float64")})
    np.testing.assert_allclose(cross.test, expected.test, rtol=0, atol=1e-12)
    singular = lz.kernel_descent(np.ones((N, N)), y, **arguments | {"k_test": None})
    assert singular.test is None
    np.testing.assert_allclose(np.ptp(singular.train, axis=1), 0, atol=1e-12)


def test_a_zero_gradient_moves_nothing():
    k, k_test, y, _, _ = problem("hinge")
    trajectory = lz.kernel_flow(k, y, times=[0.0, 1.0, 5.0], loss=hinge("sum"), f0=2 * y, k_test=k_test)
    np.testing.assert_array_equal(trajectory.train, np.stack([2 * y] * 3))
    assert not trajectory.test.any()
    assert trajectory.error.total == 0
    start = lz.kernel_flow(k, y, times=[0.0], loss="logistic")
    assert not start.train.any()


def test_divergence_gives_infinite_predictions():
    k, _, y, _, _ = problem("plain")
    trajectory = lz.kernel_descent(k, y, learning_rate=50.0, steps=[1, 5000], loss=PLAIN, momentum=0.5)
    assert np.isfinite(trajectory.train[0]).all()
    assert not np.isfinite(trajectory.train[1]).any()
    assert trajectory.error.storage == np.inf


@pytest.mark.slow
def test_a_flow_of_too_many_steps_is_refused(monkeypatch):
    k, _, y, _, _ = problem("logistic")
    runaway = Loss("runaway", lambda f, y: -(f**4) - f)
    with pytest.raises(ValueError, match=r"^times must be reachable within 100000 integration steps, got 1e\+06"):
        lz.kernel_flow(k, y, times=[0.0, 1.0, 1e6], loss=runaway)
    monkeypatch.setattr(flow, "CALL_STEPS", 5)
    arguments = {"times": [0.0, 1.0, 30.0], "loss": logistic("sum"), "tolerance": 1e-12}
    monkeypatch.setattr(flow, "STEPS", 4)
    with pytest.raises(ValueError, match=r"^times must be reachable within 4 "):
        lz.kernel_flow(k, y, **arguments)
    monkeypatch.setattr(flow, "STEPS", 60)
    with pytest.warns(UserWarning, match="from time stepping"):
        trajectory = lz.kernel_flow(k, y, **arguments)
    assert trajectory.error.truncation > 1e-12


BOTH = {
    "loss name": ({"loss": "cubic"}, "loss "),
    "softmax": ({"loss": "softmax"}, "y must have at least two targets per example for the softmax loss"),
    "logistic": (
        {"loss": "logistic", "y": np.ones((4, 2))},
        "y must have one target per example for the logistic loss",
    ),
    "method": (
        {"loss": "logistic", "method": "exact"},
        "method must be None (for any loss other than|unless) the squared loss",
    ),
    "kernel": ({"loss": "logistic", "k": np.diag([1.0, 1.0, 1.0, -0.5])}, "k must be positive semidefinite"),
    "transpose": ({"loss": "logistic", "k": np.triu(np.ones((4, 4)))}, "k "),
    "start": ({"loss": "logistic", "f0": np.ones(3)}, "f0 "),
    "k_test": ({"loss": "logistic", "k_test": np.ones((2, 3))}, "k_test "),
}
DESCENT = {
    "momentum": ({"momentum": 1.0}, "momentum must be a nonnegative number below 1"),
    "negative": ({"momentum": -0.1}, "momentum "),
    "not a number": ({"momentum": float("nan")}, "momentum "),
    "tolerance": ({"loss": "hinge", "tolerance": 1e-3}, "tolerance must be None unless the squared loss"),
    "batches with a method": ({"batches": np.zeros((3, 2), int), "method": "krylov"}, "method "),
    "one dimension": ({"batches": np.zeros(3, int)}, r"batches must be an integer array of shape \(3, B\)"),
    "rows": ({"batches": np.zeros((2, 2), int)}, "batches "),
    "empty": ({"batches": np.zeros((3, 0), int)}, "batches "),
    "fractions": ({"batches": np.zeros((3, 2))}, "batches "),
    "beyond": ({"batches": np.full((3, 2), 4)}, "batches must contain only indices from 0 to 3, got 4"),
    "before": ({"batches": np.full((3, 2), -1)}, "batches "),
}
FLOW = {
    "tolerance": ({"loss": "logistic", "tolerance": -1.0}, "tolerance "),
    "times": ({"loss": "logistic", "times": [np.inf]}, "times "),
}


@pytest.mark.parametrize(
    ("predict", "case"), [("flow", c) for c in BOTH | FLOW] + [("descent", c) for c in BOTH | DESCENT]
)
def test_bad_input_is_refused_before_the_work(predict, case, monkeypatch):
    change, message = (BOTH | (FLOW if predict == "flow" else DESCENT))[case]
    monkeypatch.setattr(flow, "_advance", None)
    monkeypatch.setattr(coefficients, "_steps", None)
    arguments = {"k": np.eye(4), "y": np.ones(4)} | change
    own = {"times": [1.0]} if predict == "flow" else {"learning_rate": 0.1, "steps": 3}
    with unchecked(), pytest.raises(ValueError, match=f"^{message}"):
        {"flow": lz.kernel_flow, "descent": lz.kernel_descent}[predict](**own | arguments)
