"""Kernels with a known spectrum."""

import numpy as np


def kernel_with(values, seed=0):
    """Return a symmetric matrix with the given eigenvalues, and its random eigenvectors."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    k = (q * values) @ q.T
    return (k + k.T) / 2, q
