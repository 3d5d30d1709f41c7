"""Distribution of the eigenvalues of a kernel, estimated from matrix-vector products."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.kernels._dense import dense_operator
from lazynet.kernels._krylov import COLUMNS, Lanczos, basis_limit
from lazynet.kernels._operators import KernelOperator
from lazynet.kernels._threads import narrow_products
from lazynet.typing import SquareKernel


class SpectralDensity(NamedTuple):
    """Discrete approximation to the density of eigenvalues, as NumPy float64 arrays.

    Attributes:
        values: Points in ascending order, shape (m,).
        weights: Weights of the points for each of p random vectors, shape (m, p). Each column sums to 1.
    """

    values: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, "m p"]

    def average(self, f: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """Estimate the average of f over all eigenvalues, tr f(K) / n.

        Args:
            f: Vectorized function of the eigenvalues.

        Returns:
            The mean of the estimates from the random vectors, and the standard error of this mean.
        """
        estimates = f(self.values) @ self.weights
        return float(estimates.mean()), float(estimates.std(ddof=1) / np.sqrt(len(estimates)))


def spectral_density(k: SquareKernel | KernelOperator, *, products: int = 20) -> SpectralDensity:
    """Estimate the density of a kernel's eigenvalues by stochastic Lanczos quadrature.

    For averages of polynomials of degree up to 2 * products - 1, the only error is the sampling error of the random
    vectors, which `SpectralDensity.average` estimates. The estimated density consists of weighted points, and each
    isolated eigenvalue appears as a separate point.

    Args:
        k: Kernel matrix, shape (n, n), or a `lazynet.kernel_operator`.
        products: Maximum number of products of K with a block of 8 vectors. The vectors in the first block are random.

    Returns:
        A `SpectralDensity`.

    Raises:
        ValueError: If `products` is less than 1, or if `k` is not a finite symmetric matrix.

    Source: Golub and Meurant 2010, "Matrices, moments and quadrature with applications", chapter 11.

    >>> import numpy as np
    >>> density = spectral_density(np.eye(50) / 2)
    >>> round(density.average(lambda values: values)[0], 12)
    0.5
    """
    if products < 1:
        raise ValueError(f"products must be at least 1, got {products}.")
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    probes = np.random.default_rng(0).standard_normal((operator.n, COLUMNS))
    process, limit = Lanczos(operator, probes / np.linalg.norm(probes, axis=0)), basis_limit(operator.n)
    with narrow_products():
        while process.depth < products and not process.complete and process.size <= limit:
            process.deepen()
    return SpectralDensity(process.ritz[0], process.weights**2)
