"""Sweeps over widths, seeds and other axes, with predictions, a verdict and a figure for each sweep."""

from lazynet.studies.sweep._api import sweep
from lazynet.studies.sweep._points import points
from lazynet.studies.sweep._population_bounds import population_bounds
from lazynet.studies.sweep._regime import PREDICTIONS, check_tolerance
from lazynet.studies.sweep._speed_gap import speed_gap
from lazynet.studies.sweep._study import SweepStudy
from lazynet.studies.sweep._verdict import Verdict, scaling_of, verdicts_json

__all__ = [
    "PREDICTIONS",
    "SweepStudy",
    "Verdict",
    "check_tolerance",
    "points",
    "population_bounds",
    "scaling_of",
    "speed_gap",
    "sweep",
    "verdicts_json",
]
