"""Test `lz.verify` and `lz.plot` with results of every kind and with results of no known kind."""

from functools import cache

import jax
import numpy as np
import pytest
import xarray as xr
from marks import slow_unless
from unchecked import unchecked

import lazynet as lz
from lazynet import cli
from lazynet.execution import Store
from lazynet.measures import SCHEMA, catalog, reference

DATA = lz.load_dataset("digits", n_train=8, n_test=4)
NETWORK = lz.TwoLayer(width=8)


@cache
def trained():
    return lz.train(NETWORK, DATA, jax.random.key(0), steps=5)


def modes():
    return lz.mode_residuals(trained(), lz.analytic_kernel(NETWORK)(DATA.x_train), DATA.y_train)


RESULTS = {
    "sweep": lambda: lz.sweep(NETWORK, DATA, [8], 2, 5, progress=False),
    "forecast": lambda: lz.forecast(NETWORK, DATA, [8], 2, 5, progress=False),
    "infinite_width": lambda: lz.infinite_width(NETWORK, DATA, steps=50, progress=False),
    "laziness_map": lambda: lz.laziness_map(NETWORK, DATA, [8], [0.1, 10.0], 2, steps=50, change=1e-9, progress=False),
    "line_ensemble": lambda: lz.line_ensemble(
        lz.TwoLayer(width=8, symmetric=False), DATA, DATA.x_train[:2], [8], 3, 5, progress=False
    ),
    "mode_residuals": modes,
    "required_width": lambda: lz.required_width(
        NETWORK, DATA, 0.3, seeds=2, steps=5, pilots=[4, 8, 16], max_width=32, progress=False
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", slow_unless(lambda kind: kind in ("sweep", "infinite_width", "mode_residuals"), RESULTS)
)
@pytest.mark.filterwarnings("ignore:There is no boundary")
def test_every_result_states_its_kind_and_is_labeled_drawn_and_judged_by_it(kind, tmp_path):
    result = RESULTS[kind]()
    assert (result.attrs["kind"], result.attrs["schema"]) == (kind, SCHEMA)
    for name in result.variables:
        quantity = catalog(kind)[name]
        assert result[name].attrs["long_name"] == quantity.meaning
        assert result[name].attrs["references"] == (quantity.source or "defined by its long_name")
        assert result[name].attrs.get("units", "") == quantity.unit
        assert set(result[name].dims) <= {*quantity.dims, name}
        assert f"`{name}`" in reference(kind)
    result.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load().drop_attrs(deep=False), result.drop_attrs(deep=False))
        lz.plot(back).draw_without_rendering()
    if kind in ("sweep", "forecast", "required_width"):
        assert bool(lz.verify(result).levels) == (kind != "required_width")
        return
    with pytest.raises(
        ValueError, match=r"^result must be of a kind that has a verdict \(sweep, forecast, required_width\)"
    ):
        lz.verify(result)
    verdict = lz.Verdict(rows=(), inequalities=(), levels={}, band=0.1, widths=(8,), seeds=1)
    with pytest.raises(ValueError, match=r"^verdict must be None"):
        lz.plot(result, verdict)


@pytest.mark.parametrize("attrs", [{}, {"kind": "recipe"}])
@pytest.mark.parametrize("function", [lz.verify, lz.plot])
def test_results_of_no_known_kind_are_refused(function, attrs):
    result = xr.Dataset({"train_loss": ("step", np.ones(3))}, attrs=attrs)
    with pytest.raises(
        ValueError, match="must be one of sweep, forecast, infinite_width, laziness_map, line_ensemble, mode_"
    ):
        function(result)


@pytest.mark.parametrize("function", [lz.verify, lz.plot])
def test_other_objects_than_results_are_refused(function):
    with pytest.raises(ValueError, match=r"^result must be the result of a study \(an xarray.Dataset\), got int\.$"):
        function(5)


def test_a_verdict_in_words_is_refused():
    result = xr.Dataset(attrs={"kind": "sweep", "schema": SCHEMA})
    with unchecked(), pytest.raises(ValueError, match=r"^verdict must be a lazynet.Verdict or None, got str\.$"):
        lz.plot(result, "holds")


def test_the_snapshots_of_a_run_are_labeled_too():
    snapshots = trained().snapshots
    assert (snapshots.attrs["kind"], snapshots.attrs["schema"]) == ("train", SCHEMA)
    quantities = {**catalog(), **catalog("train")}
    for name in snapshots.variables:
        assert snapshots[name].attrs["long_name"] == quantities[name].meaning
    assert snapshots.test_prediction.attrs["units"] == "targets"
    with pytest.raises(ValueError, match=r"^result.attrs\['kind'\] must be one of .*, got 'train'"):
        lz.plot(snapshots)


@pytest.mark.parametrize("kind", ["arrays", "reproduction"])
def test_studies_that_cannot_be_merged_are_refused(kind, tmp_path, capsys):
    Store(tmp_path, kind).begin({}, ["000000"] if kind == "arrays" else [])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        ValueError, match=rf"^out must contain a study whose .* \(sweep, .*, got a study of kind '{kind}'\.$"
    ):
        lz.merge_shards(tmp_path)
    assert cli.main(["merge", str(tmp_path)]) == cli.main(["merge", str(tmp_path), "--check"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    for flags in ([], ["--check"]):
        assert cli.main(["merge", str(tmp_path / "new"), *flags]) == 2
        assert "out must be a folder that contains a study" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("schema", [SCHEMA + 1, np.int64(99), 0, "1", True])
def test_results_of_a_newer_schema_are_refused(schema):
    result = xr.Dataset({"train_loss": ("step", np.ones(3))}, attrs={"kind": "sweep", "schema": schema})
    message = r"^result.attrs\['schema'\] must be an integer from 1 to 1, got "
    for function in (lz.verify, lz.plot):
        with pytest.raises(ValueError, match=message):
            function(result)


def test_a_result_of_a_newer_schema_is_not_replaced(tmp_path):
    Store(tmp_path, "sweep").begin({}, ["000000"])
    file = tmp_path / "result.nc"
    xr.Dataset(attrs={"kind": "sweep", "schema": SCHEMA + 1}).to_netcdf(file, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"^result.attrs\['schema'\] must be"):
        lz.merge_shards(tmp_path)
    for content in (b"damaged", b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is missing 1 of 1 cells"):
            lz.merge_shards(tmp_path)
