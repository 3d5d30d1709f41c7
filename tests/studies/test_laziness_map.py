"""Maps of small networks: both regimes, the boundary, networks that do not fit, folders, pictures."""

import fcntl
import io
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from compilation import optimized
from unchecked import unchecked

import lazynet as lz
from lazynet import cli
from lazynet.execution import Store
from lazynet.networks import Centered
from lazynet.studies.laziness_map import _setting as setting

DATA = lz.load_dataset("digits", classes=(1, 8), n_train=24, n_test=40)
BOTH = lz.TwoLayer(width=2, train="both")
SCALES = [0.03, 0.3, 3.0, 30.0]
OPTIONS = {"seeds": 3, "progress": False}
ALONE = lz.Measure(predictions=False)


@pytest.fixture(scope="module")
def found():
    with optimized():
        return lz.laziness_map(BOTH, DATA, [512, 64], SCALES[::-1], **OPTIONS)


SMALL = {"seeds": 2, "fitted": 0.3, "change": 0.1, "progress": False}


@pytest.fixture(scope="module")
def small():
    return lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], **SMALL)


@pytest.mark.slow
def test_small_scales_learn_features_and_large_ones_are_lazy(found):
    assert (found.status == 0).all()
    assert (found.train_loss <= 0.01 * 12 * (1 + 1e-6)).all()
    assert found.width.values.tolist() == [64, 512]
    assert found.output_scale.values.tolist() == SCALES
    change = found.kernel_change.mean("seed")
    assert (change.diff("output_scale") < 0).all()
    assert (change.sel(output_scale=0.03) > 2).all()
    assert (change.sel(output_scale=30) < 0.02).all()
    # Where features are learned the change goes as 1 / (sqrt(m) alpha), Geiger et al. 2019 with one hidden layer.
    slope = np.log(change.sel(output_scale=0.3) / change.sel(output_scale=0.03)) / np.log(10)
    assert -1.3 < slope.sel(width=64) < -0.8
    np.testing.assert_allclose(found.control, np.sqrt([[64], [512]]) * np.array(SCALES))
    assert ((found.test_error >= 0) & (found.test_error <= 1)).all()


@pytest.mark.slow
def test_networks_at_the_boundary_change_their_kernels_by_the_given_share(found):
    scales = dict(zip(found.width.values.tolist(), found.boundary.values.tolist(), strict=True))
    assert (found.boundary_low <= found.boundary).all()
    assert (found.boundary <= found.boundary_high).all()
    stop = lz.Stop(loss=0.01 * 12)
    # A sweep of the same networks, without a map.
    network = BOTH.clone(width=64, output_scale=lambda width: scales[width])
    result = lz.sweep(
        network, DATA, [64, 512], seeds=3, steps=20_000, optimizer="flow", measure=ALONE, stop=stop, snapshots=2
    )
    np.testing.assert_allclose(result.kernel_drift.isel(step=-1).mean("seed"), 0.3, rtol=0.02)
    exponent = np.log(scales[512] / scales[64]) / np.log(8)
    assert found.attrs["boundary_exponent"] == pytest.approx(exponent)
    assert found.attrs["boundary_exponent"] == pytest.approx(-0.5, abs=0.2)
    assert found.attrs["boundary_exponent_predicted"] == -0.5
    assert np.exp(found.attrs["collapse_spread"]) < 2
    # Each round halves what is left, in logs, of a bracket of a factor of ten.
    assert found.sizes["round"] == 6
    assert (np.abs(np.log(found.tried_scale[:, -1] / found.boundary)) < np.log(10) / 2**5).all()


@pytest.mark.slow
def test_descent_at_a_small_step_finds_the_same_change(found):
    """Plain descent at a constant rate, without anything of a flow."""
    network = BOTH.clone(width=64, output_scale=0.3)
    x = jnp.asarray(DATA.x_train, "float32")
    largest = np.linalg.eigvalsh(lz.empirical_ntk(network, network.init(jax.random.key(0), x), x))[-1]
    for seed, expected in enumerate(found.kernel_change.sel(width=64, output_scale=0.3).values):
        options = {"learning_rate": 0.02 / largest, "measure": ALONE, "stop": lz.Stop(loss=0.01 * 12), "snapshots": 2}
        result = lz.sweep(BOTH.clone(output_scale=0.3), DATA, [64], seeds=[seed], steps=20_000, **options)
        assert int(result.status[0, 0]) == 2
        assert float(result.kernel_drift[0, 0, -1]) == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
def test_networks_that_do_not_fit_are_recorded_and_are_no_points():
    found = lz.laziness_map(lz.TwoLayer(width=2), DATA, [2, 64], [0.03, 30.0], **OPTIONS)
    narrow = found.sel(width=2)
    assert (narrow.status == 3).any()
    lost = found.status != 0
    assert (found.train_loss.where(lost) > 0.12).sum() == lost.sum()
    for name in ("kernel_change", "test_error", "activation_flips", "time"):
        np.testing.assert_array_equal(found[name].isnull(), lost)
    assert np.isfinite(found.boundary.sel(width=64))
    assert found.status.attrs["flag_meanings"] == "fitted unfinished diverged dead"
    assert found.attrs["reason"] == ""


@pytest.mark.slow
def test_a_boundary_that_is_steeper_is_told_why():
    """Narrow networks of hidden weights alone, where flips of single units are what changes the kernel."""
    with optimized():
        found = lz.laziness_map(lz.TwoLayer(width=2), DATA, [64, 1024], [0.03, 30.0], change=0.08, **OPTIONS)
    assert found.attrs["boundary_exponent"] < -0.6
    assert "m^(-3/2)" in found.attrs["reason"]


def test_networks_that_have_no_time_to_fit_are_unfinished():
    with pytest.warns(UserWarning, match=r"boundary at widths 64, because .* by status: 0 fitted, 6 unfinished"):
        found = lz.laziness_map(BOTH, DATA, [64], [0.1, 10.0], steps=3, **OPTIONS)
    assert (found.status == 1).all()
    assert np.isnan(found.attrs["boundary_exponent"])
    assert "no boundary at kernel change 0.3" in drawn(lz.plot(found)).get_suptitle()


def drawn(figure):
    """Draw a figure: matplotlib reports its mistakes then."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


@pytest.mark.slow
def test_maps_without_test_rows_or_without_a_change_are_drawn():
    alone = lz.Dataset(DATA.x_train, DATA.y_train)
    found = lz.laziness_map(BOTH, alone, [16], [0.1, 30.0], seeds=1, fitted=0.3, progress=False)
    assert found.test_error.isnull().all()
    assert np.isfinite(found.boundary).all()
    assert np.isnan(
        [*found.boundary_low.values, found.attrs["collapse_spread"], found.attrs["collapse_exponent"]]
    ).all()
    assert "a boundary at only one width" in drawn(lz.plot(found)).get_suptitle()
    with pytest.warns(UserWarning, match="Networks by status: 4 fitted, 0 unfinished, 0 diverged, 0 dead"):
        still = lz.laziness_map(
            BOTH.clone(train="readout"), DATA, [16], [0.1, 1.0], seeds=2, fitted=0.5, progress=False
        )
    assert (still.kernel_change == 0).all()
    drawn(lz.plot(still))


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [lz.TwoLayer(8, activation="tanh", train="both", symmetric=False), lz.MLP(8, 2, activation="tanh")]
)
def test_networks_that_do_not_start_at_zero_are_mapped_less_their_start(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # No network changes its kernel by so little, so that no boundary is searched for.
        found = lz.laziness_map(network, DATA, [64], [3.0, 30.0, 300.0], seeds=2, change=1e-9, progress=False)
    assert (found.status == 0).all()
    settings = json.loads(found.attrs["settings"])
    assert (settings["centered"], settings.get("symmetric", False)) == (True, False)
    change = found.kernel_change.mean("seed").isel(width=0)
    # Nothing cancels the first order here. The change of lazy networks goes as 1 / alpha (Geiger et al. 2019).
    assert float(np.log(change[-1] / change[-2]) / np.log(10)) == pytest.approx(-1, abs=0.15)
    alone = lz.train(
        *(Centered(network.clone(width=64, output_scale=3.0)), DATA), jax.random.fold_in(
            jax.random.fold_in(jax.random.key(0), 64), 1), 20_000, optimizer="flow", stop=lz.Stop(loss=0.12),
    )  # fmt: skip
    expected = found.kernel_change.sel(width=64, output_scale=3.0, seed=1)
    assert float(alone.snapshots.kernel_drift[-1]) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.slow
def test_a_network_of_ones_own_is_mapped_too():
    own = lz.from_functions(
        lambda key, x, width: BOTH.clone(width=width, symmetric=False).init(key, x)["params"],
        lambda params, x: BOTH.clone(width=len(params["readout"]), symmetric=False).apply({"params": params}, x),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = lz.laziness_map(own, DATA, [16, 32], [0.8, 1.6], **SMALL)
        expected = lz.laziness_map(BOTH.clone(symmetric=False), DATA, [32], [0.8, 1.6], **SMALL | {"change": 1e-9})
    np.testing.assert_allclose(found.kernel_change.sel(width=[32]), expected.kernel_change, rtol=0.06)
    # Theory predicts no boundary for a network of one's own.
    assert np.isnan(found.attrs["boundary_exponent_predicted"])
    assert found.attrs["control_exponent"] == pytest.approx(-found.attrs["boundary_exponent"])


@pytest.mark.slow
def test_a_map_that_was_stopped_is_resumed(tmp_path, monkeypatch, small):
    out, names, sweep = tmp_path / "map", [], setting.sweep

    def dies(*args, **options):
        names.append(options["out"].path.name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return sweep(*args, **options)

    monkeypatch.setattr(setting, "sweep", dies)
    with pytest.raises(KeyboardInterrupt):
        lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=out, **SMALL)
    assert names == ["map", "boundary-0.1-1", "boundary-0.1-2"]
    with pytest.raises(ValueError, match=r"^out must be a new folder"):
        lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=out, **SMALL)
    cells = sorted((out / "map" / "cells").iterdir())
    folder = lz.RunFolder(out, resume=True)
    again = lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=folder, **SMALL)
    assert sorted((out / "map" / "cells").iterdir()) == cells
    xr.testing.assert_identical(again.drop_attrs(), small.drop_attrs())
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as stored:
        xr.testing.assert_identical(stored.load().drop_attrs(), small.drop_attrs())
        assert json.loads(stored.attrs["settings"])["change"] == 0.1
    with pytest.raises(ValueError, match=r"widths = \[16, 32\] instead of \[16, 64\]"):
        lz.laziness_map(BOTH, DATA, [16, 64], [0.3, 30.0], out=folder, **SMALL)
    # Another change has another boundary on the same map, which is read.
    monkeypatch.undo()
    other = lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=folder, **SMALL | {"change": 0.05})
    assert other.kernel_change.identical(small.kernel_change)
    assert (other.boundary > small.boundary).all()
    cells_folder = lz.RunFolder(out / "map" / "cells", resume=True)
    with pytest.raises(ValueError, match=r"^out must be a new folder or the folder of this study"):
        lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=cells_folder, **SMALL)


@pytest.mark.slow
def test_a_map_in_two_shards_is_finished_without_a_shard(tmp_path, small):
    out = tmp_path / "map"
    for k in (1, 2):
        folder = lz.RunFolder(out, shard=(k, 2))
        assert lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=folder, **SMALL) is None
    assert not (out / "result.nc").exists()
    cells = {file: file.stat().st_mtime_ns for file in (out / "map" / "cells").iterdir()}
    assert len(cells) == 4
    result = lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=lz.RunFolder(out, resume=True), **SMALL)
    xr.testing.assert_identical(result.drop_attrs(), small.drop_attrs())
    for name in ("boundary_exponent", "collapse_spread", "control_exponent"):
        np.testing.assert_equal(result.attrs[name], small.attrs[name])
    assert cells == {file: file.stat().st_mtime_ns for file in (out / "map" / "cells").iterdir()}


@pytest.mark.slow
def test_a_map_that_runs_out_of_time_is_resumed(tmp_path, small):
    out = tmp_path / "map"
    with pytest.raises(TimeoutError, match=r"Pass resume=True to resume"):
        lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=lz.RunFolder(out, max_seconds=1e-3), **SMALL)
    result = lz.laziness_map(BOTH, DATA, [16, 32], [0.3, 30.0], out=lz.RunFolder(out, resume=True), **SMALL)
    xr.testing.assert_identical(result.drop_attrs(), small.drop_attrs())


def test_the_folder_of_a_map_says_what_it_holds(tmp_path, capsys):
    out = tmp_path / "map"
    grid = [16, 32], [0.3, 30.0]
    with pytest.raises(TimeoutError, match=r"^The time limit"):
        lz.laziness_map(BOTH, DATA, *grid, out=lz.RunFolder(out, shard=(1, 2), max_seconds=1e-3), **SMALL)
    assert Store(out).content["request"]["output_scale"] == [0.3, 30.0]
    with pytest.raises(ValueError, match=r"^out must .* 'laziness_map'\. To join its shards, .* without a shard\.$"):
        lz.merge_shards(out)
    cells = Store(out / "map")
    for number, key in enumerate(cells.keys):
        assert cli.main(["status", str(out)]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert first == f"laziness_map: {number} of 4 cells of the grid are stored, 0 are damaged."
        assert second.startswith("No process is using the study. To continue, call lazynet.laziness_map again")
        cells.put(key, {})
    (out / "result.nc").touch()
    assert not Store(out).status().result
    Store(out).finish({"result.nc": b"result"})
    assert cli.main(["status", str(out), "--json"]) == cli.main(["status", str(out)]) == 0
    as_json, *_, last = capsys.readouterr().out.splitlines()
    status = {"finished": 4, "damaged": 0, "cells": 4, "running": False, "result": True}
    assert json.loads(as_json) == {"kind": "laziness_map", **status}
    assert last == "The study is finished."
    # Another process keeps this one away before any work starts.
    with open(out / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"^Another process is using"):
            lz.laziness_map(BOTH, DATA, *grid, out=lz.RunFolder(out, resume=True), **SMALL)


@pytest.mark.slow
def test_the_picture_says_what_was_found(small):
    figure = drawn(lz.plot(small))
    assert f"α ~ m^{small.attrs['boundary_exponent']:.2f}" in figure.get_suptitle()
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 4
    assert panels[2].get_xlabel() == "control parameter √m α"
    assert len(panels[2].lines) == 3


BAD = {
    "one scale": ({"output_scales": [1.0]}, "^output_scales must be at least two distinct positive numbers, got"),
    "a scale twice": ({"output_scales": [1.0, 1.0]}, "^output_scales must be"),
    "a negative scale": ({"output_scales": [-1.0, 1.0]}, "^output_scales must be"),
    "no change": ({"change": 0.0}, "^change must be positive and finite, got 0.0"),
    "no number": ({"change": "x"}, "^change must be positive and finite, got 'x'"),
    "no scales": ({"output_scales": "abc"}, "^output_scales must be .*, got abc"),
    "all of the loss": ({"fitted": 1.0}, "^fitted must be between 0 and 1, got 1.0"),
    "no steps": ({"steps": 0}, "^steps must be .*, got 0"),
    "no widths": ({"widths": []}, "^widths must contain at least one width"),
    "no seeds": ({"seeds": 0}, "^seeds must be .*, got 0"),
    "odd width": ({"widths": [17]}, "^width .*17"),
    "unknown dtype": ({"dtype": "float16"}, "^dtype must be .*, got 'float16'"),
    "no folder": ({"out": 3}, "^out must be a path or a lazynet.RunFolder, got 3"),
    "no network": ({"network": "relu"}, "^network .*str"),
    "targets of another shape": (
        {"data": lz.load_dataset("digits", classes=(0, 1, 2), n_train=16, n_test=6)},
        "^network.outputs must be 3",
    ),
    "targets of zero": (
        {"data": lz.Dataset(DATA.x_train, np.zeros(DATA.n_train))},
        "^y_train must contain nonzero targets",
    ),
    "an expansion": (
        {"network": lz.linearize(BOTH, BOTH.init(jax.random.key(0), jnp.ones((2, 64))))},
        "^network must have an output_scale field, got",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case, tmp_path):
    change, pattern = BAD[case]
    given = {"network": BOTH, "data": DATA, "widths": [16], "output_scales": SCALES, "out": tmp_path / "new"} | change
    with pytest.raises(ValueError, match=pattern) as raised, unchecked():
        lz.laziness_map(**given)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()
