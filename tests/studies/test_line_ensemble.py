"""Test ensembles of networks on a line: their distribution, the split of the gap to their limit, and run folders."""

import json
from functools import cache

import jax
import numpy as np
import pytest
import xarray as xr
from packs import set_carried_bytes
from unchecked import unchecked

import lazynet as lz
from lazynet.execution import Store
from lazynet.kernels import start_covariance
from lazynet.studies.line_ensemble._study import split_gap, split_with_errors

DATA = lz.load_dataset("digits", n_train=16, n_test=4)
ENDS = DATA.x_train[:2]
NETWORK = lz.MLP(32, 2, activation="tanh", init_scale=1.2)
SEEDS = 80
ALONE = lz.Measure(predictions=False, kernel_drift=False)


@pytest.fixture(scope="module")
def found():
    options = {"places": np.linspace(-2, 3, 11), "snapshots": [3, 30], "progress": False}
    return lz.line_ensemble(NETWORK, DATA, ENDS, [128, 32], seeds=SEEDS, steps=100, **options)


@pytest.mark.whole
def test_wide_networks_are_distributed_as_the_limit_says(found):
    wide = found.sel(width=128)
    error = wide.deviation / np.sqrt(SEEDS)
    assert (np.abs(wide["mean"] - found.kernel_mean) < 4 * error + 0.02).all()
    # A standard deviation of 80 draws has a relative error of 8%, and the places on the line are not independent.
    ratio = (wide.deviation / found.kernel_deviation).mean("place")
    np.testing.assert_allclose(ratio, 1, atol=0.2)
    assert found["mean"].sel(width=128, step=100, place=1.0) == pytest.approx(DATA.y_train[0], abs=0.3)
    assert found["mean"].sel(width=128, step=100, place=0.0) == pytest.approx(DATA.y_train[1], abs=0.3)


@pytest.mark.whole
def test_predictions_are_those_of_single_networks(found):
    data = lz.Dataset(DATA.x_train, DATA.y_train, found.place.values[:, None] * ENDS[0] +
                      (1 - found.place.values[:, None]) * ENDS[1], np.zeros(11))  # fmt: skip
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 32), 7)
    rate = json.loads(found.attrs["settings"])["learning_rate"]["32"]
    run = lz.train(NETWORK, data, key, 100, learning_rate=rate, snapshots=[3, 30], measure=ALONE)
    expected = found.prediction.sel(width=32, seed=7)
    np.testing.assert_allclose(run.snapshots.test_prediction, expected, atol=1e-5)
    # The stored mean and standard deviation are taken over the seeds of these predictions.
    np.testing.assert_allclose(found["mean"], found.prediction.mean("seed"), atol=1e-12)
    np.testing.assert_allclose(found.deviation, found.prediction.std("seed", ddof=1), atol=1e-12)


@pytest.mark.slow
def test_the_limit_is_the_ensemble_of_its_kernels(found):
    rate = json.loads(found.attrs["settings"])["learning_rate"]["32"]
    line = found.place.values[:, None] * ENDS[0] + (1 - found.place.values[:, None]) * ENDS[1]
    kernel = lz.analytic_kernel(NETWORK)
    k, y, random = kernel(DATA.x_train), DATA.y_train, np.random.default_rng(0)
    mean = lz.kernel_descent(k, y, learning_rate=rate, steps=[0, 3, 30, 100], k_test=kernel(line, DATA.x_train)).test
    np.testing.assert_allclose(found.kernel_mean, mean, atol=1e-9)
    # The standard deviation must agree with random draws of the initial outputs.
    start = start_covariance(NETWORK)(np.concatenate([DATA.x_train, line]))
    draws = random.multivariate_normal(np.zeros(len(start)), start, size=500, method="eigh")
    ends = lz.kernel_descent(
        *(k, np.repeat(y[:, None], 500, axis=1)), learning_rate=rate, steps=[100], k_test=kernel(line, DATA.x_train),
        f0=draws[:, :16].T, f0_test=draws[:, 16:].T,
    ).test[-1]  # fmt: skip
    np.testing.assert_allclose(np.std(ends, axis=1), found.kernel_deviation.sel(step=100), rtol=0.15)


@pytest.mark.slow
def test_the_gap_is_split_over_seeds(found):
    np.testing.assert_allclose(found.gap_squared, found.gap_bias_squared + found.gap_variance)
    assert (found.gap_squared.sel(step=0) < 1e-12).all()
    late = found.sel(step=100)
    # The variance of the gap is of order 1 / m, and its squared bias is of order 1 / m^2 (Geiger et al. 2019; Dyer and
    # Gur-Ari 2019).
    slope = np.log(late.gap_variance.sel(width=128) / late.gap_variance.sel(width=32)) / np.log(4)
    assert -1.4 < float(slope) < -0.7
    assert (late.gap_bias_squared < 0.3 * late.gap_variance).all()


def test_the_split_is_right_on_average():
    """The split of draws with a known bias and variance is averaged over many repetitions."""
    gaps = 0.3 + 0.7 * np.random.default_rng(1).normal(size=(4000, 1, 5, 1, 2))
    bias, variance = zip(*map(split_gap, gaps), strict=True)
    assert np.mean(bias) == pytest.approx(0.09, abs=0.02)
    assert np.mean(variance) == pytest.approx(0.49, abs=0.02)


@pytest.mark.slow
def test_standard_errors_are_those_of_many_ensembles():
    random = np.random.default_rng(2)
    tables = []
    for _ in range(400):
        # The random gap of each seed has one term that all places share and another for each place.
        gap = 0.3 + 0.5 * random.normal(size=(40, 1, 1)) + 0.5 * random.normal(size=(40, 1, 6))
        tables.append(split_with_errors(gap[None]))
    for name in ("gap_bias_squared", "gap_variance"):
        spread = np.std([table[name] for table in tables])
        assert np.mean([table[f"{name}_error"] for table in tables]) == pytest.approx(spread, rel=0.15)


@pytest.mark.slow
def test_a_symmetric_start_is_certain_in_the_limit_and_several_outputs_have_their_own_means():
    data = lz.load_dataset("digits", classes=(0, 1, 2), n_train=12, n_test=0)
    options = {"seeds": 6, "steps": 10, "places": [0.0, 1.0], "progress": False}
    found = lz.line_ensemble(lz.TwoLayer(64, outputs=3), data, data.x_train[:2], [64], **options)
    assert (found.kernel_deviation == 0).all()
    assert found.kernel_mean.dims == ("step", "place", "output")
    assert found.prediction.dims == ("width", "seed", "step", "place", "output")
    assert (found.prediction.sel(step=0) == 0).all()
    assert len(lz.plot(found).axes) == 4


@pytest.mark.slow
def test_without_an_analytic_kernel_there_are_networks_alone():
    own = lz.from_functions(
        lambda key, x, width: {"w": jax.random.normal(key, (width, x.shape[1]))},
        lambda params, x: jax.numpy.sum(jax.numpy.tanh(x @ params["w"].T), axis=1) / len(params["w"]) ** 0.5,
    )
    found = lz.line_ensemble(own, DATA, ENDS, [16], seeds=3, steps=5, places=[0.5], progress=False)
    assert set(found.data_vars) == {"prediction", "mean", "deviation"}
    drawn = {line.get_label() for axes in lz.plot(found).axes for line in axes.lines}
    assert "networks" in drawn
    assert "infinite width" not in drawn


@pytest.mark.slow
def test_the_picture_has_a_panel_for_each_step_and_the_gap(found):
    figure = lz.plot(found)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title.startswith("step")] == ["step 0", "step 3", "step 30", "step 100"]
    assert any(title.startswith("Gap") for title in titles)
    assert "80 networks of width 128" in figure.get_suptitle()


SMALL = {"seeds": 4, "steps": 12, "places": [0.0, 0.5, 1.0], "progress": False}
PLAIN = lz.TwoLayer(8, symmetric=False)


def line(out=None, widths=(8, 16), **options):
    return lz.line_ensemble(PLAIN, DATA, ENDS, list(widths), out=out, **SMALL | options)


@pytest.fixture
def small_packs(monkeypatch, tmp_path):
    """Limit each cell to two networks."""
    set_carried_bytes(monkeypatch, tmp_path / "cache", 2 * 4 * 16 * 80)


@cache
def expected_line():
    return line()


@pytest.mark.slow
def test_networks_that_diverge_cause_a_warning():
    options = {"seeds": 2, "steps": 200, "places": [0.5], "progress": False}
    with (
        pytest.warns(UserWarning, match="above 2 / lambda_max"),
        pytest.warns(UserWarning, match="2 of 2 networks of width 16 diverged"),
    ):
        found = lz.line_ensemble(NETWORK, DATA, ENDS, [16], learning_rate=50.0, **options)
    assert not np.isfinite(found["mean"].sel(step=200)).any()


@pytest.mark.slow
def test_two_shards_merge_to_the_same(small_packs, tmp_path):
    expected, out = expected_line(), tmp_path / "run"
    for k in (1, 2):
        assert line(lz.RunFolder(out, shard=(k, 2))) is None
    status = Store(out).status()
    assert (status.finished, status.cells, status.result) == (4, 4, False)
    merged = lz.merge_shards(out)
    xr.testing.assert_identical(merged.drop_attrs(deep=False), expected.drop_attrs(deep=False))
    assert merged.attrs["settings"] == expected.attrs["settings"]
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as stored:
        xr.testing.assert_identical(stored.load().drop_attrs(), expected.drop_attrs())


@pytest.mark.slow
@pytest.mark.parametrize("stored", [0, 2, 3])
def test_an_ensemble_that_was_stopped_is_resumed(stored, small_packs, tmp_path, monkeypatch):
    expected, out, put, keys = expected_line(), tmp_path / "run", Store.put, []

    def stop(self, key, arrays):
        if len(keys) == stored:
            raise KeyboardInterrupt
        keys.append(key)
        put(self, key, arrays)

    monkeypatch.setattr(Store, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        line(out)
    assert Store(out).status().finished == stored
    monkeypatch.setattr(Store, "put", lambda self, key, arrays: keys.append(key) or put(self, key, arrays))
    result = line(lz.RunFolder(out, resume=True))
    # Every cell is computed once.
    assert keys == ["000000", "000001", "000002", "limit"]
    xr.testing.assert_identical(result.drop_attrs(), expected.drop_attrs())
    with pytest.raises(ValueError, match=r"places = \[0.0, 0.5, 1.0\] instead of \[0.0, 0.25, 1.0\]"):
        line(lz.RunFolder(out, resume=True), places=[0.0, 0.25, 1.0])


@pytest.mark.slow
def test_an_ensemble_that_runs_out_of_time_is_resumed(small_packs, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TimeoutError, match=r"Pass resume=True to resume the study"):
        line(lz.RunFolder(out, max_seconds=1e-6))
    xr.testing.assert_identical(line(lz.RunFolder(out, resume=True)).drop_attrs(), expected_line().drop_attrs())


BAD = {
    "one end": ({"ends": ENDS[:1]}, r"^ends must have shape \(2, 64\), got shape \(1, 64\)\.$"),
    "no number": ({"ends": ENDS * np.nan}, r"^ends must contain only finite numbers, got nan\.$"),
    "no numbers": ({"ends": "ab"}, "^ends must be an array of real numbers, got an array of <U2"),
    "no numbers as places": ({"places": [None]}, "^places must be an array of real numbers, got an array of object"),
    "through zero": (
        {"ends": [ENDS[0], -ENDS[0]], "places": [0, 0.5]},
        r"^places must not include the coordinate of the zero input, got 0\.5\.",
    ),
    "no place": ({"places": []}, r"^places must be a nonempty list of numbers, got an array of shape \(0,\)\.$"),
    "infinite place": ({"places": [np.inf]}, r"^places must contain only finite numbers, got inf\.$"),
    "one network": ({"seeds": 1}, r"^seeds must specify at least two seeds, got 1"),
    "no steps": ({"steps": 0}, r"^steps must be .*, got 0"),
    "no widths": ({"widths": []}, r"^widths must contain at least one width"),
    "outputs": ({"network": lz.TwoLayer(8, outputs=2)}, r"^network.outputs must be 1, got 2"),
    "a folder": ({"out": 3}, r"^out must be a path or a lazynet.RunFolder, got 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case):
    change, pattern = BAD[case]
    given = {"network": NETWORK, "data": DATA, "ends": ENDS, "widths": [8], "seeds": 2, "steps": 5} | change
    with pytest.raises(ValueError, match=pattern), unchecked():
        lz.line_ensemble(**given)
