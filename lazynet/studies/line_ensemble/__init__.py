"""Ensembles of networks, evaluated on the line through two inputs."""

import lazynet.studies.line_ensemble._quantities  # noqa: F401 (adds the quantities to the catalog)
from lazynet.studies.line_ensemble._api import line_ensemble

__all__ = ["line_ensemble"]
