"""Test that a study that is killed with SIGKILL and resumed equals an uninterrupted study, bit for bit.

scripts/kill_and_resume.py kills larger studies several times, including laziness maps and infinite-width predictions.
"""

import signal
import subprocess
import sys
import time

import pytest
import xarray as xr

import lazynet as lz
from lazynet.execution import Store

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


def run(out):
    network, ends = lz.TwoLayer(8, symmetric=False), DATA.x_train[:2]
    return lz.line_ensemble(network, DATA, ends, [8, 16], 4, 100, places=[0.0, 1.0], out=out, progress=False)


@pytest.mark.whole
def test_a_killed_study_loses_no_finished_cell(tmp_path):
    expected, out = run(None), tmp_path / "run"

    def stored():
        return {path: path.stat().st_mtime_ns for path in out.rglob("cells/[!.]*.npz")}

    command = [sys.executable, __file__, str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not stored():
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    cells = stored()
    assert cells
    assert not (out / "result.nc").exists()
    run(lz.RunFolder(out, resume=True))
    assert cells.items() <= stored().items()
    result = xr.load_dataset(out / "result.nc", engine="h5netcdf")
    xr.testing.assert_identical(result.drop_attrs(), expected.drop_attrs())
    assert Store(out).status().finished == len(Store(out).keys) > len(cells)


if __name__ == "__main__":
    run(lz.RunFolder(sys.argv[1], resume=True))
