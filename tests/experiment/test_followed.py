"""Test predictions for momentum, mini-batches, other losses and a ridge against loops over explicit parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from unchecked import unchecked

import lazynet as lz
from lazynet.experiment import _predictions as predictions
from lazynet.experiment import make_training
from lazynet.kernels import FACTORED
from lazynet.training._keys import start_key

N, STEPS, WIDTHS, SEEDS = 24, 30, [8, 12], 2
TWO = lz.load_dataset("digits", classes=(0, 1), n_train=N, n_test=8)
THREE = lz.load_dataset("digits", classes=(0, 1, 2), n_train=N, n_test=8)
CASES = {
    "momentum": {"optimizer": lz.Optimizer(momentum=0.8), "learning_rate": 0.02},
    "nesterov": {"optimizer": lz.Optimizer(momentum=0.8, nesterov=True), "learning_rate": 0.02},
    "batches": {"batch_size": 7, "learning_rate": 0.05},
    "ridge": {"optimizer": lz.Optimizer(ridge=3.0)},
    "decay": {"optimizer": lz.Optimizer(momentum=0.5, ridge=1.0, weight_decay=2.0), "learning_rate": 0.05},
    "logistic": {"loss": "logistic", "learning_rate": 1.0},
    "hinge": {"loss": "hinge", "learning_rate": 0.3},
    "softmax": {"loss": "softmax", "learning_rate": 2.0},
    "several": {"batch_size": 7, "learning_rate": 0.05},
    "all": {
        "loss": "softmax",
        "learning_rate": 1.0,
        "batch_size": 7,
        "optimizer": lz.Optimizer(momentum=0.8, nesterov=True, ridge=0.02),
    },
}
WHOLE = ("nesterov", "hinge", "several", "logistic")


def data_of(name):
    return THREE if name in ("softmax", "several", "all") else TWO


def outputs(network, variables, variables_0, data):
    return jnp.concatenate([network.apply(variables, data.x_train), network.apply(variables, data.x_test)])


def swept(name, symmetric=False, **options):
    data = data_of(name)
    network = lz.TwoLayer(width=8, outputs=data.outputs, symmetric=symmetric)
    measure = lz.Measure(kernel_drift=False, own={"outputs": outputs})
    options = CASES[name] | options
    return network, data, lz.sweep(network, data, WIDTHS, SEEDS, STEPS, measure=measure, progress=False, **options)


def linear_path(features, f0, data, rate, options, batches, theta_0=None, drawn=0.0):
    """Train the linear model f0 + features @ theta in float64, and return its outputs on all rows after every step.

    Weight decay acts on theta_0 + theta. If theta_0 is None, it has shrunk by a share that is followed by a loop, and
    `drawn` is the derivative of the outputs along it.
    """
    loss, optimizer = lz.losses.get_loss(options.get("loss", "squared")), options.get("optimizer", lz.Optimizer())
    shape, decay = f0.shape, optimizer.weight_decay or 0.0
    shares, share, v = [], 0.0, 0.0
    for _ in range(STEPS + 1):
        shares.append(share)
        v = optimizer.momentum * v + decay * (1 + share) + optimizer.ridge * share
        share -= rate * v

    def model(theta, rows, share):
        return f0[rows] + share * drawn[rows] + (features[rows] @ theta).reshape(len(rows), *shape[1:])

    def gradient(theta, rows, share):
        scale = N / len(rows) if loss.reduction == "sum" else 1.0
        slope = scale * jax.grad(lambda theta: loss(model(theta, rows, share), y[rows]))(theta)
        return slope + optimizer.ridge * theta + decay * (theta if theta_0 is None else theta_0 + theta)

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        features, f0, y = jnp.asarray(features), jnp.asarray(f0), jnp.asarray(data.y_train)
        drawn = jnp.asarray(np.broadcast_to(0.0 if theta_0 is not None else drawn, shape))
        theta, everything = jnp.zeros(features.shape[-1]), jnp.arange(len(f0))
        rule = optax.sgd(rate, momentum=optimizer.momentum or None, nesterov=optimizer.nesterov)
        rows = np.tile(np.arange(N), (STEPS, 1)) if batches is None else batches

        def step(carry, given):
            (theta, state), (rows, share, after) = carry, given
            update, state = rule.update(gradient(theta, rows, share), state)
            return (theta + update, state), model(theta + update, everything, after)

        given = jnp.asarray(rows), jnp.asarray(shares[:-1]), jnp.asarray(shares[1:])
        path = jax.lax.scan(step, (theta, rule.init(theta)), given)[1]
        return np.concatenate([np.asarray(f0)[None], path])


def gaps(f, predicted):
    """Return the RMS differences on the training and test sets at each snapshot."""
    squares = (f - predicted) ** 2
    return [np.sqrt(np.mean(part.reshape(len(f), -1), axis=1)) for part in (squares[:, :N], squares[:, N:])]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.whole] if name in WHOLE else []) for name in CASES]
)
def test_gaps_are_those_to_linear_models_trained_in_their_parameters(name):
    network, data, result = swept(name)
    x = np.concatenate([data.x_train, data.x_test])
    k = lz.analytic_kernel(network)(x)
    root = np.linalg.cholesky(k + 1e-12 * np.eye(len(k)))
    # The outputs of the infinitely wide network are independent.
    limit_features = root if data.outputs == 1 else np.einsum("ij,kl->ikjl", root, np.eye(data.outputs))
    limit_features = limit_features.reshape(*limit_features.shape[: 1 + (data.outputs > 1)], -1)
    assert result.kernel_train_loss.dims == ("width", "seed", "step")
    for width, seed in ((WIDTHS[1], 1),):
        at = result.sel(width=width, seed=seed)
        wide, rate = network.clone(width=width), float(at.learning_rate)
        key, size = lz.member_key(width, seed), CASES[name].get("batch_size")
        batches = None if size is None else lz.batch_order(width, seed, N, size, STEPS)
        with unchecked(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            variables = dict(wide.init(start_key(key), jnp.asarray(data.x_train, "float32")))
            with jax.enable_x64(True):
                variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
                fixed = {group: values for group, values in variables.items() if group != "params"}

                def apply(params, fixed=fixed, wide=wide):
                    return wide.apply({**fixed, "params": params}, jnp.asarray(x))

                f0 = np.asarray(apply(variables["params"]))
                jacobian = jax.tree.leaves(jax.jacrev(apply)(variables["params"]))
        features = np.concatenate([np.asarray(part).reshape(*f0.shape, -1) for part in jacobian], axis=-1)
        f = at.outputs.values
        theta_0 = np.concatenate([np.ravel(part) for part in jax.tree.leaves(variables["params"])])
        own, limit = (features, theta_0, 0.0), (limit_features, None, features @ theta_0)
        for gap, (rows, *start) in (("linearization_gap", own), ("kernel_gap", limit)):
            path = linear_path(rows, f0, data, rate, CASES[name], batches, *start)[result.step.values]
            for part, expected in zip(("train", "test"), gaps(f, path), strict=True):
                np.testing.assert_allclose(at[f"{gap}_{part}"], expected, rtol=2e-3, atol=2e-6)
            if gap == "kernel_gap":
                loss = lz.losses.get_loss(CASES[name].get("loss", "squared"))
                last = float(loss(path[-1][:N], data.y_train))
                assert float(at.kernel_train_loss[-1]) == pytest.approx(last, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["momentum", "softmax", "all"])
def test_large_kernels_are_replaced_by_the_model_trained_in_its_parameters(name, monkeypatch):
    _, _, expected = swept(name)
    monkeypatch.setattr(predictions, "LARGEST_EIGENPROBLEM", 0)
    _, _, result = swept(name)
    for part in ("train", "test"):
        gap = f"linearization_gap_{part}"
        np.testing.assert_allclose(result[gap], expected[gap], rtol=2e-3, atol=2e-6)


def test_predictions_of_networks_that_start_at_zero_depend_on_the_member_only_through_the_batches():
    _, _, result = swept("batches", symmetric=True)
    assert result.kernel_train_loss.dims == ("width", "seed", "step")
    assert result.kernel_train_loss.isel(step=-1).values.std() > 0
    _, _, full = swept("momentum", symmetric=True)
    assert full.kernel_train_loss.dims == ("step",)
    assert "path_bound" not in full


def test_the_verdict_answers_for_both_predictions():
    _, _, result = swept("batches", symmetric=True)
    verdict = lz.verify(result, 0.9)
    assert {row.prediction for row in verdict.regimes} == {"linearization", "infinite_width"}
    assert "It follows the infinite-width kernel" in verdict.answer or "It may or may not" in verdict.answer
    assert verdict.row("kernel_gap_train").predicted == -0.5
    # The inequalities hold only for plain full-batch descent.
    assert not verdict.inequalities


def test_the_order_of_batches_is_the_one_that_training_uses():
    width, seed, size = 16, 3, 7
    order = lz.batch_order(width, seed, N, size, STEPS)
    per_epoch = N // size
    assert order.shape == (STEPS, size)
    for epoch in range(STEPS // per_epoch):
        seen = order[epoch * per_epoch : (epoch + 1) * per_epoch].ravel()
        assert len(set(seen.tolist())) == len(seen)
    np.testing.assert_array_equal(order[:5], lz.batch_order(width, seed, N, size, 5))
    assert (order != lz.batch_order(width, seed + 1, N, size, STEPS)).any()
    network, key = lz.TwoLayer(width=width), lz.member_key(width, seed)
    run = lz.train(network, TWO, key, steps=STEPS, learning_rate=0.05, batch_size=size)
    x, y = jnp.asarray(TWO.x_train, jnp.float32), jnp.asarray(TWO.y_train, jnp.float32)

    def trained(order):
        variables = run.variables_0
        for rows in order:

            def objective(params, rows=rows, variables=variables):
                return (
                    N / size * 0.5 * jnp.sum((network.apply({**variables, "params": params}, x[rows]) - y[rows]) ** 2)
                )

            slope = jax.grad(objective)(variables["params"])
            params = jax.tree.map(lambda w, g: w - jnp.float32(0.05) * g, variables["params"], slope)
            variables = {**variables, "params": params}
        return variables["params"]["hidden"]

    np.testing.assert_allclose(trained(order), run.variables["params"]["hidden"], rtol=1e-4, atol=1e-5)
    other = trained(lz.batch_order(width, seed + 1, N, size, STEPS))
    assert np.abs(other - run.variables["params"]["hidden"]).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 0, 0, 1, 2), "n must be a positive integer"),
        ((8, 0, 4, 5, 2), "batch_size must be at most 4"),
        ((8, 0, 4, 0, 2), "batch_size must be a positive integer"),
        ((8, 0, 4, 2, 0), "steps must be a positive integer"),
        ((8, -1, 4, 2, 1), "seed must be"),
    ],
)
def test_wrong_orders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lz.batch_order(*arguments)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_ridge_pulls_every_parameter_toward_its_start(momentum):
    ridge, rate, steps = 2.0, 0.02, 25
    network, optimizer = (
        lz.TwoLayer(width=12, symmetric=False, train="both"),
        lz.Optimizer("sgd", momentum, ridge=ridge),
    )
    run = lz.train(network, TWO, jax.random.key(1), steps=steps, learning_rate=rate, optimizer=optimizer)
    x, y = jnp.asarray(TWO.x_train, jnp.float32), jnp.asarray(TWO.y_train, jnp.float32)
    start = params = run.variables_0["params"]
    velocity = jax.tree.map(jnp.zeros_like, params)
    fixed = {group: values for group, values in run.variables_0.items() if group != "params"}
    for _ in range(steps):
        slope = jax.grad(lambda p: 0.5 * jnp.sum((network.apply({**fixed, "params": p}, x) - y) ** 2))(params)
        pulled = jax.tree.map(lambda g, now, then: g + jnp.float32(ridge) * (now - then), slope, params, start)
        velocity = jax.tree.map(lambda v, g: jnp.float32(momentum) * v + g, velocity, pulled)
        params = jax.tree.map(lambda w, v: w - jnp.float32(rate) * v, params, velocity)
    for found, expected in zip(jax.tree.leaves(run.variables["params"]), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    snapshots = run.snapshots
    residual = snapshots.train_prediction.values[-1] - TWO.y_train
    assert float(snapshots.train_loss[-1]) == pytest.approx(0.5 * np.sum(residual**2), rel=1e-5)
    penalty = ridge / 2 * sum(np.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (params, start)), strict=True))
    assert float(snapshots.ridge_penalty[-1]) == pytest.approx(float(penalty), rel=1e-4)


def test_a_ridge_is_an_axis_and_lowers_the_default_rate():
    network = lz.TwoLayer(width=8)
    result = lz.sweep(network, TWO, [8], 1, 20, axes={"ridge": [0.0, 2.0]}, progress=False)
    largest = float(result.lambda_max)
    np.testing.assert_allclose(result.learning_rate.squeeze(), [1 / largest, 1 / (largest + 2)], rtol=1e-6)
    assert result.kernel_train_loss.dims == ("step", "ridge")
    assert (result.train_loss.isel(step=-1, ridge=1) > result.train_loss.isel(step=-1, ridge=0)).all()
    np.testing.assert_allclose(
        result.ridge_penalty.sel(ridge=2.0), result.displacement.sel(ridge=2.0) ** 2, rtol=1e-12, atol=0
    )
    alone = lz.sweep(network, TWO, [8], 1, 20, optimizer=lz.Optimizer(ridge=2.0), progress=False)
    xr.testing.assert_equal(alone.train_loss, result.train_loss.sel(ridge=2.0, drop=True))
    run = lz.train(network, TWO, jax.random.key(0), steps=1, optimizer=lz.Optimizer(ridge=2.0))
    assert run.snapshots.attrs["settings"].count('"ridge": 2.0') == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": -1.0}, "ridge must be"),
        ({"ridge": float("nan")}, "ridge must be"),
        ({"name": "flow", "ridge": 1.0}, "ridge must be omitted for the optimizer 'flow'"),
    ],
)
def test_wrong_ridges_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        lz.Optimizer(**settings)


def test_rates_above_the_limit_of_momentum_and_ridge_are_announced():
    k = lz.analytic_kernel(lz.TwoLayer(width=8))(TWO.x_train)
    ridge, largest = 2.0, float(np.linalg.eigvalsh(k)[-1])
    limit = 2 * 1.5 / (largest + ridge)
    optimizer = lz.Optimizer(momentum=0.5, ridge=ridge)
    options = {"optimizer": optimizer, "progress": False}
    lz.sweep(lz.TwoLayer(width=8), TWO, [512], 1, 3, learning_rate=0.99 * limit, **options)
    with pytest.warns(UserWarning, match=r"above 3 / \(lambda_max \+ ridge\) = "):
        lz.sweep(
            lz.TwoLayer(width=8), TWO, [512], 1, 3, optimizer=optimizer, learning_rate=1.01 * limit, progress=False
        )


def test_schedules_and_other_optimizers_have_no_infinite_width_prediction():
    schedule = lz.Optimizer(schedule=lambda step: 0.9 ** jnp.float32(step))
    for optimizer in (schedule, optax.adagrad):
        result = lz.sweep(lz.TwoLayer(width=8), TWO, [8], 1, 3, optimizer=optimizer, learning_rate=0.01, progress=False)
        assert "kernel_train_loss" not in result
        assert "linearization_gap_train" in result


@pytest.mark.slow
def test_the_gradient_with_a_ridge_can_vanish():
    options = {"optimizer": lz.Optimizer(ridge=5.0), "learning_rate": 0.05, "progress": False}
    network = lz.TwoLayer(width=32, activation="tanh")
    result = lz.sweep(network, TWO, [32], 2, 1000, stop=lz.Stop(gradient=0.05), **options)
    # The gradient of the loss alone does not vanish.
    assert (result.stopped_step < 1000).all()
    assert (result.train_loss.isel(step=-1) > 1).all()


def test_without_a_ridge_the_penalty_is_zero():
    result = lz.sweep(lz.TwoLayer(width=8), TWO, [8], 1, 3, axes={"ridge": [0.0, 3.0]}, progress=False)
    assert (result.ridge_penalty.sel(ridge=0.0) == 0).all()
    assert (result.ridge_penalty.sel(ridge=3.0).isel(step=-1) > 0).all()
    plain = lz.sweep(lz.TwoLayer(width=8), TWO, [8], 1, 3, progress=False)
    assert "ridge_penalty" not in plain
    # Run folders of earlier versions lack these settings.
    assert '"ridge"' not in plain.attrs["settings"]
    assert '"forecast"' not in plain.attrs["settings"]


def test_large_kernels_without_a_closed_form_make_no_infinite_width_prediction():
    training = make_training(10, batch_size=4, snapshots=None, dtype="float32")
    assert training.predicts_limit(FACTORED)
    assert not training.predicts_limit(FACTORED + 1)
    assert make_training(10, snapshots=None, dtype="float32").predicts_limit(FACTORED + 1)


@pytest.mark.slow
def test_a_ridge_with_rates_that_grow_with_the_width_has_no_predicted_exponents():
    network = lz.TwoLayer(width=2, output_scale=lambda m: m**-0.5)
    options = {"learning_rate": lambda m: 0.02 * m, "progress": False}
    result = lz.sweep(network, TWO, [16, 64], 2, 10, optimizer=lz.Optimizer(ridge=0.1), **options)
    assert "displacement" not in [row.quantity for row in lz.verify(result).rows]
    plain = lz.sweep(network, TWO, [16, 64], 2, 10, **options)
    assert "displacement" in [row.quantity for row in lz.verify(plain).rows]
