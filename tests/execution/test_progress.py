"""The progress bar of a sweep."""

import io
import re
import sys

import pytest
from packs import set_carried_bytes
from stored import SMALL

import lazynet as lz
from lazynet.execution import _progress as progress

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def sweep(widths=(8, 16), **options):
    lz.sweep(lz.TwoLayer(width=8), DATA, widths, 4, 60, **options)


@pytest.mark.slow
def test_cells_rate_and_the_best_and_worst_network_are_shown(monkeypatch, tmp_path):
    from lazynet.training import _program as program

    set_carried_bytes(monkeypatch, tmp_path / "cache", SMALL)
    # Make many short calls to the device, so that a rate can be measured.
    monkeypatch.setattr(program, "CALL_SECONDS", 1e-4)
    monkeypatch.setattr(progress, "product_rate", lambda dtype: 2e12)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    updates = []
    from rich.progress import Progress

    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda bar, task, **more: updates.append(more) or update(bar, task, **more))
    sweep(out=tmp_path / "run")
    descriptions = [each["description"] for each in updates]
    assert terminal.getvalue()
    rates = [re.search(r"width 16, ([\d.e+-]+) GFLOP/s \((\d+)% of a matrix product\)", text) for text in descriptions]
    assert any(rates)
    # The matrix product runs at 2 TFLOP/s.
    assert all(round(float(rate[1]) / 20) == pytest.approx(int(rate[2]), abs=1) for rate in rates if rate)
    last = re.fullmatch(
        r"3 of 3 cells; width 16; loss (.+) \(width (\d+), seed (\d)\) to (.+) \(width (\d+), seed (\d)\)",
        descriptions[-1],
    )
    result = lz.merge_shards(tmp_path / "run")
    final = result.train_loss.isel(step=-1)
    for i, extreme in ((1, final.min()), (4, final.max())):
        assert last[i] == f"{float(extreme):.2g}"
        assert float(final.sel(width=int(last[i + 1]), seed=int(last[i + 2]))) == float(extreme)
    # All work is counted exactly once, whether it is computed or read from the folder.
    total = sum(each["advance"] for each in updates)
    assert total == (8 + 16) * 16 * 60 * 4
    updates.clear()
    sweep(out=lz.RunFolder(tmp_path / "run", resume=True))
    assert sum(each["advance"] for each in updates) == total
    # Early stopping skips steps, and their work is counted too.
    updates.clear()
    sweep([8], stop=lz.Stop(loss=1e9), measure=lz.Measure(predictions=False, kernel_drift=False))
    assert sum(each["advance"] for each in updates) == 8 * 16 * 60 * 4
    assert not any("GFLOP" in each["description"] for each in updates)


@pytest.mark.usefixtures("small_packs")
def test_nothing_is_shown_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "product_rate", lambda dtype: pytest.fail("measured although nothing is shown"))
    sweep()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    sweep(progress=False)
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_rate_of_a_matrix_product():
    assert 1e8 < progress.product_rate("float64", 1024) < progress.product_rate("float32", 1024) * 1.5 < 1e16
