"""Fixtures of the tests of run folders."""

import pytest
from packs import set_carried_bytes
from stored import SMALL, sweep

from lazynet.studies.sweep import _study as study


@pytest.fixture
def small_packs(monkeypatch, tmp_path_factory):
    """One cell of four members at width 8, two of two at width 16."""
    set_carried_bytes(monkeypatch, tmp_path_factory.mktemp("cache"), SMALL)


@pytest.fixture(scope="session")
def uninterrupted_run(tmp_path_factory):
    """The folder of the sweep without a stop, which no test may change, and its result."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        set_carried_bytes(patch, tmp_path_factory.mktemp("cache"), SMALL)
        return folder, sweep(folder)


@pytest.fixture(scope="session")
def uninterrupted(uninterrupted_run):
    return uninterrupted_run[1]


@pytest.fixture
def computed(monkeypatch):
    """Width and number of members of each cell that is computed."""
    cells, compute = [], study.compute_cell

    def counted(spec, pack, *rest):
        cells.append((pack.width, len(pack.seeds)))
        return compute(spec, pack, *rest)

    monkeypatch.setattr(study, "compute_cell", counted)
    return cells
