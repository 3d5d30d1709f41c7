"""What a sweep says of itself while it runs."""

import io
import re
import sys

import pytest

import lazynet as lz
from lazynet.execution import _progress as progress

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def sweep(**more):
    lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], 4, 300, **more)


def test_cells_rate_and_the_best_and_worst_network_are_shown(monkeypatch, tmp_path):
    from lazynet.experiment import _packing as packing
    from lazynet.training import _program as program

    monkeypatch.setattr(packing, "carried_bytes", lambda: 2 * 4 * 16 * 80)
    # Many short calls, so that a rate is known.
    monkeypatch.setattr(program, "CALL_SECONDS", 1e-4)
    monkeypatch.setattr(progress, "product_rate", lambda dtype: 2e12)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    said = []
    from rich.progress import Progress

    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda bar, task, **more: said.append(more) or update(bar, task, **more))
    sweep(out=tmp_path / "run")
    descriptions = [one["description"] for one in said]
    assert terminal.getvalue()
    rates = [re.search(r"width 16, ([\d.e+-]+) GFLOP/s \((\d+)% of a matrix product\)", one) for one in descriptions]
    assert any(rates)
    # 2 TFLOP/s are all of it.
    assert all(round(float(rate[1]) / 20) == pytest.approx(int(rate[2]), abs=1) for rate in rates if rate)
    last = re.fullmatch(
        r"3 of 3 cells; width 16; loss (.+) \(width (\d+), seed (\d)\) to (.+) \(width (\d+), seed (\d)\)",
        descriptions[-1],
    )
    result = lz.merge(tmp_path / "run")
    final = result.train_loss.isel(step=-1)
    for i, extreme in ((1, final.min()), (4, final.max())):
        assert last[i] == f"{float(extreme):.2g}"
        assert float(final.sel(width=int(last[i + 1]), seed=int(last[i + 2]))) == float(extreme)
    # All work is told of once, whether it is done or was stored.
    total = sum(one["advance"] for one in said)
    assert total == (8 + 16) * 16 * 300 * 4
    said.clear()
    sweep(out=tmp_path / "run", resume=True)
    assert sum(one["advance"] for one in said) == total
    # Steps that are not taken are no work of theirs.
    said.clear()
    sweep(stop=lz.Stop(loss=1e9))
    assert sum(one["advance"] for one in said) == total
    assert not any("GFLOP" in one["description"] for one in said)


def test_nothing_is_said_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setattr(progress, "product_rate", lambda dtype: pytest.fail("measured for nobody"))
    sweep()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    sweep(progress=False)
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_the_rate_of_a_matrix_product():
    assert 1e8 < progress.product_rate("float64") < progress.product_rate("float32") * 1.5 < 1e16
