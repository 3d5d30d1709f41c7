"""Members that stop early, user-defined measures, sharpness, and sweeps that run out of time."""

import json
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import lazynet as lz
from lazynet import cli
from lazynet.execution import _checkpoint as checkpoint
from lazynet.training._keys import member_key

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
NETWORK = lz.TwoLayer(width=8)
HEAVY = lz.Optimizer("sgd", momentum=0.9)
ALONE = lz.Measure(predictions=False, kernel_drift=False)
LOG_LOSS = {"loss": "logistic", "optimizer": HEAVY, "learning_rate": 0.02}


def sweep(steps=60, widths=(8, 16), snapshots=60, **options):
    return lz.sweep(NETWORK, DATA, widths, 3, steps, snapshots=snapshots, **options)


def gradient_norms(run, network, data):
    """Return ||grad L|| of the squared loss at every snapshot of a run that recorded the weights."""

    @jax.jit
    def norm(hidden):
        def loss(hidden):
            variables = {**run.variables, "params": {"hidden": hidden}}
            return 0.5 * jnp.sum((network.apply(variables, jnp.asarray(data.x_train, "float32")) - y) ** 2)

        return jnp.linalg.norm(jax.grad(loss)(hidden))

    y = jnp.asarray(data.y_train, "float32")
    return np.array([norm(jnp.asarray(hidden, "float32")) for hidden in run.snapshots.weights.values])


@pytest.mark.slow
@pytest.mark.parametrize("stepper", ["hidden", "autodiff", "preactivation"])
def test_members_stop_where_a_loop_would_break(stepper):
    optimizer, measure = lz.Optimizer(stepper=stepper), lz.Measure(kernel_drift=False, own={"weights": hidden})
    free = lz.train(NETWORK, DATA, member_key(8, 0), 60, snapshots=range(61), optimizer=optimizer, measure=measure)
    losses, norms = free.snapshots.train_loss.values, gradient_norms(free, NETWORK, DATA)
    assert free.snapshots.sizes["step"] == 61
    for stop, met in (
        (lz.Stop(loss=float(losses[20]) * 1.0001), losses <= losses[20] * 1.0001),
        (lz.Stop(gradient=float(np.min(norms[:31])) * 1.0001), norms <= np.min(norms[:31]) * 1.0001),
    ):
        run = lz.train(NETWORK, DATA, member_key(8, 0), 60, optimizer=optimizer, stop=stop, measure=ALONE)
        expected = int(np.argmax(met))
        assert run.status == "stopped"
        assert int(run.snapshots.stopped_step) == expected < 60
        # The network keeps the state that meets the criterion.
        np.testing.assert_allclose(run.variables["params"]["hidden"], free.snapshots.weights[expected], rtol=1e-5)
        late = run.snapshots.sel(step=run.snapshots.step >= expected)
        assert (late.train_loss == late.train_loss[-1]).all()


def hidden(network, variables, variables_0, data):
    return variables["params"]["hidden"]


@pytest.mark.slow
def test_a_plateau_is_a_number_of_steps_without_a_fall():
    def train(rate, stop=None, snapshots=5):
        options = {"dtype": "float64", "stop": stop, "snapshots": snapshots, "measure": lz.Measure(kernel_drift=False)}
        return lz.train(NETWORK, DATA, member_key(8, 0), 400, learning_rate=rate, **options).snapshots

    # At first, the loss falls by more than a thousandth in three steps; later, it falls more slowly.
    rate = 1e-4
    losses = train(rate, snapshots=range(200)).train_loss.values[:200]
    best, best_at = losses[0], 0
    for step, loss in enumerate(losses):
        if loss < (1 - 1e-3) * best:
            best, best_at = loss, step
        if step - best_at >= 3:
            break
    assert int(train(rate, lz.Stop(plateau=3)).stopped_step) == step == 132
    # If the loss falls by less than a thousandth in the first 7 steps, training stops after them.
    assert int(train(1e-7, lz.Stop(plateau=7)).stopped_step) == 7
    assert int(train(rate, lz.Stop(plateau=300)).stopped_step) == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "loss"),
    [pytest.param({}, 2.5, id="plain"), pytest.param(LOG_LOSS, 0.57, id="momentum", marks=pytest.mark.exact)],
)
def test_each_member_stops_by_itself_and_keeps_its_last_values(options, loss):
    free, result = (sweep(widths=[8], stop=stop, **options) for stop in (None, lz.Stop(loss=loss)))
    assert (result.status == 2).any()
    assert len(np.unique(result.stopped_step)) > 1
    for width in result.width.values:
        for seed in result.seed.values:
            at = {"width": width, "seed": seed}
            stopped = int(result.stopped_step.sel(at))
            before = result.step.values <= stopped
            member, free_member = result.sel(at), free.sel(at)
            for name in ("train_loss", "displacement", "kernel_drift", "linearization_gap_train"):
                assert np.array_equal(member[name][before], free_member[name][before]), name
                held = member[name][~before]
                # The network stops between two snapshots, and its gap keeps the value from the first of them.
                last = member[name][before][-1] if "gap" in name else held[:1]
                assert (held.values == np.asarray(last)).all(), name
    assert result.status.attrs["flag_meanings"] == "finished diverged stopped"
    assert json.loads(result.attrs["settings"])["stop"] == {"loss": loss, "gradient": None, "plateau": None}


@pytest.mark.slow
def test_own_measures_have_their_own_dimensions():
    def moved(network, variables, variables_0, data):
        return jnp.sum((variables["params"]["hidden"] - variables_0["params"]["hidden"]) ** 2)

    def correlation(network, variables, variables_0, data):
        return data.x_train.T @ data.y_train + 0 * variables["params"]["hidden"][0] + jnp.sum(data.x_test)

    measure = lz.Measure(predictions=False, kernel_drift=False, own={"moved": moved, "correlation": correlation})
    noisy = sweep(4, [8], measure=measure, axes={"label_noise": [0.0, 0.5]})
    assert noisy.moved.dims == ("width", "seed", "step", "label_noise")
    np.testing.assert_allclose(noisy.moved, noisy.displacement**2, rtol=1e-5)
    assert noisy.correlation.dims == ("width", "seed", "step", "label_noise", "correlation_dim_0")
    expected = DATA.x_train.T @ DATA.y_train + DATA.x_test.sum()
    np.testing.assert_allclose(noisy.correlation[0, 0, 0, 0], expected, rtol=1e-5)
    assert not np.allclose(noisy.correlation[0, 0, 0, 1], expected)


def own(function, name="mine", **options):
    return {"measure": lz.Measure(predictions=False, own={name: function}, **options)}


@pytest.mark.slow
def test_measures_and_criteria_that_results_cannot_have_are_refused(tmp_path):
    for options, message in (
        (
            lambda: own(lambda n, v, v0, data: float(jnp.sum(data.y_train))),
            r"measure.own\['mine'\] must be a function that JAX can trace",
        ),
        (lambda: own(hidden), "each function in measure.own must return .*, got {'mine': .* at width=16"),
        (
            lambda: own(hidden, "train_loss"),
            "each name in measure.own must be an identifier that is not reserved, got 'train_loss'",
        ),
        (lambda: {"stop": lz.Stop(loss=-1.0)}, "stop.loss must be positive and finite, got -1.0"),
        (lambda: {"stop": lz.Stop(plateau=0)}, "stop.plateau must be a positive integer, got 0"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            sweep(3, **options())
    sweep(3, [8], out=tmp_path / "run", **own(lambda n, v, v0, data: jnp.sum(v["params"]["hidden"])))
    folder = lz.RunFolder(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="measure_mine_values ="):
        sweep(3, [8], out=folder, **own(lambda n, v, v0, data: jnp.sum(v["params"]["hidden"] ** 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "dtype", "train", "optimizer"),
    [
        (1, "float32", "hidden", "sgd"),
        (1, "float64", "both", lambda eta: optax.sgd(eta)),
        (3, "float32", "both", lambda eta: optax.sgd(eta)),
        (3, "float64", "hidden", "sgd"),
    ],
)
def test_sharpness_is_the_largest_eigenvalue_of_the_kernel(outputs, dtype, train, optimizer):
    data = lz.load_dataset("digits", classes=tuple(range(max(2, outputs))), n_train=20, n_test=5)
    network = lz.TwoLayer(width=32, outputs=outputs, train=train)
    options = {"learning_rate": 0.03, "dtype": dtype, "optimizer": optimizer}
    options["measure"] = lz.Measure(kernel_drift=False, sharpness=True)
    run = lz.train(network, data, member_key(32, 0), 30, **options)
    for variables, found in zip((run.variables_0, run.variables), run.snapshots.sharpness[[0, -1]], strict=True):
        k = lz.empirical_ntk(network, variables, data.x_train, outputs="all").reshape(20 * outputs, -1)
        expected = np.linalg.eigvalsh(k)[-1]
        assert float(found) == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-10)
    np.testing.assert_allclose(
        run.snapshots.learning_rate_over_stability_limit, 0.03 * run.snapshots.sharpness / 2, rtol=1e-6
    )


@pytest.mark.slow
def test_sharpness_of_few_examples_and_of_equal_eigenvalues():
    from lazynet.measures import sharpness

    for scales in ([3.0], [2.0] * 40, np.linspace(1, 2, 100), np.concatenate([[5.0, 4.95], np.ones(200)]), [0.0] * 5):
        scales = jnp.asarray(scales, "float32")
        found = float(sharpness(lambda w, scales=scales: scales * w, jnp.ones(len(scales))))
        assert found == pytest.approx(float(scales.max()) ** 2, rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_a_sweep_that_runs_out_of_time_resumes_where_it_was(monkeypatch, tmp_path, capsys):
    expected, out = sweep(2000, [8]), tmp_path / "run"
    program = sys.modules["lazynet.training._program"]
    steps, advance = [], program._advance

    def counted(*arguments):
        steps.append(arguments[5])
        return advance(*arguments)

    def over_after(calls):
        monkeypatch.setattr(checkpoint.Budget, "over", lambda self: len(steps) > calls)

    monkeypatch.setattr(program, "_advance", counted)
    over_after(20)
    with pytest.raises(TimeoutError, match=r"max_seconds = 1000\) has been reached. Pass resume=True to resume"):
        sweep(2000, [8], out=lz.RunFolder(out, max_seconds=1000.0))
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["000000"]
    reached = steps[-1]
    assert reached > 0
    steps.clear()
    flags = ["--n-train", "16", "--n-test", "6", "--widths", "8", "--seeds", "3", "--steps", "2000"]
    flags += ["--snapshots", "60", "--out", str(out), "--resume"]
    over_after(5)
    assert cli.main(["sweep", *flags, "--max-seconds", "1000"]) == 3
    assert "lazynet: out of time; 0 of 1 cells are stored" in capsys.readouterr().err
    assert steps[0] >= reached
    over_after(10**6)
    assert cli.main(["sweep", *flags]) == 0
    xr.testing.assert_equal(xr.load_dataset(out / "result.nc", engine="h5netcdf"), expected)


def test_the_time_of_a_sweep_is_over_on_the_clock(tmp_path):
    kept = checkpoint.CellCheckpoint(tmp_path / "000000")
    assert not checkpoint.Budget(kept, time.monotonic() + 100).due()
    late = checkpoint.Budget(kept, time.monotonic())
    assert late.due()
    with pytest.raises(checkpoint.OutOfTime):
        late.save(3, {"a": np.ones(2)})
    assert late.load()["a"].tolist() == [1, 1]


@pytest.mark.slow
def test_a_stopped_network_meets_its_criterion():
    """With momentum and a large learning rate, a step may raise the loss; the network keeps the state before it."""
    network = lz.TwoLayer(width=64, symmetric=False)
    options = {"learning_rate": 0.25, "optimizer": HEAVY, "snapshots": 9, "measure": ALONE}
    result = lz.sweep(network, DATA, [64], 4, 200, stop=lz.Stop(loss=0.5), **options)
    assert (result.status == 2).all()
    assert (result.train_loss.isel(step=-1) <= 0.5 * (1 + 1e-5)).all()
    still = lz.sweep(network, DATA, [64], 4, 5, stop=lz.Stop(loss=1e9), **options)
    assert (still.stopped_step == 0).all()
    assert (still.displacement == 0).all()


@pytest.mark.slow
def test_a_diverging_network_does_not_stop():
    network = lz.TwoLayer(width=64, symmetric=False, activation="softplus", train="readout")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for stop in (lz.Stop(plateau=10), None):
            result = lz.sweep(network, DATA, [64], 2, 300, snapshots=4, learning_rate=30.0, stop=stop)
            assert (result.status == 1).all()
            late = result.sel(step=result.step >= result.stopped_step.max())
            assert late.sizes["step"] > 1
            for name in ("train_loss", "kernel_gap_train", "linearization_gap_train"):
                assert np.isnan(late[name]).all(), name
            diverged = int(result.stopped_step.max())
        # A network may also diverge in the very last step.
        last = lz.sweep(network, DATA, [64], 2, diverged, snapshots=2, learning_rate=30.0)
    assert (last.status == 1).all()
    assert np.isnan(last.train_loss.isel(step=-1)).all()


@pytest.mark.parametrize(
    "measure",
    [
        lambda n, v, v0, data: {"a": data.y_train},
        lambda n, v, v0, data: None,
        lambda n, v, v0, data: jax.random.key(0),
        lambda n, v, v0, data: data.y_train.astype(complex),
    ],
)
def test_measures_that_are_no_array_of_real_numbers_are_refused(measure):
    with pytest.raises(ValueError, match=r"^measure.own\['mine'\] must return one array of real numbers"):
        sweep(3, **own(measure))


@pytest.mark.slow
def test_measures_named_like_a_gap_are_no_gaps(tmp_path):
    each = jnp.arange(16.0)

    def sweep_with(gap):
        of_each = lambda n, v, v0, data: each @ data.y_train  # noqa: E731
        measure = lz.Measure(own={"my_gap_vector": gap, "of_each": of_each})
        folder = lz.RunFolder(tmp_path / "run", resume=True)
        return sweep(30, [8], measure=measure, stop=lz.Stop(loss=4.0), out=folder)

    result = sweep_with(lambda n, v, v0, data: v["params"]["hidden"].sum(0))
    assert result.my_gap_vector.shape == (1, 3, result.sizes["step"], 64)
    assert (result["of_each"] == float(np.arange(16.0) @ DATA.y_train)).all()
    # A measure that differs only in its last entry is a different measure.
    with pytest.raises(ValueError, match="measure_my_gap_vector_values ="):
        sweep_with(lambda n, v, v0, data: v["params"]["hidden"].sum(0).at[-1].multiply(2))


@pytest.mark.slow
def test_an_optimizer_from_a_partial_function_is_recognized(tmp_path):
    from functools import partial

    optimizer = partial(optax.sgd, momentum=0.9)
    first = sweep(3, [8], optimizer=optimizer, learning_rate=0.01, out=tmp_path / "run")
    assert json.loads(first.attrs["settings"])["optimizer"] == ["sgd", {"momentum": 0.9}]
    same = partial(lambda rate, **settings: optax.sgd(rate, **settings), momentum=0.9)
    same.func.__name__ = "sgd"
    folder = lz.RunFolder(tmp_path / "run", resume=True)
    xr.testing.assert_equal(sweep(3, [8], optimizer=same, learning_rate=0.01, out=folder), first)
