"""Test laziness maps of small networks: both regimes, boundaries, networks that do not fit, folders and figures."""

import json
import warnings

import jax
import numpy as np
import pytest
import xarray as xr
from filelock import ReadWriteLock
from unchecked import unchecked

import lazynet as lz
from lazynet import cli
from lazynet.execution import Store
from lazynet.networks import Centered
from lazynet.studies.laziness_map import _setting as setting
from lazynet.studies.laziness_map._api import NO_GRADIENT, STILL

DATA = lz.load_dataset("digits", classes=(1, 8), n_train=16, n_test=16)
BOTH = lz.TwoLayer(width=2, train="both")
# Maps with the same widths, seeds and target loss share their compiled programs.
WIDTHS, SCALES = [32, 128], [0.03, 0.3, 3.0, 30.0]
LOSS = 0.1 * 0.5 * DATA.n_train
OPTIONS = {"seeds": 3, "fitted": 0.1, "progress": False}
ALONE = lz.Measure(predictions=False)
# Use the same stopping criteria as a map, so that compiled programs are shared.
STOP = lz.Stop(loss=LOSS, gradient=NO_GRADIENT, plateau=STILL)


@pytest.fixture(scope="module")
def found():
    return lz.laziness_map(BOTH, DATA, WIDTHS[::-1], SCALES[::-1], **OPTIONS)


# If the output scales are close to the boundaries, the search for the boundaries takes few rounds.
GRID, SMALL = ([32, 36], [0.5, 0.72]), OPTIONS | {"change": 0.5}


@pytest.fixture(scope="module")
def small():
    return lz.laziness_map(BOTH, DATA, *GRID, **SMALL)


@pytest.mark.slow
def test_small_scales_learn_features_and_large_ones_are_lazy(found):
    assert (found.status == 0).all()
    assert (found.train_loss <= LOSS * (1 + 1e-6)).all()
    assert found.width.values.tolist() == WIDTHS
    assert found.output_scale.values.tolist() == SCALES
    change = found.kernel_change.mean("seed")
    assert (change.diff("output_scale") < 0).all()
    assert (change.sel(output_scale=0.03) > 2).all()
    assert (change.sel(output_scale=30) < 0.02).all()
    # Where features are learned, the kernel change scales as 1 / (sqrt(m) alpha) for one hidden layer (Geiger et al.
    # 2019).
    slope = np.log(change.sel(output_scale=0.3) / change.sel(output_scale=0.03)) / np.log(10)
    assert -1.3 < slope.sel(width=32) < -0.8
    np.testing.assert_allclose(found.control, np.sqrt([[32], [128]]) * np.array(SCALES))
    assert ((found.test_error >= 0) & (found.test_error <= 1)).all()


@pytest.mark.slow
def test_networks_at_the_boundary_change_their_kernels_by_the_given_share(found):
    scales = dict(zip(found.width.values.tolist(), found.boundary.values.tolist(), strict=True))
    assert (found.boundary_low <= found.boundary).all()
    assert (found.boundary <= found.boundary_high).all()
    # Train networks with the output scales of the boundary in a sweep, without a map.
    network = BOTH.clone(width=32, output_scale=lambda width: scales[width])
    options = {"optimizer": "flow", "measure": ALONE, "stop": STOP, "snapshots": 2}
    result = lz.sweep(network, DATA, WIDTHS, seeds=3, steps=20_000, **options)
    np.testing.assert_allclose(result.kernel_drift.isel(step=-1).mean("seed"), 0.3, rtol=0.02)
    exponent = np.log(scales[128] / scales[32]) / np.log(4)
    assert found.attrs["boundary_exponent"] == pytest.approx(exponent)
    assert found.attrs["boundary_exponent"] == pytest.approx(-0.5, abs=0.2)
    assert found.attrs["boundary_exponent_predicted"] == -0.5
    assert np.exp(found.attrs["collapse_spread"]) < 2
    # Each round halves, on a logarithmic scale, a bracket that initially spans a factor of ten.
    assert found.sizes["round"] == 6
    assert (np.abs(np.log(found.tried_scale[:, -1] / found.boundary)) < np.log(10) / 2**5).all()


@pytest.mark.slow
def test_descent_at_a_small_step_finds_the_same_change(found):
    """Train with gradient descent at a small constant learning rate instead of the flow optimizer of a map."""
    expected = found.kernel_change.sel(width=32, output_scale=0.3)
    # The flow's first step is 1 / lambda_max of the infinite-width kernel.
    rate = 0.02 * float(found.learning_rate.sel(width=32, output_scale=0.3))
    options = {"learning_rate": rate, "measure": ALONE, "stop": lz.Stop(loss=LOSS), "snapshots": 2}
    result = lz.sweep(BOTH.clone(output_scale=0.3), DATA, [32], seeds=3, steps=20_000, **options)
    assert (result.status == 2).all()
    np.testing.assert_allclose(result.kernel_drift[0, :, -1], expected, rtol=0.03)


@pytest.mark.slow
def test_networks_that_do_not_fit_are_recorded_and_are_no_points():
    # Of these networks with two units, one starts without active units, and another loses its active units.
    options = OPTIONS | {"seeds": [2, 5, 6]}
    with pytest.warns(
        UserWarning, match=r"at some widths \(2\), because .* 9 fitted, 0 unfinished, 0 diverged, 3 dead"
    ):
        found = lz.laziness_map(lz.TwoLayer(width=2), DATA, [2, 16], [0.03, 30.0], **options)
    narrow = found.sel(width=2)
    assert (narrow.status == 3).any()
    lost = found.status != 0
    assert (found.train_loss.where(lost) > LOSS).sum() == lost.sum()
    for name in ("kernel_change", "test_error", "activation_flips", "time"):
        np.testing.assert_array_equal(found[name].isnull(), lost)
    assert np.isfinite(found.boundary.sel(width=16))
    assert found.status.attrs["flag_meanings"] == "fitted unfinished diverged dead"
    assert found.attrs["reason"] == ""


@pytest.mark.whole
def test_a_boundary_that_is_steeper_is_told_why():
    """In narrow networks in which only hidden weights are trained, flips of single units change the kernel."""
    found = lz.laziness_map(lz.TwoLayer(width=2), DATA, [16, 64], [0.03, 30.0], change=0.08, **OPTIONS)
    assert found.attrs["boundary_exponent"] < -0.6
    assert "m^(-3/2)" in found.attrs["reason"]


@pytest.mark.slow
def test_networks_that_have_no_time_to_fit_are_unfinished():
    with pytest.warns(UserWarning, match=r"at some widths \(32\), because .* by status: 0 fitted, 6 unfinished"):
        found = lz.laziness_map(BOTH, DATA, [32], [0.1, 10.0], steps=3, **OPTIONS)
    assert (found.status == 1).all()
    assert np.isnan(found.attrs["boundary_exponent"])
    assert "no boundary at kernel change 0.3" in drawn(lz.plot(found)).get_suptitle()


def drawn(figure):
    """Draw a figure and return it; matplotlib reports some errors only when drawing."""
    figure.draw_without_rendering()
    return figure


@pytest.mark.slow
def test_maps_without_test_rows_or_without_a_change_are_drawn(small):
    alone, options = lz.Dataset(DATA.x_train, DATA.y_train), OPTIONS | {"seeds": 1}
    found = lz.laziness_map(BOTH, alone, [32], [1.1, 1.4], **options)
    assert found.test_error.isnull().all()
    assert np.isfinite(found.boundary).all()
    assert np.isnan(
        [*found.boundary_low.values, found.attrs["collapse_spread"], found.attrs["collapse_exponent"]]
    ).all()
    assert "a boundary at only one width" in drawn(lz.plot(found)).get_suptitle()
    # Set the kernel change to zero, as if only the readout were trained.
    still = small.assign(kernel_change=0 * small.kernel_change, boundary=np.nan * small.boundary)
    axes = drawn(lz.plot(still.assign_attrs(collapse_spread=np.nan))).axes[2]
    assert (axes.get_yscale(), axes.get_title()) == ("linear", "Kernel change")


@pytest.mark.slow
def test_networks_that_do_not_start_at_zero_are_mapped_less_their_start():
    network, options = lz.MLP(8, 2, activation="tanh"), OPTIONS | {"seeds": [1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # All networks change their kernels by more than 1e-9, so no boundary is searched for.
        found = lz.laziness_map(network, DATA, [32], [3.0, 30.0, 300.0], change=1e-9, **options)
    assert (found.status == 0).all()
    settings = json.loads(found.attrs["settings"])
    assert (settings["centered"], settings.get("symmetric", False)) == (True, False)
    change = found.kernel_change[0, :, 0]
    # No symmetry cancels the first-order term of the kernel change, so in lazy networks the change scales as 1 / alpha
    # (Geiger et al. 2019).
    assert float(np.log(change[-1] / change[-2]) / np.log(10)) == pytest.approx(-1, abs=0.15)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 32), 1)
    centered = Centered(network.clone(width=32, output_scale=3.0))
    alone = lz.train(centered, DATA, key, 20_000, optimizer="flow", stop=STOP, measure=ALONE, snapshots=2)
    assert float(alone.snapshots.kernel_drift[-1]) == pytest.approx(float(change[0]), rel=1e-3)


@pytest.mark.whole
def test_a_network_of_ones_own_is_mapped_too(found):
    own = lz.from_functions(
        lambda key, x, width: BOTH.clone(width=width).init(key, x)["params"],
        lambda p, x: jax.nn.relu(x @ p["hidden"].T) @ p["readout"][:, 0] / len(p["readout"]) ** 0.5,
    )
    # With output scales this close, the search for the boundaries takes a single round.
    mapped = lz.laziness_map(own, DATA, [32, 36], [0.3, 0.33], change=1.2, **OPTIONS)
    expected = found.kernel_change.sel(width=32, output_scale=0.3)
    np.testing.assert_allclose(mapped.kernel_change.sel(width=32, output_scale=0.3), expected, rtol=0.02)
    # A user-defined network is not known to start at zero, so it is centered.
    assert json.loads(mapped.attrs["settings"])["centered"]
    # Theory predicts no boundary exponent for a user-defined network.
    assert np.isnan(mapped.attrs["boundary_exponent_predicted"])
    assert mapped.attrs["control_exponent"] == pytest.approx(-mapped.attrs["boundary_exponent"])


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
        lz.laziness_map(BOTH, DATA, *GRID, out=out, **SMALL)
    assert names == ["map", "boundary-0.5-1", "boundary-0.5-2"]
    with pytest.raises(ValueError, match=r"^out must be a new folder"):
        lz.laziness_map(BOTH, DATA, *GRID, out=out, **SMALL)
    cells = sorted((out / "map" / "cells").iterdir())
    folder = lz.RunFolder(out, resume=True)
    again = lz.laziness_map(BOTH, DATA, *GRID, out=folder, **SMALL)
    assert sorted((out / "map" / "cells").iterdir()) == cells
    xr.testing.assert_identical(again.drop_attrs(), small.drop_attrs())
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as stored:
        xr.testing.assert_identical(stored.load().drop_attrs(), small.drop_attrs())
        assert json.loads(stored.attrs["settings"])["change"] == 0.5
    with pytest.raises(ValueError, match=r"widths = \[32, 36\] instead of \[32, 64\]"):
        lz.laziness_map(BOTH, DATA, [32, 64], GRID[1], out=folder, **SMALL)
    # A different kernel change has a different boundary, but the stored map is reused.
    monkeypatch.undo()
    other = lz.laziness_map(BOTH, DATA, *GRID, out=folder, **SMALL | {"change": 0.45})
    assert other.kernel_change.identical(small.kernel_change)
    assert (other.boundary > small.boundary).all()
    cells_folder = lz.RunFolder(out / "map" / "cells", resume=True)
    with pytest.raises(ValueError, match=r"^out must be a new folder or the folder of this study"):
        lz.laziness_map(BOTH, DATA, *GRID, out=cells_folder, **SMALL)


@pytest.mark.slow
def test_a_map_out_of_time_goes_on_in_two_shards_and_is_finished_without_a_shard(tmp_path, small):
    out = tmp_path / "map"
    with pytest.raises(TimeoutError, match=r"Pass resume=True to resume"):
        lz.laziness_map(BOTH, DATA, *GRID, out=lz.RunFolder(out, max_seconds=1e-3), **SMALL)
    for k in (1, 2):
        folder = lz.RunFolder(out, shard=(k, 2))
        assert lz.laziness_map(BOTH, DATA, *GRID, out=folder, **SMALL) is None
    assert not (out / "result.nc").exists()
    cells = {file: file.stat().st_mtime_ns for file in (out / "map" / "cells").iterdir()}
    assert len(cells) == 4
    result = lz.laziness_map(BOTH, DATA, *GRID, out=lz.RunFolder(out, resume=True), **SMALL)
    xr.testing.assert_identical(result.drop_attrs(), small.drop_attrs())
    for name in ("boundary_exponent", "collapse_spread", "control_exponent"):
        np.testing.assert_equal(result.attrs[name], small.attrs[name])
    assert cells == {file: file.stat().st_mtime_ns for file in (out / "map" / "cells").iterdir()}


def test_the_folder_of_a_map_says_what_it_holds(tmp_path, capsys):
    out = tmp_path / "map"
    with pytest.raises(TimeoutError, match=r"^The time limit"):
        lz.laziness_map(BOTH, DATA, *GRID, out=lz.RunFolder(out, shard=(1, 2), max_seconds=1e-3), **SMALL)
    assert Store(out).content["request"]["output_scale"] == GRID[1]
    with pytest.raises(ValueError, match=r"^out must .* 'laziness_map'\. To join its shards, .* no shard\.$"):
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
    status = {"finished": 4, "damaged": 0, "cells": 4, "running": False, "result": True, "holders": []}
    assert json.loads(as_json) == {"kind": "laziness_map", **status}
    assert last == "The study is finished."
    # If another process is using the study, a second one is refused before any work starts.
    lock = ReadWriteLock(out / "lock", is_singleton=False).write_lock()
    with lock, pytest.raises(ValueError, match=r"^Another process is using"):
        lz.laziness_map(BOTH, DATA, *GRID, out=lz.RunFolder(out, resume=True), **SMALL)


@pytest.mark.slow
def test_the_picture_says_what_was_found(small):
    figure = drawn(lz.plot(small))
    assert f"α ~ m^{small.attrs['boundary_exponent']:.2f}" in figure.get_suptitle()
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 4
    assert panels[2].get_xlabel() == "control parameter √m α"
    assert len(panels[2].lines) == 3


BAD = {
    "one scale": ({"output_scales": [1.0]}, "^output_scales must be two or more different positive numbers, got"),
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
        {"network": lz.linearize(BOTH, {"params": {"hidden": np.ones((2, 64)), "readout": np.ones((2, 1))}})},
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
