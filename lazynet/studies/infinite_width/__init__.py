"""Training at infinite width on a whole data set."""

import lazynet.studies.infinite_width._quantities  # noqa: F401 (adds the quantities to the catalogue)
from lazynet.studies.infinite_width._api import infinite_width

__all__ = ["infinite_width"]
