"""Sweeps over axes besides width and seed: every point equals the sweep of that point alone."""

import json
from functools import cache

import jax
import numpy as np
import optax
import pytest
import xarray as xr

import lazynet as lz
from lazynet import cli
from lazynet.experiment import _reference as reference
from lazynet.experiment import make_training
from lazynet.experiment._grid import make_axes, points_of
from lazynet.training._keys import noise_key

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
NETWORK = lz.TwoLayer(width=8)


def softer(z):
    return jax.nn.softplus(z) - jax.nn.softplus(jax.numpy.zeros_like(z))


def falling(width):
    return width**-0.25


# Values of each axis, keyed by their labels, which all have the same type.
AXES = {
    "activation": {"relu": "relu", "softer": softer},
    "init_scale": {"1.0": 1.0, "falling": falling},
    "output_scale": {1.0: 1.0, 2.0: 2.0},
    "train": {"hidden": "hidden", "both": "both"},
    "symmetric": {True: True, False: False},
    "n_train": {8: 8, 16: 16},
    "learning_rate": {0.01: 0.01, 0.02: 0.02},
    "batch_size": {4: 4, 16: 16},
    "label_noise": {0.0: 0.0, 0.5: 0.5},
    "optimizer": {
        "sgd": lz.Optimizer("sgd"),
        "sgd momentum=0.5": lz.Optimizer("sgd", momentum=0.5),
        "adagrad": optax.adagrad,
    },
    "momentum": {0.0: 0.0, 0.5: 0.5},
}
# Axes whose points are compared at two widths, so that the exponents of each point are compared too.
TWO_WIDTHS = ("symmetric", "learning_rate", "label_noise")
FAST = ("learning_rate", "label_noise")
MEMBER = ("width", "seed", "step")


def sweep(widths=(8, 16), *, network=NETWORK, learning_rate=0.02, **options):
    rate = None if "learning_rate" in options.get("axes", {}) else learning_rate
    return lz.sweep(network, DATA, widths, 3, 6, learning_rate=rate, snapshots=3, **options)


@cache
def over(name, widths):
    """Return the sweep over one axis."""
    return sweep(widths, axes={name: list(AXES[name].values())})


def alone(name, value, widths):
    """Return the sweep of one point, whose value is passed as an argument or set as a field of the network."""
    if name in ("activation", "init_scale", "output_scale", "train", "symmetric"):
        return sweep(widths, network=NETWORK.clone(**{name: value}))
    if name == "momentum":
        return sweep(widths, optimizer=lz.Optimizer("sgd", momentum=value))
    if name in ("n_train", "label_noise"):
        return sweep(widths, axes={name: [value]})
    return sweep(widths, **{name: value})


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in AXES])
def test_every_point_is_the_sweep_of_it_alone(name):
    widths = (8, 16) if name in TWO_WIDTHS else (8,)
    result = over(name, widths)
    assert result.train_loss.dims == (*MEMBER, name)
    assert result[name].values.tolist() == list(AXES[name])
    assert json.loads(result.attrs["settings"])["axes"] == {name: list(AXES[name])}
    assert result[name].long_name
    assert result[name].references
    losses = []
    for label, value in AXES[name].items():
        point, single = result.sel({name: label}), alone(name, value, widths)
        assert single.train_loss.dims == MEMBER
        missing = set(point.data_vars) - set(single.data_vars)
        # Kernel descent predicts only plain full-batch gradient descent. Bounds hold only if the hidden weights alone
        # are trained, with an activation of lazynet.
        assert not missing or name in ("activation", "batch_size", "momentum", "optimizer", "train")
        for variable in single.data_vars:
            expected = single[variable].broadcast_like(point[variable]).transpose(*point[variable].dims)
            np.testing.assert_array_equal(point[variable], expected, err_msg=variable)
        assert all(np.isnan(point[variable]).all() for variable in missing)
        if not missing:
            verdict = lz.verify(point)
            assert verdict.to_json() == lz.verify(single).to_json()
            assert verdict.levels
            assert len(widths) == 1 or verdict.rows
        losses.append(single.train_loss.values)
    assert len(np.unique(losses, axis=0)) == len(losses)


@pytest.mark.slow
def test_exponents_of_a_point_are_those_of_its_network():
    """If the initial scale falls with the width, exponents are predicted for relu but not for other activations."""
    one = over("activation", (8,))
    narrower = one.assign_coords(width=[16], init_scale=("width", [0.5]))
    result = xr.concat([one, narrower], "width", data_vars="all")
    assert lz.verify(result.sel(activation="relu")).rows
    assert not lz.verify(result.sel(activation="softer")).rows


@pytest.mark.slow
def test_exponents_of_a_point_need_the_values_of_a_function():
    # Exponents need the values of the function at every width, but a sweep over one width has no exponents.
    one = over("init_scale", (8,))
    result = xr.concat([one, one.assign_coords(width=[16])], "width", data_vars="all")
    assert lz.verify(result.sel(init_scale="1.0")).rows
    with pytest.raises(
        ValueError,
        match=r"^result must contain the value of init_scale at each width, .* only a function's label, 'falling'\.",
    ):
        lz.verify(result.sel(init_scale="falling"))


def test_optimizers_are_labeled_by_what_differs_from_the_default():
    optimizers = [lz.Optimizer("sgd"), lz.Optimizer("sgd", momentum=0.5, nesterov=True), optax.adagrad]
    (axis,) = make_axes({"optimizer": optimizers}, NETWORK)
    assert axis.labels == ("sgd", "sgd momentum=0.5 nesterov=True", "adagrad")


@pytest.mark.slow
def test_the_limit_has_the_axes_on_which_it_depends():
    result = sweep((8,), axes={"n_train": [8, 16], "learning_rate": [0.01, 0.02], "label_noise": [0.0, 0.5]})
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
    # The default learning rate is computed from the kernel, and has the kernel's axes.
    default = sweep((8,), learning_rate=None, axes={"n_train": [8, 16], "label_noise": [0.0, 0.5]})
    assert default.learning_rate.dims == ("width", "n_train")
    assert np.allclose(default.learning_rate, 1 / default.lambda_max)
    # The order of the mini-batches depends on the width and the seed.
    dims = sweep((8,), axes={"batch_size": [4, 16]}).kernel_train_loss.dims
    assert dims == ("width", "seed", "step", "batch_size")


def test_fewer_examples_are_part_of_more():
    few, more = (data_of(n) for n in (5, 11))
    rows = [DATA.x_train.tolist().index(row) for row in more.x_train.tolist()]
    assert rows == sorted(rows) != list(range(11))
    assert {tuple(row) for row in few.x_train} < {tuple(row) for row in more.x_train}
    assert (more.y_train == DATA.y_train[rows]).all()
    assert data_of(16).x_train is DATA.x_train


def data_of(n):
    training = make_training(
        5, loss="squared", optimizer="sgd", batch_size=None, snapshots=None, stop=None, measure=None, dtype="float32"
    )
    (point,) = points_of(NETWORK, DATA, training, None, make_axes({"n_train": [n]}, NETWORK))
    return point.data


@pytest.mark.slow
def test_one_member_that_diverges_leaves_all_others_as_they_are():
    # If only the readout is trained, the model is linear, so a diverging member cannot end in another minimum.
    network = lz.TwoLayer(width=8, train="readout")
    with pytest.warns(UserWarning, match="learning_rate is 2 at width 8"):
        result = lz.sweep(network, DATA, [8], 3, 60, snapshots=8, axes={"learning_rate": [0.01, 0.05, 2.0]})
    without = lz.sweep(network, DATA, [8], 3, 60, snapshots=8, axes={"learning_rate": [0.01, 0.05]})
    assert (result.status.sel(learning_rate=2.0) == 1).all()
    stopped = result.stopped_step.sel(learning_rate=2.0)
    assert ((stopped > 0) & (stopped < 60)).all()
    assert (result.train_loss.sel(learning_rate=2.0).isnull() == (result.step >= stopped)).all()
    assert (without.status == 0).all()
    rest = result.sel(learning_rate=[0.01, 0.05])
    xr.testing.assert_identical(rest.drop_attrs(deep=False), without.drop_attrs(deep=False))


@pytest.mark.slow
def test_a_field_that_changes_the_layers_leaves_out_those_that_a_network_lacks():
    result = sweep((8,), network=lz.MLP(width=8, depth=1), axes={"depth": [1, 2]})
    assert result.layer.values.tolist() == ["hidden_1", "readout", "hidden_2"]
    for depth, layers in ((1, ["hidden_1", "readout"]), (2, ["hidden_1", "hidden_2", "readout"])):
        point, single = result.sel(depth=depth), sweep((8,), network=lz.MLP(width=8, depth=depth))
        assert single.layer.values.tolist() == layers
        for name in ("layer_displacement", "layer_relative_displacement", "layer_kernel_drift"):
            assert result[name].dims == (*MEMBER, "depth", "layer")
            np.testing.assert_array_equal(point[name].sel(layer=layers), single[name])
        for name in ("train_loss", "kernel_gap_test", "lambda_max"):
            np.testing.assert_array_equal(point[name], single[name])
    absent = result.sel(depth=1, layer="hidden_2")
    assert absent.layer_displacement.isnull().all()
    assert absent.layer_kernel_drift.isnull().all()
    assert result.sel(depth=1).isel(layer=slice(2)).layer_displacement.notnull().all()


def test_a_value_may_be_given_in_one_place_only():
    for given, name in (
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"batch_size": 4}, "batch_size"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"optimizer": lz.Optimizer(momentum=0.5)}, "momentum"),
        ({"optimizer": lz.Optimizer("adamw", weight_decay=0.1)}, "weight_decay"),
    ):
        value = {"optimizer": ["sgd", "adam"], "batch_size": [4, 8]}.get(name, [0.1, 0.2])
        with pytest.raises(
            ValueError, match=rf"^axes must not vary a setting that is also passed as an argument, got '{name}'"
        ):
            lz.sweep(NETWORK, DATA, [8], 1, 2, axes={name: value}, **given)


@pytest.mark.slow
def test_a_result_with_axes_is_judged_and_drawn_point_by_point():
    result = sweep(axes={"learning_rate": [0.01, 0.02], "symmetric": [True, False]})
    for refused in (lz.verify, lz.plot):
        with pytest.raises(ValueError, match=r"result.sel\(learning_rate=0.01, symmetric=True\)"):
            refused(result)
    point = result.sel(symmetric=False, learning_rate=0.02)
    single = sweep(network=NETWORK.clone(symmetric=False))
    assert lz.verify(point).to_json() == lz.verify(single).to_json()
    point = over("activation", (8,)).sel(activation="softer")
    assert lz.plot(point)._suptitle.get_text().startswith("softer on digits")


@pytest.mark.slow
def test_axes_are_stored_resumed_sharded_and_merged(tmp_path, monkeypatch):
    axes = {"train": ["hidden", "both"], "label_noise": [0.0, 0.5]}
    result = sweep((8,), out=tmp_path / "run", axes=axes)
    with xr.open_dataset(tmp_path / "run" / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
    points = json.loads((tmp_path / "run" / "verdict.json").read_text())["points"]
    assert [point["at"] for point in points[:2]] == [
        {"train": "hidden", "label_noise": 0.0},
        {"train": "hidden", "label_noise": 0.5},
    ]
    for k in (1, 2, 3):
        sweep((8,), out=lz.RunFolder(tmp_path / "shards", shard=(k, 3)), axes=axes)
    xr.testing.assert_equal(lz.merge_shards(tmp_path / "shards"), result)
    cells = sorted((tmp_path / "run" / "cells").iterdir())
    assert len(cells) == 4
    for cell in cells[1:]:
        cell.unlink()
    (tmp_path / "run" / "result.nc").unlink()
    # Cells that are already stored need no kernel.
    kernels, limit_of = [], reference.limit_of
    monkeypatch.setattr(
        reference, "limit_of", lambda network, data: kernels.append(network.train) or limit_of(network, data)
    )
    folder = lz.RunFolder(tmp_path / "run", resume=True)
    xr.testing.assert_equal(sweep((8,), out=folder, axes=axes), result)
    assert kernels == ["hidden", "both"]
    kernels.clear()
    xr.testing.assert_equal(sweep((8,), out=folder, axes=axes), result)
    assert kernels == []
    with pytest.raises(ValueError, match=r"label_noise = \[0.0, 0.5\] instead of \[0.0, 0.25\]"):
        sweep((8,), out=folder, axes=axes | {"label_noise": [0.0, 0.25]})


@pytest.mark.whole
def test_the_command_line_takes_several_values(tmp_path, capsys):
    out = str(tmp_path / "run")
    flags = ["--n-test", "6", "--widths", "8", "--seeds", "3", "--steps", "3", "--learning-rate", "0.01", "0.02"]
    assert cli.main(["sweep", "--n-train", "16", *flags, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["verdict"]["points"]
    assert [point["at"] for point in points] == [{"learning_rate": 0.01}, {"learning_rate": 0.02}]
    assert cli.main(["sweep", "--n-train", "16", *flags, "--shard", "1/1", "--out", out]) == 0
    assert cli.main(["merge", out]) == 0
    assert "\nlearning_rate = 0.01\n" in capsys.readouterr().out
    assert len(list((tmp_path / "run" / "figures").iterdir())) == 2
    assert cli.main(["sweep", "--n-train", "8", "16", *flags, "--plan"]) == 0
    assert "Training 3 networks of width 8, at each of 4 points" in capsys.readouterr().out
