"""Ensembles of networks on a line between two inputs."""

from lazynet.studies.line_ensemble._api import line_ensemble

__all__ = ["line_ensemble"]
