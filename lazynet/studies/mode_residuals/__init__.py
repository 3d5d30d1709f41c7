"""Residual of a trained network along the eigenvectors of a kernel."""

from lazynet.studies.mode_residuals._api import mode_residuals

__all__ = ["mode_residuals"]
