"""Fixtures for the tests of run folders."""

import pytest
from packs import set_carried_bytes
from stored import SMALL, sweep

from lazynet.studies.sweep import _study as study


@pytest.fixture
def small_packs(monkeypatch, tmp_path_factory):
    """Set a size of packs that gives one cell of four members at width 8 and two cells of two members at width 16."""
    set_carried_bytes(monkeypatch, tmp_path_factory.mktemp("cache"), SMALL)


@pytest.fixture(scope="session")
def uninterrupted_run(tmp_path_factory):
    """Return the folder of an uninterrupted sweep and its result; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        set_carried_bytes(patch, tmp_path_factory.mktemp("cache"), SMALL)
        return folder, sweep(folder)


@pytest.fixture(scope="session")
def uninterrupted(uninterrupted_run):
    return uninterrupted_run[1]


@pytest.fixture
def computed(monkeypatch):
    """Return a list that receives the width and the number of members of each computed cell."""
    cells, compute = [], study.compute_cell

    def counted(spec, pack, *rest):
        cells.append((pack.width, len(pack.seeds)))
        return compute(spec, pack, *rest)

    monkeypatch.setattr(study, "compute_cell", counted)
    return cells
