"""Kernels: analytic and empirical tangent kernels, their spectra, and the one door to neural-tangents."""

from lazynet.kernels.analytic import analytic_kernel
from lazynet.kernels.door import neural_tangents
from lazynet.kernels.empirical import average_ntk, empirical_ntk
from lazynet.kernels.krylov import Error, largest_eigenvalue_of
from lazynet.kernels.operators import CrossOperator, KernelOperator, dense_operator, kernel_operator
from lazynet.kernels.solve import complexity, solve
from lazynet.kernels.spectrum import Inverse, Spectrum, largest_eigenvalue, same_rows, spectrum

__all__ = [
    "CrossOperator",
    "Error",
    "Inverse",
    "KernelOperator",
    "Spectrum",
    "analytic_kernel",
    "average_ntk",
    "complexity",
    "dense_operator",
    "empirical_ntk",
    "kernel_operator",
    "largest_eigenvalue",
    "largest_eigenvalue_of",
    "neural_tangents",
    "same_rows",
    "solve",
    "spectrum",
]
