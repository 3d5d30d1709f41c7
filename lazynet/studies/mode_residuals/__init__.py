"""The residual of a trained network along the eigenvectors of a kernel."""

import lazynet.studies.mode_residuals._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.mode_residuals._api import mode_residuals

__all__ = ["mode_residuals"]
