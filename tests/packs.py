"""Set the size of packs by storing a measurement of the machine."""

import json

from lazynet.experiment import _packing as packing


def set_carried_bytes(patch, folder, count):
    """Set the number of bytes in a pack for this process and for those that a test starts.

    Args:
        patch: pytest's monkeypatch.
        folder: an empty folder for the stored measurement.
        count: number of bytes that a step of a pack may use.
    """
    (folder / "lazynet").mkdir(parents=True)
    (folder / "lazynet" / packing.FILE).write_text(json.dumps({packing.machine(): count}))
    patch.setenv("XDG_CACHE_HOME", str(folder))
