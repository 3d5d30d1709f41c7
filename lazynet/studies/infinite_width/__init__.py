"""Prediction of training at infinite width on a whole data set."""

from lazynet.studies.infinite_width._api import predict

__all__ = ["predict"]
