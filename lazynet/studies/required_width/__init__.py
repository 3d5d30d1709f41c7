"""The smallest width at or above which networks are lazy to within a tolerance: predicted, then verified."""

import lazynet.studies.required_width._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.required_width._answer import width_record
from lazynet.studies.required_width._api import required_width
from lazynet.studies.required_width._run import KIND, run_search
from lazynet.studies.required_width._settings import MAX_WIDTH, TOLERANCE, make_search

__all__ = ["KIND", "MAX_WIDTH", "TOLERANCE", "make_search", "required_width", "run_search", "width_record"]
