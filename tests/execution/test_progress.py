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
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    updates = []
    from rich.progress import Progress

    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda bar, task, **more: updates.append(more) or update(bar, task, **more))
    sweep(out=tmp_path / "run")
    descriptions = [each["description"] for each in updates]
    assert terminal.getvalue()
    assert any(re.search(r"width 16, [\d.e+-]+ GFLOP/s", text) for text in descriptions)
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


def test_a_narrow_terminal_shows_the_bar_the_percentage_and_the_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.Progress(100, 12) as bar:
        bar.advance(30, "width 512", 1.23e9)
        bar.finished(0, "width 512", {"width 512, seed 3": 0.07912, "width 512, seed 5": 0.081})
        bar.advance(10, "width 1024", 1.23e9)
        bar._display._bar.refresh()
    shown = [re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", terminal.getvalue())]
    last = [line for line in shown if "%" in line][-1]
    assert re.search(r"40% [-\d:]+ 1 of 12 cells; width 1024, 1.23 GFLOP/s; .*…", last)
    assert max(map(len, shown)) <= 80


def test_a_log_has_a_line_every_30_seconds_with_the_time_left(monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress(100, 4) as bar:
        # Half of the work was stored by an earlier run.
        bar.finished(50, "width 8", {})
        for _ in range(40):
            clock[0] += 1
            bar.advance(1, "width 16", None)
    assert capsys.readouterr().err.splitlines() == ["lazynet: 80%, about 0:00:20 left; 1 of 4 cells; width 16"]


def test_a_notebook_overwrites_its_line(monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress.Progress(100, 4) as bar:
        for _ in range(3):
            clock[0] += 1
            bar.advance(20, "width 16", None)
    shown = capsys.readouterr().err
    assert "\n" not in shown
    assert [part.strip() for part in shown.split("\r") if part.strip()] == [
        "lazynet: 20%; 0 of 4 cells; width 16",
        "lazynet: 40%, about 0:00:03 left; 0 of 4 cells; width 16",
        "lazynet: 60%, about 0:00:02 left; 0 of 4 cells; width 16",
    ]


@pytest.mark.usefixtures("small_packs")
def test_short_studies_write_nothing_to_a_log(capsys, monkeypatch):
    sweep()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    sweep(progress=False)
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_rate_of_a_matrix_product():
    assert 1e8 < progress.product_rate("float64", 1024) < progress.product_rate("float32", 1024) * 1.5 < 1e16
