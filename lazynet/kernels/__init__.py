"""Analytic and empirical tangent kernels, kernel operators and their spectra, and access to neural-tangents."""

from lazynet.kernels._analytic import limit_key
from lazynet.kernels._average import average_ntk
from lazynet.kernels._dense import dense_operator
from lazynet.kernels._density import SpectralDensity, spectral_density
from lazynet.kernels._door import neural_tangents
from lazynet.kernels._dual import BLOCK
from lazynet.kernels._empirical import empirical_ntk
from lazynet.kernels._families import analytic_kernel
from lazynet.kernels._krylov import (
    COLUMNS,
    EPS,
    MIN_RANDOM_COLUMNS,
    Error,
    Lanczos,
    basis_limit,
    check_tolerance,
    largest_eigenvalue,
    with_random_columns,
)
from lazynet.kernels._monte_carlo import MonteCarloKernel, layer_kernels, monte_carlo_kernel, sum_layer_kernels
from lazynet.kernels._operators import CrossOperator, KernelOperator, error_norm
from lazynet.kernels._solve import FACTORED, RANK, complexity, complexity_and_smallest, solve
from lazynet.kernels._spectrum import (
    Inverse,
    LabelProjections,
    Spectrum,
    check_kernel,
    check_square,
    check_targets,
    label_projections,
    same_rows,
    spectrum,
)
from lazynet.kernels._start import start_covariance
from lazynet.kernels._storage import STORAGES, WORKING, check_storage, choose_storage, kernel_job, kernel_operator
from lazynet.kernels._threads import in_threads, narrow_products

__all__ = [
    "BLOCK",
    "COLUMNS",
    "EPS",
    "FACTORED",
    "MIN_RANDOM_COLUMNS",
    "RANK",
    "STORAGES",
    "WORKING",
    "CrossOperator",
    "Error",
    "Inverse",
    "KernelOperator",
    "LabelProjections",
    "Lanczos",
    "MonteCarloKernel",
    "SpectralDensity",
    "Spectrum",
    "analytic_kernel",
    "average_ntk",
    "basis_limit",
    "check_kernel",
    "check_square",
    "check_storage",
    "check_targets",
    "check_tolerance",
    "choose_storage",
    "complexity",
    "complexity_and_smallest",
    "dense_operator",
    "empirical_ntk",
    "error_norm",
    "in_threads",
    "kernel_job",
    "kernel_operator",
    "label_projections",
    "largest_eigenvalue",
    "layer_kernels",
    "limit_key",
    "monte_carlo_kernel",
    "narrow_products",
    "neural_tangents",
    "same_rows",
    "solve",
    "spectral_density",
    "spectrum",
    "start_covariance",
    "sum_layer_kernels",
    "with_random_columns",
]
