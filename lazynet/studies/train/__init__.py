"""Training of a single network, with measurements along the way."""

import lazynet.studies.train._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.train._api import Run, train

__all__ = ["Run", "train"]
