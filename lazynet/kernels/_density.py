"""How the eigenvalues of a kernel are distributed, from products alone."""

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
    """A density of eigenvalues as points with weights, NumPy float64.

    Attributes:
        values: (m,) points in ascending order.
        weights: (m, p) what each of p random vectors gives them; each column sums to 1.
    """

    values: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, "m p"]

    def average(self, f: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """The average of f over all eigenvalues, tr f(K) / n, and its standard error over the random vectors."""
        each = f(self.values) @ self.weights
        return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def spectral_density(k: SquareKernel | KernelOperator, *, products: int = 20) -> SpectralDensity:
    """The density of a kernel's eigenvalues by stochastic Lanczos quadrature (Golub and Meurant 2010, chapter 11).

    Averages of polynomials up to degree 2 products - 1 have only the error of the random vectors, which `average`
    tells; eigenvalues that stand apart are points of their own.

    Args:
        k: kernel matrix (n, n) or a `lazynet.kernel_operator`.
        products: products with K to take, each with 8 random vectors.

    Raises:
        ValueError: if products is not positive, or k not a finite symmetric matrix.

    >>> import numpy as np
    >>> density = spectral_density(np.eye(50) / 2)
    >>> round(density.average(lambda values: values)[0], 12)
    0.5
    """
    if products < 1:
        raise ValueError(f"products is {products}, but must be at least 1.")
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    probes = np.random.default_rng(0).standard_normal((operator.n, COLUMNS))
    process, limit = Lanczos(operator, probes / np.linalg.norm(probes, axis=0)), basis_limit(operator.n)
    with narrow_products():
        while process.depth < products and not process.complete and process.size <= limit:
            process.deepen()
    return SpectralDensity(process.ritz[0], process.weights**2)
