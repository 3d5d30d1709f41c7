"""Training at infinite width on a whole data set."""

from lazynet.studies.infinite_width._api import infinite_width

__all__ = ["infinite_width"]
