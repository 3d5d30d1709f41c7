"""Kernels: analytic and empirical tangent kernels, their spectra, and the one door to neural-tangents."""

from lazynet.kernels.analytic import analytic_kernel
from lazynet.kernels.door import neural_tangents
from lazynet.kernels.empirical import average_ntk, empirical_ntk, full_ntk
from lazynet.kernels.spectrum import Inverse, Spectrum, complexity, largest_eigenvalue, same_rows, spectrum

__all__ = [
    "Inverse",
    "Spectrum",
    "analytic_kernel",
    "average_ntk",
    "complexity",
    "empirical_ntk",
    "full_ntk",
    "largest_eigenvalue",
    "neural_tangents",
    "same_rows",
    "spectrum",
]
