"""Test `lazynet.infinite_width` against explicit iteration with kernel matrices, and its run folder."""

import json

import numpy as np
import pytest
import xarray as xr
from reference import unit_rows
from unchecked import unchecked

import lazynet as lz
from lazynet.execution import Store
from lazynet.studies.infinite_width import _study as study


@pytest.fixture(scope="module")
def data():
    return lz.load_dataset("digits", n_train=120, n_test=60)


@pytest.mark.parametrize("classes", [(0, 1), (0, 1, 2)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_errors_and_complexity(dtype, classes):
    data = lz.load_dataset("digits", classes, n_train=90, n_test=60)
    network = lz.TwoLayer(width=2, outputs=data.outputs)
    result = lz.infinite_width(network, data, steps=300, snapshots=10, dtype=dtype)
    kernel = lz.analytic_kernel(network)
    k, k_test = kernel(data.x_train), kernel(data.x_test, data.x_train)
    eta = 1 / np.linalg.eigvalsh(k)[-1]
    assert abs(float(result.lambda_max) * eta - 1) < 1e-6
    u, v = np.zeros_like(data.y_train), np.zeros_like(data.y_test)
    for step in range(301):
        if step in result.step:
            at = result.sel(step=step)
            assert abs(float(at.train_loss.sel(labels="true")) - 0.5 * np.sum((u - data.y_train) ** 2)) < 1e-3
            assert abs(float(at.test_loss) - 0.5 * np.sum((v - data.y_test) ** 2)) < 1e-3
            if step:
                wrong = v * data.y_test <= 0 if v.ndim == 1 else v.argmax(1) != data.y_test.argmax(1)
                assert float(at.test_error) == wrong.mean()
        u, v = u - eta * k @ (u - data.y_train), v - eta * k_test @ (u - data.y_train)
    expected = lz.complexity(k, data.y_train)
    assert abs(float(result.complexity.sel(labels="true")) / expected - 1) < 1e-3
    # Random labels are harder to fit than true labels, and before the first step the error is that of chance.
    assert float(result.complexity.sel(labels="random")) > 1.5 * expected
    assert (result.train_loss.sel(labels="random")[1:] > result.train_loss.sel(labels="true")[1:]).all()
    assert np.allclose(result.train_error.sel(step=0), 1 - 1 / len(classes))
    assert result.attrs["resolved_loss"] > 0


def test_the_folder_of_a_study(tmp_path, data):
    result = lz.infinite_width(lz.TwoLayer(width=2), data, steps=50, out=tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["cells", "finished.json", "lock", "result.nc", "settings.json"]
    content = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (content["kind"], content["cells"]) == ("infinite_width", ["complexity", "predictions"])
    with xr.open_dataset(tmp_path / "run" / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load().drop_attrs(), result.drop_attrs())
        assert back.attrs["settings"] == result.attrs["settings"]
    settings = json.loads(result.attrs["settings"])
    assert (settings["dataset"], settings["n_train"], settings["storage"]) == ("digits", 120, "memory")
    assert settings["learning_rate"] == pytest.approx(1 / float(result.lambda_max))


def test_no_test_set_no_test_error(data):
    alone = lz.Dataset(data.x_train, data.y_train, data.x_test[:0], data.y_test[:0], name="alone")
    result = lz.infinite_width(lz.TwoLayer(width=2), alone, steps=20)
    assert "test_error" not in result
    assert len(lz.plot(result).axes) == 1


def test_the_figure_has_both_curves(data):
    figure = lz.plot(lz.infinite_width(lz.TwoLayer(width=2), data, steps=100))
    loss, error = figure.axes
    names = [line.get_label() for line in loss.lines]
    assert sum("true labels" in name for name in names) == sum("random labels" in name for name in names) == 1
    assert len(error.lines) == 1


def test_bad_input_starts_no_work(data, tmp_path, monkeypatch):
    def no_work(*args, **options):
        raise AssertionError("work was started")

    monkeypatch.setattr(study, "kernel_operator", no_work)
    network = lz.TwoLayer(width=2)
    for options, message in (
        ({"steps": 0}, "^steps must be a positive integer, got 0"),
        ({"snapshots": 0}, "^snapshots must be a positive integer, got 0"),
        ({"learning_rate": -1.0}, "^learning_rate must be positive and finite, got -1.0"),
        ({"tolerance": 0.0}, "^tolerance must be"),
        ({"dtype": "half"}, "^dtype must be"),
        ({"storage": "cloud"}, "^storage must be"),
        ({"out": tmp_path}, "^out must be a new folder"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            lz.infinite_width(network, data, **options)
    x = unit_rows(8, 3)
    with pytest.raises(ValueError, match=r"^y_train must contain only class labels"):
        lz.infinite_width(network, lz.Dataset(x, np.arange(8.0), x, np.arange(8.0), name="numbers"))
    own = lz.from_functions(lambda key, x, width: np.ones((width, x.shape[1])), lambda params, x: x @ params[0])
    with pytest.raises(ValueError, match=r"^network must have an analytic kernel"):
        lz.infinite_width(own, data)


def test_a_study_that_was_stopped_is_resumed(data, tmp_path, monkeypatch):
    def predict(**options):
        return lz.infinite_width(lz.TwoLayer(width=2), data, **{"steps": 60, "snapshots": 5} | options)

    expected, out, computed = predict(), tmp_path / "run", []
    kernel_descent = study.kernel_descent

    def dies(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "kernel_descent", dies)
    with pytest.raises(KeyboardInterrupt):
        predict(out=out)
    assert Store(out).status()._asdict() == {
        "finished": 1,
        "damaged": 0,
        "cells": 2,
        "running": False,
        "result": False,
        "holders": (),
    }
    monkeypatch.setattr(study, "kernel_descent", kernel_descent)
    solve = study.solve
    monkeypatch.setattr(
        study, "solve", lambda *args, **options: computed.append("complexity") or solve(*args, **options)
    )
    with pytest.raises(ValueError, match=r"^out must be a new folder"):
        predict(out=out)
    folder = lz.RunFolder(out, resume=True)
    result = predict(out=folder)
    assert computed == []
    xr.testing.assert_identical(result.drop_attrs(), expected.drop_attrs())
    assert result.attrs["complexity_error"] == expected.attrs["complexity_error"]
    # The result of a finished study is read from its folder.
    monkeypatch.setattr(study, "kernel_operator", dies)
    xr.testing.assert_identical(predict(out=folder).drop_attrs(), expected.drop_attrs())
    with pytest.raises(ValueError, match="steps = 60 instead of 61"):
        predict(out=folder, steps=61)


def test_a_study_in_shards_has_all_its_work_in_one_of_them(data, tmp_path):
    """Both cells need the kernel, so they form one group, which a single shard computes."""
    options = {"steps": 60, "snapshots": 5}
    folder = lz.RunFolder(tmp_path / "run", shard=(1, 2), max_seconds=1e-9)
    with pytest.raises(TimeoutError, match=r"^The time limit \(max_seconds"):
        lz.infinite_width(lz.TwoLayer(width=2), data, out=folder, **options)
    for k in (1, 2):
        folder = lz.RunFolder(tmp_path / "run", shard=(k, 2))
        assert lz.infinite_width(lz.TwoLayer(width=2), data, out=folder, **options) is None
        assert Store(tmp_path / "run").status().finished == 2
    merged = lz.merge_shards(tmp_path / "run")
    xr.testing.assert_identical(
        merged.drop_attrs(), lz.infinite_width(lz.TwoLayer(width=2), data, **options).drop_attrs()
    )


def test_a_rate_above_the_stability_limit_is_told_and_overflowed_predictions_have_no_error(data):
    network = lz.TwoLayer(width=2)
    limit = 2 / np.linalg.eigvalsh(lz.analytic_kernel(network)(data.x_train))[-1]
    with pytest.warns(UserWarning, match=rf"^learning_rate is .*, above 2 / lambda_max = {limit:.5g}"):
        result = lz.infinite_width(network, data, steps=100_000, learning_rate=2 * limit, snapshots=20)
    last = result.isel(step=-1)
    assert np.isnan(last.train_error).all()
    assert np.isnan(last.test_error)
    assert np.isfinite(result.train_error.isel(step=1)).all()


@pytest.mark.slow
def test_a_rate_above_the_stability_limit_on_many_examples_has_no_predictions():
    """Krylov methods, which are used for more than 1000 examples, cannot follow diverging descent."""
    data = lz.load_dataset("digits", classes=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), n_train=1001, n_test=5)
    network = lz.TwoLayer(width=2)
    with pytest.warns(UserWarning, match=r"^learning_rate is .*, above 2 / lambda_max = .* predictions are NaN"):
        result = lz.infinite_width(network, data, steps=10, learning_rate=1.0, snapshots=3)
    for name in ("train_loss", "train_error", "test_loss", "test_error"):
        assert np.isfinite(result[name].sel(step=0)).all()
        assert np.isnan(result[name].isel(step=slice(1, None))).all()
    assert np.isfinite(result.complexity).all()
    assert np.isnan(result.attrs["resolved_loss"])
