"""The folder of a run, and results on disk."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from unchecked import unchecked

import lazynet as lz
from lazynet.execution import write_figures

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


@pytest.fixture(scope="module")
def result():
    return lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], [0, 3], 5, axes={"label_noise": [0.25]})


@pytest.mark.slow
def test_netcdf_gives_the_result_back(result, tmp_path):
    result.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
        for name in result.attrs:
            assert back.attrs[name] == result.attrs[name]
        assert str(lz.verify(back)) == str(lz.verify(result))


def test_a_run_folder(tmp_path):
    out = tmp_path / "deep" / "run"
    result = lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], [0, 3], 5, axes={"label_noise": [0.25]}, out=out)
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.suffix != ".npz")
    assert files == ["cells", "finished.json", "lock", "result.nc", "settings.json", "verdict.json"]
    assert [path.name for path in out.parent.iterdir()] == ["run"]
    assert (out / "result.nc").stat().st_mode & 0o777 == 0o644
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
    assert json.loads((out / "verdict.json").read_text()) == json.loads(lz.verify(result).to_json())
    content = json.loads((out / "settings.json").read_text())
    assert set(content) == {"kind", "record", "cells", "request", "versions", "environment", "hash"}
    assert content["kind"] == "sweep"
    assert content["versions"]["jax_version"] == result.attrs["jax_version"]
    record, settings = content["record"], content["record"]["settings"]
    assert json.loads(result.attrs["settings"]) == settings
    expected = {"dataset": "digits", "n_train": 16, "n_test": 6, "widths": [8, 16], "seeds": [0, 3], "steps": 5}
    assert {name: settings[name] for name in expected} == expected
    assert settings["classes"] == [0, 1]
    assert settings["label_noise"] == 0.25
    assert set(settings["learning_rate"]) == {"8", "16"}
    key = jax.random.wrap_key_data(jnp.asarray(record["keys"]["16"][1], "uint32"))
    assert key == jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 16), 3)
    # Every member is in a cell, and the file name of every cell contains the checksum of its bytes.
    assert content["cells"] == ["000000", "000001"]
    assert record["packs"] == [[0, 8, [0, 3]], [0, 16, [0, 3]]]
    for number, file in enumerate(sorted((out / "cells").iterdir())):
        assert file.name == f"{number:06d}-{hashlib.sha256(file.read_bytes()).hexdigest()}.npz"


@pytest.mark.slow
def test_numpy_numbers_are_recorded_as_numbers():
    numbers = {"steps": np.int64(2), "batch_size": np.int64(4), "learning_rate": np.float64(0.01)}
    network, measure = lz.TwoLayer(width=8, output_scale=np.sqrt), lz.Measure(predictions=False, kernel_drift=False)
    with unchecked():
        result = lz.sweep(network, DATA, [np.int64(8)], np.array([0]), measure=measure, **numbers)
    settings = json.loads(result.attrs["settings"])
    assert settings["steps"] == 2
    assert settings["batch_size"] == 4
    assert settings["widths"] == [8]
    assert settings["learning_rate"] == {"8": 0.01}
    assert settings["output_scale"] == "sqrt"


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    class Broken:
        def savefig(self, stream, **options):
            stream.write(b"half a figure")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_figures(tmp_path, {"sweep": Broken()})
    assert list((tmp_path / "figures").iterdir()) == []
