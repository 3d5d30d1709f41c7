"""A run folder knows itself: its cells belong to its study, and it stays where it is while the study runs."""

import pytest
from stored import assert_same, resumed, sweep

import lazynet as lz
from lazynet.execution import Store

pytestmark = pytest.mark.usefixtures("small_packs")

ALONE = lz.Measure(predictions=False, kernel_drift=False)


def test_cells_are_the_same_files_whenever_they_are_computed(tmp_path):
    for name in ("once", "again"):
        sweep(tmp_path / name, measure=ALONE)
    once, again = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "cells").iterdir()} for name in ("once", "again")
    )
    assert len(once) == 3
    assert once == again


@pytest.mark.slow
def test_a_cell_of_another_sweep_of_the_same_shapes_is_found(uninterrupted, computed, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    sweep(out)
    sweep(other, learning_rate=0.001)
    (own,) = (out / "cells").glob("000001-*")
    own.unlink()
    (another,) = (other / "cells").glob("000001-*")
    (out / "cells" / another.name).write_bytes(another.read_bytes())
    assert Store(out).status()[:3] == (2, 1, 3)
    computed.clear()
    with pytest.warns(UserWarning, match="belongs to another study"):
        assert_same(resumed(out), uninterrupted)
    assert computed == [(16, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_renamed_while_its_sweep_runs_is_left_alone(replaced, uninterrupted, monkeypatch, tmp_path):
    out, moved, put = tmp_path / "run", tmp_path / "moved", Store.put

    def rename(self, key, arrays):
        if int(key) == 1:
            out.rename(moved)
            if replaced:
                monkeypatch.setattr(Store, "put", put)
                sweep(out, learning_rate=0.001)
        put(self, key, arrays)

    monkeypatch.setattr(Store, "put", rename)
    with pytest.raises(ValueError, match=r"^out must stay where it is while a study runs, but .* was renamed"):
        sweep(out)
    monkeypatch.setattr(Store, "put", put)
    assert Store(moved).status()[:3] == (1, 0, 3)
    assert_same(resumed(moved), uninterrupted)
    if replaced:
        assert Store(out).status()[:3] == (3, 0, 3)
    else:
        assert not out.exists()
