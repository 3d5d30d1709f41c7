"""Test forecasts from initial weights against sweeps, linearized networks and kernels at displaced weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet.experiment import _members as members
from lazynet.networks import Cubic
from lazynet.studies.sweep._forecasts import FACTOR

DATA = lz.load_dataset("digits", classes=(0, 1), n_train=32, n_test=8)
TANH = lz.TwoLayer(width=2, activation="tanh", symmetric=False)
WIDTHS, SEEDS, STEPS = [64, 256], 2, 60
MEASURE = lz.Measure(forecast=True)


@pytest.fixture(scope="module")
def forecast():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "simulate", lambda *args, **kwargs: pytest.fail("a network was trained"))
        return lz.forecast(TANH, DATA, WIDTHS, SEEDS, STEPS, progress=False)


@pytest.fixture(scope="module")
def sweep():
    return lz.sweep(TANH, DATA, WIDTHS, SEEDS, STEPS, measure=MEASURE, progress=False)


def test_start_gaps_are_those_of_a_sweep(forecast, sweep):
    for part in ("train", "test"):
        np.testing.assert_allclose(forecast[f"start_gap_{part}"], sweep[f"start_gap_{part}"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(forecast.initial_kernel_error, sweep.initial_kernel_error, rtol=1e-6)
    np.testing.assert_allclose(forecast.kernel_train_loss, sweep.kernel_train_loss, rtol=1e-6)
    assert (forecast.status == 0).all()


def test_gaps_and_movement_are_right_to_leading_order(forecast, sweep):
    wide, late = {"width": 256}, sweep.step > 10
    for name in ("linearization_gap_train", "linearization_gap_test", "kernel_gap_train", "displacement"):
        ratio = (forecast[name].sel(wide).mean("seed") / sweep[name].sel(wide).mean("seed")).where(late, drop=True)
        assert (abs(ratio - 1) < 0.25).all(), name
    ratio = (forecast.kernel_drift / sweep.kernel_drift).sel(wide).isel(step=-1)
    assert ((ratio > 0.5) & (ratio < 2)).all()
    # Without the change of the kernel, the network would follow its linearization.
    assert (sweep.linearization_gap_train.sel(wide).max("step") > 1e-4).all()


def test_forecasts_in_a_sweep_match_lz_forecast(forecast, sweep):
    for name in ("linearization_gap_train", "kernel_gap_test", "kernel_drift", "relative_displacement"):
        np.testing.assert_allclose(sweep[f"forecast_{name}"], forecast[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_flips_of_wide_relu_networks_are_forecast():
    options = {"measure": MEASURE, "progress": False}
    result = lz.sweep(lz.TwoLayer(width=2), DATA, [2048], 2, STEPS, **options).isel(width=0)
    ratio = (result.forecast_activation_flips / result.activation_flips).where(result.step > 10, drop=True)
    assert (abs(ratio - 1) < 0.2).all()
    assert (result.activation_flips.isel(step=-1) > 0.005).all()


def test_a_forecast_is_descent_with_the_kernels_at_the_linearized_weights():
    """In each step, the kernel is the mean of the network's kernels at theta_0 + J' c before and after the step."""
    network, rate = TANH.clone(width=32), 0.05
    result = lz.forecast(TANH, DATA, [32], [3], 12, learning_rate=rate, snapshots=range(13), progress=False).squeeze(
        drop=True
    )
    key = jax.random.fold_in(lz.member_key(32, 3), 0)
    variables = dict(network.init(key, jnp.asarray(DATA.x_train, jnp.float32)))
    w0, fixed = np.asarray(variables["params"]["hidden"], np.float64), variables["fixed"]
    x, y = DATA.x_train, DATA.y_train
    readout = np.asarray(fixed["readout"], np.float64)[:, 0]
    # f(x) = sum_r a_r tanh(w_r . x) / sqrt(m)
    slopes = lambda w: readout[:, None] * (1 - np.tanh(w @ x.T) ** 2) / np.sqrt(32)  # noqa: E731
    kernel = lambda w: (slopes(w).T @ slopes(w)) * (x @ x.T)  # noqa: E731
    f = u = readout @ np.tanh(w0 @ x.T) / np.sqrt(32)
    k0, c, gaps = kernel(w0), np.zeros(32), [0.0]
    for _ in range(12):
        before = kernel(w0 + (slopes(w0) * c) @ x)
        c = c - rate * (u - y)
        after = kernel(w0 + (slopes(w0) * c) @ x)
        f, u = f - rate * (before + after) / 2 @ (f - y), u - rate * k0 @ (u - y)
        gaps.append(np.sqrt(np.mean((f - u) ** 2)))
    np.testing.assert_allclose(result.linearization_gap_train, gaps, rtol=2e-3, atol=1e-6)
    drift = np.linalg.norm(after - k0) / np.linalg.norm(k0)
    assert float(result.kernel_drift[-1]) == pytest.approx(drift, rel=2e-3)


@pytest.mark.slow
def test_the_linearized_network_trained_in_its_parameters_has_the_same_start_gap():
    network, seed = TANH.clone(width=64), 1
    forecast = lz.forecast(TANH, DATA, [64], [seed], STEPS, progress=False).squeeze()
    key, rate = lz.member_key(64, seed), float(forecast.learning_rate)
    variables = dict(network.init(jax.random.fold_in(key, 0), jnp.asarray(DATA.x_train, jnp.float32)))
    run = lz.train(lz.linearize(network, variables), DATA, key, steps=STEPS, learning_rate=rate)
    f = run.snapshots.train_prediction.values
    limit = lz.kernel_descent(
        lz.analytic_kernel(network)(DATA.x_train),
        DATA.y_train,
        learning_rate=rate,
        steps=run.snapshots.step.values,
        f0=f[0],
    )
    expected = np.sqrt(np.mean((f - limit.train) ** 2, axis=1))
    np.testing.assert_allclose(forecast.start_gap_train, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_third_order_polynomial_gives_the_gap_to_leading_order(sweep):
    cubic = lz.forecast(TANH, DATA, [256], SEEDS, STEPS, order=3, progress=False)
    wide = sweep.sel(width=256)
    ratio = cubic.linearization_gap_train.isel(width=0).mean("seed") / wide.linearization_gap_train.mean("seed")
    assert (abs(ratio.where(wide.step > 10, drop=True) - 1) < 0.25).all()


@pytest.mark.parametrize("train", ["hidden", "both"])
def test_a_cubic_polynomial_is_exact_up_to_the_fourth_order(train):
    network, x = TANH.clone(width=8, train=train), jnp.asarray(DATA.x_train)
    with jax.enable_x64(True):
        x = jnp.asarray(DATA.x_train, jnp.float64)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), dict(network.init(jax.random.key(0), x)))
        polynomial = Cubic(network)
        start, errors = polynomial.at(variables), []
        for size in (0.1, 0.05):
            moved = jax.tree.map(
                lambda w, size=size: w + size * jnp.cos(jnp.arange(w.size)).reshape(w.shape), variables["params"]
            )
            difference = network.apply({**variables, "params": moved}, x) - polynomial.apply(
                {**start, "params": moved}, x
            )
            errors.append(float(jnp.abs(difference).max()))
    assert 12 < errors[0] / errors[1] < 20


def test_the_verdict_and_the_figure_of_a_forecast(forecast):
    verdict = lz.verify(forecast, 0.2)
    assert verdict.answer.startswith(
        "Forecast, without training: over 60 steps the network follows its linearization to 20%"
    )
    assert verdict.row("linearization_gap_train").predicted == -0.5
    assert not verdict.forecasts
    assert len(lz.plot(forecast).axes) == 6


def test_the_verdict_says_whether_forecasts_were_right(sweep):
    verdict = lz.verify(sweep)
    rows = {row.quantity: row for row in verdict.forecasts}
    assert set(rows) >= {"linearization_gap_train", "kernel_drift", "activation_flips", "displacement"}
    row = rows["linearization_gap_train"]
    at = sweep.sel(width=256)
    assert row.measured == pytest.approx(float(at.linearization_gap_train.max("step").mean("seed")))
    assert row.forecast == pytest.approx(float(at.forecast_linearization_gap_train.max("step").mean("seed")))
    assert row.ratio == pytest.approx(row.forecast / row.measured)
    assert row.status == "holds"
    assert "Forecasts from initial weights alone at width 256" in str(verdict)
    broken = sweep.assign(forecast_linearization_gap_train=3 * sweep.forecast_linearization_gap_train)
    row = next(row for row in lz.verify(broken).forecasts if row.quantity == "linearization_gap_train")
    assert row.status == "fails"
    assert row.ratio > FACTOR
    line = next(
        line for line in str(lz.verify(broken)).splitlines()[-12:] if line.startswith("linearization_gap_train")
    )
    assert line.endswith("fails")
    assert json.loads(lz.verify(broken).to_json())["forecasts"][0]["status"] == "fails"


@pytest.mark.whole
def test_several_outputs_and_deep_networks_are_forecast(tmp_path):
    three = lz.load_dataset("digits", classes=(0, 1, 2), n_train=24, n_test=6)
    network = lz.TwoLayer(width=2, outputs=3, activation="tanh", train="both", symmetric=False)
    for family, data in ((network, three), (lz.MLP(width=2, depth=3, activation="tanh"), DATA)):
        result = lz.sweep(family, data, [256], 2, 30, measure=MEASURE, progress=False)
        statuses = {row.quantity: row.status for row in lz.verify(result).forecasts}
        assert statuses["linearization_gap_train"] == statuses["displacement"] == "holds"
    out = tmp_path / "run"
    for k in (1, 2):
        lz.forecast(network, three, [16, 32], 1, 5, out=lz.RunFolder(out, shard=(k, 2)), progress=False)
    merged = lz.merge_shards(out)
    alone = lz.forecast(network, three, [16, 32], 1, 5, progress=False)
    xr.testing.assert_identical(merged.drop_attrs(), alone.drop_attrs())


@pytest.mark.filterwarnings("ignore:learning_rate is")
def test_a_forecast_that_diverges_is_marked(tmp_path):
    result = lz.forecast(TANH, DATA, [8, 16], 1, 400, learning_rate=20.0, progress=False)
    assert (result.status == 1).all()
    assert result.train_loss.isel(step=-1).isnull().all()
    assert "diverged" in lz.verify(result).answer


def test_what_cannot_be_forecast_is_refused():
    for order in (2, True):
        with pytest.raises(ValueError, match="order must be None or 3"):
            lz.forecast(TANH, DATA, [8], order=order)
    with pytest.raises(ValueError, match="order must be None unless the activation is three times differentiable"):
        lz.forecast(lz.TwoLayer(width=2), DATA, [8], order=3)
    with pytest.raises(
        ValueError,
        match="axes must vary only fields of the network, n_train, label_noise or learning_rate in",
    ):
        lz.forecast(TANH, DATA, [8], axes={"momentum": [0.0, 0.9]}, learning_rate=0.01)
    for options in ({"batch_size": 4}, {"optimizer": lz.Optimizer(momentum=0.9)}, {"loss": "logistic"}):
        with pytest.raises(ValueError, match=r"measure\.forecast must be False unless networks are trained by plain"):
            lz.sweep(TANH, DATA, [8], 1, 2, learning_rate=0.01, measure=MEASURE, **options)
    with pytest.raises(ValueError, match=r"measure\.forecast must be False if measure\.predictions is False"):
        lz.Measure(predictions=False, forecast=True)
    with pytest.raises(ValueError, match=r"measure\.forecast must be False for a single network"):
        lz.train(TANH.clone(width=4), DATA, jax.random.key(0), steps=1, measure=MEASURE)
