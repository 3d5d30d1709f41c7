"""Map of kernel change over width and output scale."""

from lazynet.studies.laziness_map._api import laziness_map

__all__ = ["laziness_map"]
