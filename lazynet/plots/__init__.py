"""Plots: figures that state a finding."""

from lazynet.plots.overview import plot

__all__ = ["plot"]
