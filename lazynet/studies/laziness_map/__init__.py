"""Map of the kernel change as a function of width and output scale."""

import lazynet.studies.laziness_map._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.laziness_map._api import GRID, KIND, laziness_map

__all__ = ["GRID", "KIND", "laziness_map"]
