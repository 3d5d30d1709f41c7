"""Training of a single network, which is measured along the way."""

from lazynet.studies.train._api import Run, train

__all__ = ["Run", "train"]
