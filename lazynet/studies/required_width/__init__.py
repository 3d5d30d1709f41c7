"""The width from which on networks are lazy to a tolerance: predicted from narrower networks, then verified."""

import lazynet.studies.required_width._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.required_width._answer import width_record
from lazynet.studies.required_width._api import (
    KIND,
    MAX_WIDTH,
    PILOTS,
    TOLERANCE,
    make_search,
    required_width,
    run_search,
)

__all__ = ["KIND", "MAX_WIDTH", "PILOTS", "TOLERANCE", "make_search", "required_width", "run_search", "width_record"]
