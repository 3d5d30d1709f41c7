"""Predictions for an infinitely wide network that is trained on a whole data set."""

import lazynet.studies.infinite_width._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.infinite_width._api import check_infinite_width, infinite_width
from lazynet.studies.infinite_width._study import InfiniteWidth

__all__ = ["InfiniteWidth", "check_infinite_width", "infinite_width"]
