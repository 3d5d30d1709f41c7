"""Prediction of training at infinite width on a whole data set."""

import lazynet.studies.infinite_width._quantities  # noqa: F401 (adds the quantities to the catalogue)
from lazynet.studies.infinite_width._api import predict

__all__ = ["predict"]
