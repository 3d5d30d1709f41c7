"""Test the answer on the demonstration against plain NumPy, and with gaps that are broken on purpose."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import lazynet as lz

WIDTHS = [64, 128, 256, 512, 1024, 2048, 4096]
# Suprema that were measured once. They depend on the last bits of the machine's arithmetic by less than 0.0005.
MEASURED = {
    "linearization": [0.0720, 0.0635, 0.0512, 0.0384, 0.0248, 0.0168, 0.0103],
    "infinite_width": [0.1135, 0.0614, 0.0472, 0.0396, 0.0277, 0.0230, 0.0169],
}
GAPS = {"linearization": "linearization_gap", "infinite_width": "kernel_gap"}

pytestmark = pytest.mark.whole


def test_the_answer_of_the_demonstration(tmp_path):
    # The folder of a demonstration that has just run, if there is one.
    out = Path(os.environ.get("LAZYNET_DEMONSTRATION", tmp_path / "run"))
    if not (out / "result.nc").exists():
        data = lz.load_dataset("digits", classes=(0, 1), n_train=256, n_test=100)
        lz.sweep(lz.TwoLayer(width=2), data, WIDTHS, seeds=8, steps=1000, out=out, progress=False)
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as found:
        result = found.load()
    check_suprema(result)
    check_answer_at_five_percent(result)
    for factor, status in ((1.2, "undecided"), (1.5, "not lazy")):
        assert rows_of(multiplied(result, 512, factor), "linearization")[512].status == status
    check_broken_gaps(result)


def rows_of(result, prediction, **options):
    return {row.width: row for row in lz.verify(result, **options).regimes if row.prediction == prediction}


def multiplied(result, width, factor):
    broken = result.copy(deep=True)
    for gap in GAPS.values():
        for part in ("train", "test"):
            broken[f"{gap}_{part}"].loc[{"width": width}] *= factor
    return broken


def check_suprema(result):
    """Compare the suprema with plain NumPy on the stored result, and with those that were measured."""
    for prediction, gap in GAPS.items():
        train = result[f"{gap}_train"].transpose("width", "seed", "step").values / float(result.target_rms)
        test = result[f"{gap}_test"].transpose("width", "seed", "step").values / float(result.test_target_rms)
        suprema = np.maximum(train, test).max(axis=2).mean(axis=1)
        found = rows_of(result, prediction)
        np.testing.assert_allclose([found[width].supremum for width in WIDTHS], suprema, rtol=1e-12)
        np.testing.assert_allclose(suprema, MEASURED[prediction], atol=0.0005)


def check_answer_at_five_percent(result):
    """Check the regimes, the steps and the answer."""
    for prediction, ends in (("linearization", (0.0482, 0.0543)), ("infinite_width", (0.0406, 0.0538))):
        found = rows_of(result, prediction)
        assert [found[width].status for width in WIDTHS] == ["not lazy"] * 2 + ["undecided"] + ["lazy"] * 4
        np.testing.assert_allclose((found[256].low, found[256].high), ends, atol=0.0005)
    found = rows_of(result, "linearization")
    assert [found[128].until, found[128].until_low, found[128].until_high] == [234, 162, 483]
    assert [found[256].until, found[256].until_low, found[256].until_high] == [695, 695, 1000]
    start = "Over 1000 steps the network follows its linearization to 5% from width 512 on (width 256: undecided, 128: "
    assert lz.verify(result).answer.startswith(f"{start}until step 234); at width 4096 to 1.0% [")


def check_broken_gaps(result):
    """Check that larger gaps, a single seed and a diverged network change the answer."""
    assert "to 5% from width 4096 on" in lz.verify(multiplied(result, 2048, 4)).answer
    assert {row.status for row in lz.verify(result.isel(seed=[0])).regimes} == {"undecided"}
    diverged = result.copy(deep=True)
    for gap in GAPS.values():
        for part in ("train", "test"):
            diverged[f"{gap}_{part}"].loc[{"width": 4096, "seed": 3, "step": 1000}] = np.nan
    for pieces in (diverged, diverged.sel(seed=[3])):
        found = lz.verify(pieces, 0.9)
        assert {row.status for row in found.regimes if row.width == 4096} == {"not lazy"}
        assert "does not follow its linearization to 90% at width 4096" in found.answer
        assert "the largest gap at width 4096 is unbounded" in found.answer
