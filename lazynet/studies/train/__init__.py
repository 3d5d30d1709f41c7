"""One trained network, measured on the way."""

from lazynet.studies.train._api import Run, train

__all__ = ["Run", "train"]
