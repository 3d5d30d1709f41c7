"""Sweeps over more than width and seed: every point is the sweep of that point alone."""

import json
import sys

import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet import cli
from lazynet.experiment._grid import AXES
from lazynet.training._keys import noise_key

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
AXIS = {
    "activation": ["relu", "erf"],
    "init_scale": [0.5, 1.0],
    "output_scale": [1.0, 2.0],
    "n_train": [8, 16],
    "learning_rate": [0.01, 0.02],
    "batch_size": [4, 16],
    "label_noise": [0.0, 0.5],
}
MEMBER = ("width", "seed", "step")


def sweep(widths=(8, 16), **more):
    return lz.sweep(lz.TwoLayer(width=8), DATA, widths, 2, 6, **{"learning_rate": 0.02} | more)


@pytest.mark.parametrize("name", AXES)
def test_every_point_is_the_sweep_of_it_alone(name):
    result = sweep(**{name: AXIS[name]})
    assert result.train_loss.dims == (*MEMBER, name)
    assert result[name].values.tolist() == AXIS[name]
    losses = []
    for value in AXIS[name]:
        point, alone = result.sel({name: value}), sweep(**{name: value})
        assert alone.train_loss.dims == MEMBER
        missing = set(point.data_vars) - set(alone.data_vars)
        # At some batch sizes there is no descent on the kernel.
        assert not missing or (name == "batch_size" and value == 4)
        for variable in alone.data_vars:
            assert np.array_equal(point[variable].values, alone[variable].values, equal_nan=True), variable
        assert all(np.isnan(point[variable]).all() for variable in missing)
        assert lz.verify(point).to_json() == lz.verify(alone).to_json()
        losses.append(alone.train_loss.values)
    assert not np.array_equal(*losses)


def test_the_limit_has_the_axes_on_which_it_depends():
    result = sweep(n_train=[8, 16], label_noise=[0.0, 0.5], learning_rate=[0.01, 0.02])
    axes = ("n_train", "learning_rate", "label_noise")
    assert result.kernel_drift.dims == (*MEMBER, *axes)
    assert result.status.dims == ("width", "seed", *axes)
    assert result.kernel_test_error.dims == result.linearized_displacement.dims == ("step", *axes)
    assert result.lambda_min.dims == ("n_train",)
    assert result.complexity.dims == result.target_rms.dims == ("n_train", "label_noise")
    kernel = lz.analytic_kernel(lz.TwoLayer(width=8))
    noisy = lz.label_noise(DATA.y_train, 0.5, noise_key())
    expected = lz.complexity(kernel(DATA.x_train), noisy)
    assert float(result.complexity.sel(n_train=16, label_noise=0.5)) == pytest.approx(expected)
    assert result.init_scale.dims == ("width",)
    # Not an axis, but by default of the kernel, so that it has the axes of that.
    default = sweep(learning_rate=None, n_train=[8, 16], label_noise=[0.0, 0.5])
    assert default.learning_rate.dims == ("width", "n_train")
    assert np.allclose(default.learning_rate, 1 / default.lambda_max)
    assert sweep(batch_size=[4, 16]).kernel_train_loss.dims == ("step", "batch_size")


def test_fewer_examples_are_part_of_more():
    few, more = (study_data(n) for n in (5, 11))
    rows = [DATA.x_train.tolist().index(row) for row in more.x_train.tolist()]
    assert rows == sorted(rows) != list(range(11))
    assert {tuple(row) for row in few.x_train} < {tuple(row) for row in more.x_train}
    assert (more.y_train == DATA.y_train[rows]).all()
    assert study_data(16).x_train is DATA.x_train


def study_data(n):
    return sys.modules["lazynet.experiment._grid"]._data_of(DATA, n, 0.0)


def test_one_member_that_diverges_leaves_all_others_as_they_are():
    # Trained readouts alone make a linear model, which has no other minimum to escape to.
    network = lz.TwoLayer(width=8, train="readout")
    with pytest.warns(UserWarning, match="learning_rate is 2 at width 8, above the limit"):
        result = lz.sweep(network, DATA, [8, 16], 2, 60, learning_rate=[0.01, 0.05, 2.0])
    without = lz.sweep(network, DATA, [8, 16], 2, 60, learning_rate=[0.01, 0.05])
    assert (result.status.sel(learning_rate=2.0) == 1).all()
    stopped = result.stopped_step.sel(learning_rate=2.0)
    assert ((stopped > 0) & (stopped < 60)).all()
    assert (result.train_loss.sel(learning_rate=2.0).isnull() == (result.step >= stopped)).all()
    assert (without.status == 0).all()
    rest = result.sel(learning_rate=[0.01, 0.05])
    xr.testing.assert_identical(rest.drop_attrs(deep=False), without.drop_attrs(deep=False))


def test_a_result_with_axes_is_judged_and_drawn_point_by_point():
    result = sweep(learning_rate=[0.01, 0.02], activation=["relu", "erf"])
    for refused in (lz.verify, lz.plot):
        with pytest.raises(ValueError, match=r"result.sel\(activation='relu', learning_rate=0.01\)"):
            refused(result)
    point = result.sel(activation="erf", learning_rate=0.02)
    alone = sweep(activation="erf")
    assert lz.verify(point).to_json() == lz.verify(alone).to_json()
    assert lz.plot(point)._suptitle.get_text().startswith("erf on digits")


def test_axes_are_stored_resumed_sharded_and_merged(tmp_path, monkeypatch):
    axes = {"activation": ["relu", "erf"], "label_noise": [0.0, 0.5]}
    result = sweep(out=tmp_path / "whole", **axes)
    with xr.open_dataset(tmp_path / "whole" / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
    said = json.loads((tmp_path / "whole" / "verdict.json").read_text())["points"]
    assert [point["at"] for point in said[:2]] == [
        {"activation": "relu", "label_noise": 0.0},
        {"activation": "relu", "label_noise": 0.5},
    ]
    for k in (1, 2, 3):
        sweep(out=tmp_path / "shards", shard=(k, 3), **axes)
    xr.testing.assert_equal(lz.merge(tmp_path / "shards"), result)
    cells = sorted((tmp_path / "whole" / "cells").iterdir())
    assert len(cells) == 8
    for cell in cells[3:]:
        cell.unlink()
    (tmp_path / "whole" / "result.nc").unlink()
    # What is stored asks for no kernel.
    kernels = sys.modules["lazynet.experiment._limits"]
    seen, find = [], kernels.limit_of
    monkeypatch.setattr(
        kernels, "limit_of", lambda network, data: seen.append(network.activation) or find(network, data)
    )
    xr.testing.assert_equal(sweep(out=tmp_path / "whole", resume=True, **axes), result)
    assert seen == ["relu", "erf"]
    seen.clear()
    xr.testing.assert_equal(sweep(out=tmp_path / "whole", resume=True, **axes), result)
    assert seen == []
    with pytest.raises(ValueError, match=r"there label_noise is \[0.0, 0.5\], and now it is \[0.0, 0.25\]"):
        sweep(out=tmp_path / "whole", resume=True, **axes | {"label_noise": [0.0, 0.25]})


def test_the_command_line_takes_several_values(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--n-train", "8", "16", "--n-test", "6", "--widths", "8", "16", "--seeds", "2", "--steps", "3"]
    rates = ["--learning-rate", "0.01", "0.02"]
    assert cli.main(["sweep", *flags, *rates, "--json", "--out", str(out)]) == 0
    points = json.loads(capsys.readouterr().out)["verdict"]["points"]
    assert [point["at"] for point in points] == [
        {"n_train": n, "learning_rate": rate} for n in (8, 16) for rate in (0.01, 0.02)
    ]
    assert len(list((out / "figures").iterdir())) == 4
    assert cli.main(["merge", str(out)]) == 0
    assert "\nn_train = 16, learning_rate = 0.01\n" in capsys.readouterr().out
    assert cli.main(["sweep", *flags, *rates, "--plan"]) == 0
    assert "Training 2 networks of width 16, at each of 4 points" in capsys.readouterr().out
