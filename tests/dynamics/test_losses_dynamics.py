"""Kernel flow and descent of every loss, with momentum and batches, against references that share no code with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from problems import kernel_with
from reference import unit_rows
from scipy.special import expit, softmax
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics import _coefficients as coefficients
from lazynet.dynamics import _flow as flow
from lazynet.kernels import CrossOperator, dense_operator, kernel_operator, neural_tangents, spectrum
from lazynet.losses import Loss, hinge, logistic, squared
from lazynet.networks import Linearized
from lazynet.precision import float64
from lazynet.training import AutodiffStepper, Member

# Three times for every flow, because another number of them is another compilation.
N, N_TEST = 20, 6
KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))
# Not the loss that has closed forms, as far as the library can know.
PLAIN = Loss("plain", squared().per_example)
GRADIENT = {
    "logistic": lambda f, y: -y * expit(-y * f),
    "softmax": lambda f, y: softmax(f, axis=1) - (y == y.max(axis=1, keepdims=True)),
    "hinge": lambda f, y: -y * (y * f < 1),
    "plain": lambda f, y: f - y,
}
LOSSES = {**lz.losses.LOSSES, "plain": lambda reduction: PLAIN}


def problem(loss, seed=0):
    """Kernels, targets as the loss takes them, and starts."""
    x, x_test = unit_rows(N, 5, seed), unit_rows(N_TEST, 5, seed + 1)
    rng = np.random.default_rng(seed)
    shape = (3,) if loss == "softmax" else ()
    y = np.eye(3)[rng.integers(3, size=N)] - 1 / 3 if loss == "softmax" else rng.choice([-1.0, 1.0], size=N)
    f0, f0_test = 0.3 * rng.normal(size=(N, *shape)), 0.3 * rng.normal(size=(N_TEST, *shape))
    return KERNEL(x), KERNEL(x_test, x), y, f0, f0_test


def runge_kutta(gradient, k, k_test, f0, f0_test, end, steps):
    """The classical method in fixed steps of the coefficients."""
    c, h = np.zeros_like(f0), end / steps

    def slope(c):
        return -gradient(f0 + k @ c)

    for _ in range(steps):
        one = slope(c)
        two = slope(c + h / 2 * one)
        three = slope(c + h / 2 * two)
        c = c + h / 6 * (one + 2 * two + 2 * three + slope(c + h * three))
    return f0 + k @ c, f0_test + k_test @ c


def root_mean_square(x):
    return np.sqrt(np.mean(np.square(x)))


@pytest.mark.parametrize(("loss", "reduction"), [("logistic", "sum"), ("softmax", "mean")])
def test_flow_is_a_step_halved_reference(loss, reduction):
    k, k_test, y, f0, f0_test = problem(loss)
    size = 1 if reduction == "sum" else N
    times = size * np.array([1.0, 10.0, 100.0]) / np.linalg.eigvalsh(k)[-1]
    starts = {"f0": f0, "k_test": k_test, "f0_test": f0_test}
    path = lz.kernel_flow(k, y, times=times[[2, 0, 1]], loss=LOSSES[loss](reduction), tolerance=1e-6, **starts)
    assert path.step is None
    np.testing.assert_array_equal(path.time, times[[2, 0, 1]])
    for at, end in zip((1, 2, 0), times, strict=True):
        coarse, fine = (
            runge_kutta(lambda f: GRADIENT[loss](f, y) / size, k, k_test, f0, f0_test, end, steps)
            for steps in (200, 400)
        )
        for found, rough, good in zip((path.train, path.test), coarse, fine, strict=True):
            assert root_mean_square(good - rough) <= 1e-7
            assert root_mean_square(found[at] - good) <= 1e-6 * root_mean_square(good)


def hinge_path(k, y, times):
    """The exact flow from zero, which goes straight from one time to the next at which a margin comes to 1.

    Of all subgradients it takes the one that moves the parameters least: shares in [0, 1] of the examples on the edge.
    """
    kernel = y[:, None] * k * y
    factor = np.linalg.cholesky(kernel)
    margin, now, found = np.zeros(len(y)), 0.0, []
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
        found.append(y * margin)
    return np.stack(found)


def test_flow_of_hinge_is_its_exact_path():
    """To 1e-6 where margins pass 1; where they stay there, on which jax's subgradient chatters, as well as it says."""
    k, y = KERNEL(np.abs(unit_rows(N, 5))), problem("hinge")[2]
    times, ones = np.array([0.1, 0.5, 5.0]), np.ones(N)
    # Nothing pulls a margin back.
    assert (k > 0).all()
    exact = hinge_path(k, ones, times)
    assert (exact[-1] > 1).any()
    passing = lz.kernel_flow(k, ones, times=times, loss=hinge("sum"), tolerance=1e-7)
    assert np.abs(passing.train - exact).max() <= 1e-6
    exact = hinge_path(k, y, times)
    assert (np.abs(y * exact[-1] - 1) < 1e-9).sum() > 3
    staying = lz.kernel_flow(k, y, times=times, loss=hinge("sum"), tolerance=1e-2)
    assert staying.error.total <= 1e-2
    worst, size = (np.linalg.norm(x, axis=1).max() for x in (staying.train - exact, exact))
    assert worst <= staying.error.total * size
    assert worst <= 1e-3 * size


@pytest.mark.parametrize("trial", range(8))
def test_the_error_of_flow_is_honest(trial):
    """Against a solution with a far smaller tolerance, and for the squared loss against its closed form."""
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
        path = lz.kernel_flow(k, y, times=times, f0=f0, loss=loss, tolerance=tolerance)
        assert path.error.total <= tolerance
        assert np.linalg.norm(path.train - good, axis=1).max() <= 10 * path.error.total * size
    # A kernel in float32 is another kernel.
    rough = lz.kernel_flow(k.astype(np.float32), y, times=times, f0=f0, loss=loss, tolerance=1e-3)
    assert 1e-8 < rough.error.storage < 1e-3
    precise = lz.kernel_flow(k.astype(np.float32).astype(float), y, times=times, f0=f0, loss=loss, tolerance=1e-8)
    assert np.linalg.norm(precise.train - good, axis=1).max() <= 10 * rough.error.storage * size


def test_a_tolerance_out_of_reach_is_said():
    k, _, y, _, _ = problem("logistic")
    with pytest.warns(UserWarning, match="above the tolerance 1.0e-16: .* from steps in time, .* from rounding"):
        path = lz.kernel_flow(k, y, times=[0.0, 0.5, 1.0], loss=logistic("sum"), tolerance=1e-16)
    assert path.error.total > 1e-16


def test_flow_is_that_of_neural_tangents():
    """Its solver goes on to about 1e-8."""
    k, k_test, y, f0, f0_test = problem("softmax")
    times, loss = [0.5, 20.0, 200.0], lz.losses.softmax()
    path = lz.kernel_flow(k, y, times=times, loss=loss, f0=f0, k_test=k_test, f0_test=f0_test, tolerance=1e-9)
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        arrays = [jnp.asarray(value) for value in (k, y, times, f0, f0_test, k_test)]
        train, test = neural_tangents().predict.gradient_descent(loss, *arrays[:2])(*arrays[2:])
    np.testing.assert_allclose(path.train, train, rtol=0, atol=1e-6)
    np.testing.assert_allclose(path.test, test, rtol=0, atol=1e-6)


def descend(features, features_test, y, f0, f0_test, loss, learning_rate, momentum, rows):
    """A linear model trained by optax in its parameters, NumPy gradients; predictions at every step."""
    optimizer = optax.sgd(learning_rate, momentum or None)
    with float64():
        theta = jnp.zeros((features.shape[1], *f0.shape[1:]))
        memory = optimizer.init(theta)
        train, test = [f0], [f0_test]
        for batch in rows:
            f = f0[batch] + features[batch] @ np.asarray(theta)
            back = GRADIENT[loss.name](f, y[batch])
            back = back / len(batch) * (1 if loss.reduction == "mean" else len(y))
            update, memory = optimizer.update(jnp.asarray(features[batch].T @ back), memory)
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
def test_descent_is_optax_in_parameters(name, reduction, momentum, batch):
    _, _, y, f0, f0_test = problem(name)
    rng = np.random.default_rng(0)
    features, features_test = rng.normal(size=(N, 31)) / 6, rng.normal(size=(N_TEST, 31)) / 6
    rows = None if batch is None else rng.integers(N, size=(40, batch))
    full = np.tile(np.arange(N), (40, 1))
    loss = {"squared": squared, "plain": lambda: PLAIN}.get(name, lambda: LOSSES[name](reduction))()
    rate = 0.05 * (N if reduction == "mean" else 1)
    named = Loss("plain", loss.per_example) if name == "squared" else loss
    train, test = descend(
        features, features_test, y, f0, f0_test, named, rate, momentum, full if rows is None else rows
    )
    starts = {"f0": f0, "k_test": features_test @ features.T, "f0_test": f0_test, "batches": rows}
    arguments = {"learning_rate": rate, "loss": loss, "momentum": momentum, **starts}
    path = lz.kernel_descent(features @ features.T, y, steps=40, **arguments)
    assert np.linalg.norm(train[-1] - train[0]) > 0.5
    np.testing.assert_allclose(path.train, train, rtol=0, atol=1e-11)
    np.testing.assert_allclose(path.test, test, rtol=0, atol=1e-11)
    np.testing.assert_allclose(path.time, rate * np.arange(41), rtol=1e-15)
    assert path.error.truncation == 0


def test_division_into_calls_does_not_show(monkeypatch):
    k, k_test, y, f0, _ = problem("logistic")
    batches = np.random.default_rng(0).integers(N, size=(700, 3))
    steps, seen = [0, 700, 3, 3, 350, 351], []
    arguments = {"learning_rate": 0.3, "steps": steps, "loss": "logistic", "f0": f0, "batches": batches}
    whole = lz.kernel_descent(k, y, **arguments)
    every = lz.kernel_descent(k, y, **arguments | {"steps": 700})
    np.testing.assert_allclose(every.train[steps], whole.train, rtol=0, atol=1e-12)
    times, shared = [0.0, 0.2, 30.0], {"loss": logistic("sum"), "f0": f0, "k_test": k_test, "tolerance": 1e-8}
    flowed = lz.kernel_flow(k, y, times=times, **shared)
    np.testing.assert_array_equal(flowed.train[0], f0)
    monkeypatch.setattr(coefficients, "CALL_STEPS", 11)
    monkeypatch.setattr(flow, "CALL_STEPS", 5)
    parts = lz.kernel_descent(k, y, progress=lambda *at: seen.append(at), **arguments)
    np.testing.assert_array_equal(parts.train, whole.train)
    assert len(seen) >= 700 / 11
    assert seen[-1] == (700, 0.0)
    seen.clear()
    parts = lz.kernel_flow(k, y, times=times, progress=lambda *at: seen.append(at), **shared)
    np.testing.assert_allclose(parts.train, flowed.train, rtol=0, atol=1e-7)
    assert len(seen) > 10


def test_descent_is_the_linearized_network(key):
    """Trained by the library's own training path, whose order of batches is read off by letting it batch numbers."""
    network, loss, batch_size, steps = lz.TwoLayer(width=64, symmetric=False), logistic("sum"), 6, 30
    x = unit_rows(N + N_TEST, 5)
    y = np.random.default_rng(0).choice([-1.0, 1.0], size=N)
    path = AutodiffStepper(Linearized(network), loss, lambda rate: optax.sgd(rate, 0.5), batch_size)
    with float64():
        variables = dict(network.init(key, jnp.asarray(x)))
        member = Member(path.network.at(variables), key, None)
        shared = {"x": jnp.asarray(x[:N]), "y": jnp.asarray(y), "learning_rate": jnp.asarray(0.2)}
        numbers = {"x": jnp.arange(N), "y": jnp.arange(N)}

        @jax.jit
        def step(state, t):
            state = path.step(state, member, shared, t)[0]
            return state, path._batch(numbers, t, state[-1])[0]

        state, order = path.start(member, shared), []
        start = np.asarray(path.network.apply(path.read(state, member, shared), jnp.asarray(x)))
        for t in range(steps):
            state, batch = step(state, t)
            order.append(np.asarray(batch))
        trained = np.asarray(path.network.apply(path.read(state, member, shared), jnp.asarray(x)))
        k = lz.empirical_ntk(network, variables, x, x[:N])
    starts = {"f0": start[:N], "k_test": k[N:], "f0_test": start[N:], "batches": np.stack(order)}
    found = lz.kernel_descent(k[:N], y, learning_rate=0.2, steps=[steps], loss=loss, momentum=0.5, **starts)
    assert np.linalg.norm(found.train[-1] - start[:N]) > 0.5
    np.testing.assert_allclose(np.concatenate([found.train[0], found.test[0]]), trained, rtol=0, atol=1e-10)


def test_a_wide_network_follows_the_flow():
    """Logistic loss, width 2^15, small steps up to t = 10 / lambda_max: within 2% of the RMS of the outputs."""
    network = lz.TwoLayer(width=2**15)
    data = lz.load_dataset("digits", classes=(0, 1), n_train=64, n_test=32)
    k, k_test = KERNEL(data.x_train), KERNEL(data.x_test, data.x_train)
    end, steps = 10 / np.linalg.eigvalsh(k)[-1], 60
    run = lz.train(
        network, data, jax.random.key(0), steps, learning_rate=end / steps, loss=logistic("sum"), snapshots=1
    )
    path = lz.kernel_flow(k, data.y_train, times=[end], loss=logistic("sum"), k_test=k_test)
    for name, predicted in (("train", path.train[0]), ("test", path.test[0])):
        trained = run.snapshots[f"{name}_prediction"].values[-1]
        assert root_mean_square(trained - predicted) <= 0.02 * root_mean_square(trained)


def test_every_form_of_a_kernel():
    """Operators, spectra and kernels that are multiplied only are made whole; a singular kernel is a kernel."""
    x, x_test = unit_rows(N, 5), unit_rows(N_TEST, 5, 1)
    k, k_test, y, _, _ = problem("logistic")
    arguments = {"learning_rate": 0.3, "steps": [0, 50], "loss": "logistic", "k_test": k_test}
    found = lz.kernel_descent(k, y, **arguments)
    forms = (spectrum(k), dense_operator(k), kernel_operator(KERNEL, x, storage="none"), jnp.asarray(k, jnp.float32))
    for form in forms:
        path = lz.kernel_descent(form, y, **arguments)
        allowed = 10 * path.error.total * np.linalg.norm(found.train[-1])
        assert np.linalg.norm(path.train - found.train) <= allowed < 1e-3
    cross = lz.kernel_descent(k, y, **arguments | {"k_test": CrossOperator(KERNEL, x_test, x, "float64")})
    np.testing.assert_allclose(cross.test, found.test, rtol=0, atol=1e-12)
    singular = lz.kernel_descent(np.ones((N, N)), y, **arguments | {"k_test": None})
    assert singular.test is None
    np.testing.assert_allclose(np.ptp(singular.train, axis=1), 0, atol=1e-12)


def test_where_nothing_pulls_nothing_moves():
    k, k_test, y, _, _ = problem("hinge")
    path = lz.kernel_flow(k, y, times=[0.0, 1.0, 5.0], loss=hinge("sum"), f0=2 * y, k_test=k_test)
    np.testing.assert_array_equal(path.train, np.stack([2 * y] * 3))
    assert not path.test.any()
    assert path.error.total == 0
    start = lz.kernel_flow(k, y, times=[0.0], loss="logistic")
    assert not start.train.any()


def test_descent_that_diverges_is_no_error():
    k, _, y, _, _ = problem("plain")
    path = lz.kernel_descent(k, y, learning_rate=50.0, steps=[1, 5000], loss=PLAIN, momentum=0.5)
    assert np.isfinite(path.train[0]).all()
    assert not np.isfinite(path.train[1]).any()
    assert path.error.storage == np.inf


def test_a_flow_that_goes_too_far_is_refused(monkeypatch):
    k, _, y, _, _ = problem("logistic")
    runaway = Loss("runaway", lambda f, y: -(f**4) - f)
    with pytest.raises(ValueError, match=r"times go up to 1e\+06, where the flow does not get within"):
        lz.kernel_flow(k, y, times=[0.0, 1.0, 1e6], loss=runaway)
    monkeypatch.setattr(flow, "CALL_STEPS", 5)
    arguments = {"times": [0.0, 1.0, 30.0], "loss": logistic("sum"), "tolerance": 1e-12}
    monkeypatch.setattr(flow, "STEPS", 4)
    with pytest.raises(ValueError, match=r"within 4 steps \(lambda_max times that is .*or for kernel_descent"):
        lz.kernel_flow(k, y, **arguments)
    monkeypatch.setattr(flow, "STEPS", 60)
    with pytest.warns(UserWarning, match="of it from steps in time"):
        path = lz.kernel_flow(k, y, **arguments)
    assert path.error.truncation > 1e-12


BOTH = {
    "loss name": ({"loss": "cubic"}, "loss must be one of squared, logistic"),
    "softmax": ({"loss": "softmax"}, r"y has shape \(4,\), which the softmax loss does not take"),
    "logistic": (
        {"loss": "logistic", "y": np.ones((4, 2))},
        r"y has shape \(4, 2\), for which the logistic loss gives",
    ),
    "method": ({"loss": "logistic", "method": "exact"}, "method is 'exact', but only the squared loss"),
    "kernel": ({"loss": "logistic", "k": np.diag([1.0, 1.0, 1.0, -0.5])}, "k has a negative eigenvalue, -0.5"),
    "transpose": ({"loss": "logistic", "k": np.triu(np.ones((4, 4)))}, "differs from its transpose"),
    "start": ({"loss": "logistic", "f0": np.ones(3)}, r"f0 has shape \(3,\)"),
    "k_test": ({"loss": "logistic", "k_test": np.ones((2, 3))}, r"k_test has shape \(2, 3\)"),
}
DESCENT = {
    "momentum": ({"momentum": 1.0}, "momentum is 1.0, but must be at least 0 and below 1"),
    "negative": ({"momentum": -0.1}, "momentum is -0.1"),
    "not a number": ({"momentum": float("nan")}, "momentum is nan"),
    "tolerance": ({"loss": "hinge", "tolerance": 1e-3}, "tolerance is 0.001, but only the squared loss on the full"),
    "batches with a method": ({"batches": np.zeros((3, 2), int), "method": "krylov"}, "method is 'krylov', but only"),
    "one dimension": ({"batches": np.zeros(3, int)}, r"batches has shape \(3,\) and dtype int64"),
    "rows": ({"batches": np.zeros((2, 2), int)}, r"batches has shape \(2, 2\) .* of shape \(3, B\)"),
    "empty": ({"batches": np.zeros((3, 0), int)}, r"batches has shape \(3, 0\)"),
    "fractions": ({"batches": np.zeros((3, 2))}, "dtype float64, but must be whole numbers"),
    "beyond": ({"batches": np.full((3, 2), 4)}, "batches has the example 4, but the examples are 0 to 3"),
    "before": ({"batches": np.full((3, 2), -1)}, "batches has the example -1"),
}
FLOW = {
    "tolerance": ({"loss": "logistic", "tolerance": -1.0}, "tolerance is -1.0, but must be positive"),
    "times": ({"loss": "logistic", "times": [np.inf]}, "times must be a list of finite times"),
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
    with unchecked(), pytest.raises(ValueError, match=message):
        {"flow": lz.kernel_flow, "descent": lz.kernel_descent}[predict](**own | arguments)
