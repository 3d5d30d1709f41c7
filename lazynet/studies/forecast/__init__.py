"""Forecasts of training from initial weights alone."""

import lazynet.studies.forecast._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.forecast._api import forecast
from lazynet.studies.forecast._study import KIND

__all__ = ["KIND", "forecast"]
