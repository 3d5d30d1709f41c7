"""What tests of stored sweeps share."""

import pytest
from stored import sweep

from lazynet.execution import _runner as engine
from lazynet.experiment import _packing as packing


@pytest.fixture
def small_packs(monkeypatch):
    """One cell of four members at width 8, two of two at width 16."""
    monkeypatch.setattr(packing, "carried_bytes", lambda: 2 * 4 * 16 * 80)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "carried_bytes", lambda: 2 * 4 * 16 * 80)
        return sweep(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def computed(monkeypatch):
    """The members of each cell that is computed."""
    seen, compute = [], engine.compute_cell

    def counted(network, data, keys, *rest):
        seen.append((network.width, len(keys)))
        return compute(network, data, keys, *rest)

    monkeypatch.setattr(engine, "compute_cell", counted)
    return seen
