"""Training of a single network, which is measured during training."""

from lazynet.studies.train._api import Run, train

__all__ = ["Run", "train"]
