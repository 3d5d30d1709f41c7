"""The size of packs, as a stored measurement of the machine sets it."""

import json

from lazynet.experiment import _packing as packing


def set_carried_bytes(patch, folder, count):
    """Let the machine carry packs of so many bytes, here and in processes that a test starts.

    Args:
        patch: pytest's monkeypatch.
        folder: an empty folder for the measurement.
        count: bytes of a step of a pack.
    """
    (folder / "lazynet").mkdir(parents=True)
    (folder / "lazynet" / packing.FILE).write_text(json.dumps({packing.machine(): count}))
    patch.setenv("XDG_CACHE_HOME", str(folder))
