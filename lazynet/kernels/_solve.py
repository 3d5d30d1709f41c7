"""A preconditioned Lanczos solver for linear systems with a kernel matrix, and the complexity measure."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.arguments import check_number
from lazynet.arrays import real_array
from lazynet.kernels._dense import dense_operator
from lazynet.kernels._krylov import (
    EPS,
    Error,
    Lanczos,
    basis_limit,
    check_tolerance,
    with_random_columns,
)
from lazynet.kernels._operators import KernelOperator, ShiftedOperator, error_norm
from lazynet.kernels._spectrum import Inverse, check_kernel, check_square, check_targets
from lazynet.kernels._threads import narrow_products
from lazynet.typing import SquareKernel, Targets

RANK = 1000  # maximum number of columns in the preconditioner
FACTORED = 16_000  # maximum number of rows in a factored matrix; LAPACK crashes on matrices larger than 2^31 bytes
UNSEEN = 0.03  # components of random vectors are practically never smaller than this fraction of their typical size


def complexity(k: SquareKernel | KernelOperator, y: Targets, *, ridge: float = 0.0, tolerance: float = 1e-5) -> float:
    """Compute the complexity measure sqrt(2 y' K^-1 y / n), or sqrt(2 tr(Y' K^-1 Y) / n) for several outputs.

    Without a ridge, this measure is the leading term of the generalization bound of Arora et al. 2019, equation (10).
    With a ridge beta, K + beta I replaces K.

    Args:
        k: Kernel on the training set, shape (n, n), or a `lazynet.kernel_operator`.
        y: Targets, shape (n,) or (n, k).
        ridge: Number beta to add to the diagonal of the kernel, nonnegative.
        tolerance: Target relative error for operators and for matrices with more than 16,000 rows. Smaller matrices are
            factored instead, in which case the tolerance has no effect.

    Returns:
        The dimensionless complexity, computed in float64.

    Raises:
        ValueError: If `k` is not a finite symmetric matrix, if K + beta I is not positive definite, if `ridge` is
            negative, if `y` does not match the kernel, or if `tolerance` is not positive. If a matrix is factored and
            two of the inputs from which it was computed are identical (or antipodal, for an odd activation), the
            message gives the indices of these inputs.

    Warns:
        UserWarning: If the tolerance is not met.

    >>> import numpy as np, lazynet as lz
    >>> round(lz.complexity(np.eye(2) / 2, np.array([1.0, -1.0])), 12)
    2.0
    """
    check_tolerance(tolerance)
    ridge = check_number("ridge", ridge)
    if ridge:
        k = ShiftedOperator(k, ridge) if isinstance(k, KernelOperator) else _shifted(check_kernel(k), ridge)
    return complexity_and_smallest(k, y, tolerance)[0]


def _shifted(k: np.ndarray, ridge: float) -> np.ndarray:
    return k + ridge * np.eye(len(k))


def complexity_and_smallest(
    k: SquareKernel | KernelOperator, y: Targets, tolerance: float = 1e-5
) -> tuple[float, float]:
    """Compute the complexity measure and the smallest eigenvalue of a kernel.

    Args:
        k: Kernel on the training set, shape (n, n), or a `lazynet.kernel_operator`.
        y: Targets, shape (n,) or (n, k).
        tolerance: Target relative error in the complexity, as in `lazynet.complexity`.

    Returns:
        The complexity and the smallest eigenvalue. For operators and for matrices with more than 16,000 rows, the
        second value is only an upper bound on the smallest eigenvalue.

    Raises:
        ValueError: If `k` is not a finite, symmetric and positive definite matrix, or if `y` does not match the kernel.

    Warns:
        UserWarning: If the tolerance is not met.
    """
    check_number("tolerance", tolerance, positive=True)
    if not isinstance(k, KernelOperator):
        # To avoid a copy, the matrix is not converted to float64 here.
        k = check_square("k", real_array("k", k))
    if not isinstance(k, KernelOperator) and len(k) <= FACTORED:
        inverse = Inverse(k)
        return inverse.complexity(y), inverse.lambda_min
    if not isinstance(k, KernelOperator):
        k = dense_operator(k)
    targets = check_targets(y, k.n)
    # The square root halves the relative error.
    solution = solve(k, targets, tolerance=2 * tolerance)
    if solution.singular:
        raise ValueError(
            f"k must be positive definite in {k.dtype}, got a matrix whose smallest eigenvalue is negative or zero "
            "up to rounding. Remove near-duplicate rows."
        )
    truncation, storage = (part / 2 for part in solution.error)
    if not truncation + storage <= tolerance:
        warnings.warn(
            f"The relative error in the complexity may be {truncation + storage:.1e}, above the tolerance of "
            f"{tolerance:.1e}: {truncation:.1e} from stopping after {solution.depth} products, and {storage:.1e} from "
            "rounding.",
            stacklevel=3,
        )
    return float(np.sqrt(2 * np.sum(solution.forms) / k.n)), solution.lambda_min


class Solution(NamedTuple):
    """Solution of K x = y, with error estimates.

    Attributes:
        x: Solution K^-1 y, which has the same shape as y.
        forms: Quadratic form y' K^-1 y for each output, shape (k,).
        error: Estimate of the largest relative error in the quadratic forms.
        lambda_min: Upper bound on the smallest eigenvalue of K, accurate to a few percent.
        depth: Number of products with K.
    """

    x: np.ndarray
    forms: np.ndarray
    error: Error
    lambda_min: float
    depth: int

    @property
    def singular(self) -> bool:
        """True if the smallest eigenvalue is zero or negative, up to the rounding errors in the entries."""
        return self.error.storage == np.inf


class Nystroem:
    """Nyström preconditioner P built from r random columns of K (Frangella, Tropp and Udell 2023, section 3).

    Let U and L be the eigenvectors and nonzero eigenvalues of the Nyström approximation of K, and let L_r be the
    smallest of these eigenvalues. Then P^-1/2 = sqrt(L_r) U L^-1/2 U' + (I - U U'). Preconditioning brings the r
    largest eigenvalues of K close to the r-th largest eigenvalue.

    Args:
        k: Kernel operator K.
        rank: Number of columns, r.
    """

    def __init__(self, k: KernelOperator, rank: int) -> None:
        """Choose random columns of K and compute the eigenvectors of the Nyström approximation."""
        index = np.sort(np.random.default_rng(0).choice(k.n, rank, replace=False))
        columns = k.columns(index)
        core = columns[index]
        # A shift comparable to the rounding errors ensures that the factorization succeeds (Frangella et al. 2023).
        shift = np.finfo(k.dtype).eps * np.linalg.norm(core)
        core[np.diag_indices(rank)] += shift
        factor = scipy.linalg.cholesky(core, lower=True, check_finite=False)
        half = scipy.linalg.solve_triangular(factor, columns.T, lower=True, check_finite=False, overwrite_b=True).T
        del columns
        q, r = scipy.linalg.qr(half, mode="economic", overwrite_a=True, check_finite=False)
        left, singular, _ = scipy.linalg.svd(r, check_finite=False)
        self._u = q @ left
        self._scale = singular[-1] / singular - 1
        self.largest = float(singular[0] ** 2)

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Return P^-1/2 v."""
        return v + self._u @ (self._scale[:, None] * (self._u.T @ v))


class Preconditioned:
    """Preconditioned operator P^-1/2 K P^-1/2."""

    def __init__(self, k: KernelOperator, p: Nystroem) -> None:
        """Store the kernel operator and the preconditioner."""
        self._k, self._p = k, p

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Return P^-1/2 K P^-1/2 v."""
        return self._p.product(self._k.product(self._p.product(v)))


def solve(
    k: KernelOperator,
    y: Float[np.ndarray, " n"] | Float[np.ndarray, "n k"],
    *,
    tolerance: float,
    rank: int | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """Compute K^-1 y and y' K^-1 y with a preconditioned Lanczos process.

    Let e = x - x_m be the error and r_m = y - K x_m the residual after m products. The error in the quadratic form is
    e' K e = r_m' K^-1 r_m, which is at most |r_m|^2 divided by the smallest eigenvalue of K (Hestenes and Stiefel
    1952). The smallest eigenvalue is estimated from random vectors that are multiplied by K along with y, because y may
    have almost no component along the corresponding eigenvector. Until this estimate has converged, the error is taken
    to be infinite.

    Args:
        k: Kernel operator K.
        y: Targets, shape (n,) or (n, k).
        tolerance: Relative error in y' K^-1 y at which the process stops.
        rank: Number of columns in the preconditioner, or 0 for no preconditioner. Defaults to the smaller of n / 8 and
            1000.
        progress: Function that is called with the number of products and the error whenever the error is estimated.

    Returns:
        A `Solution`. Its error exceeds the tolerance if the tolerance cannot be met.
    """
    rank = min(RANK, k.n // 8) if rank is None else rank
    p = _preconditioner(k, rank)
    targets = y.reshape(k.n, -1)
    outputs = targets.shape[1]
    b = with_random_columns(targets if p is None else p.product(targets))
    rounding, diagonal = max(k.rounding, EPS), float(k.diagonal().max())
    zero = error_norm(rounding, diagonal, k.n)
    process, limit = Lanczos(k if p is None else Preconditioned(k, p), b), basis_limit(k.n)
    x, forms, truncation, lambda_min, check = np.zeros(targets.shape), np.zeros(outputs), np.inf, np.inf, 1
    if not y.any():
        truncation = 0.0
    with narrow_products():
        while truncation > tolerance and lambda_min > zero and not process.complete and process.size <= limit:
            process.deepen()
            if process.depth < check and not process.complete:
                continue
            check = process.depth + 1 + process.depth // 10
            lambda_min = float(process.ritz[0][0])
            inverse = _inverse_on_ritz_vectors(process)
            residuals = np.linalg.norm(process.defect @ inverse, axis=0)
            norms = np.linalg.norm(b[:, outputs:], axis=0)
            smallest = _safe_smallest_eigenvalue(lambda_min, residuals[outputs:], norms, k.n)
            forms = np.sum(process.weights * inverse, axis=0)[:outputs]
            truncation = np.inf
            if smallest > 0:
                truncation = float(np.max(residuals[:outputs] ** 2 / smallest / np.where(forms > 0, forms, 1.0)))
            if progress is not None:
                progress(process.depth, truncation)
    if process.depth:
        inverse = _inverse_on_ritz_vectors(process)[:, :outputs]
        z = process.vectors() @ inverse
        x = z if p is None else p.product(z)
        forms = np.sum(process.weights[:, :outputs] * inverse, axis=0)
        if p is not None:
            # The Rayleigh quotient of K at P^-1/2 z is z' (P^-1/2 K P^-1/2) z divided by the squared norm of P^-1/2 z.
            lowest = process.basis[: process.multiplied].T @ process.ritz[1][:, :1]
            lambda_min /= float(np.sum(p.product(lowest) ** 2))
    storage = 0.0 if lambda_min > zero else np.inf
    if process.depth:
        # An error E in K causes an error of x' E x in the quadratic form. Errors in the entries are assumed to be
        # independent. Errors from the products and from dropped directions may be correlated, so their contributions
        # are bounded by using the norms of these errors.
        largest = float(process.ritz[0][-1])
        products = EPS * (largest if p is None else p.largest)
        absolute = (rounding * diagonal + products) * np.sum(x**2, axis=0) + 8 * EPS * largest * np.sum(z**2, axis=0)
        if p is not None:
            # P^-1/2 y is computed as the difference between two much larger vectors.
            absolute += 8 * EPS * np.linalg.norm(z, axis=0) * np.linalg.norm(targets, axis=0)
        relative = np.divide(absolute, forms, out=np.zeros(outputs), where=forms > 0) + 4 * EPS * (forms > 0)
        storage = max(storage, float(relative.max()))
    return Solution(x.reshape(y.shape), forms, Error(truncation, storage), lambda_min, process.depth)


def _preconditioner(k: KernelOperator, rank: int) -> Nystroem | None:
    """Return the preconditioner, or None if the rank is 0 or the kernel is indefinite.

    If the kernel is indefinite, `solve` detects this later.
    """
    try:
        return Nystroem(k, rank) if rank else None
    except np.linalg.LinAlgError:
        return None


def _inverse_on_ritz_vectors(process: Lanczos) -> Float[np.ndarray, "m k"]:
    """Return the coefficients of K^-1 b in the basis of Ritz vectors."""
    values = process.ritz[0][:, None]
    return process.weights * np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)


def _safe_smallest_eigenvalue(value: float, residuals: np.ndarray, norms: np.ndarray, n: int) -> float:
    """Return half the smallest Ritz value, or 0 if a much smaller eigenvalue cannot be ruled out yet.

    If the right-hand side is a random vector, conjugate gradient iterations barely reduce the residual's components
    along eigenvectors whose eigenvalues are far below all Ritz values. The typical size of such a component is
    norm / sqrt(n), so residuals well below that size rule out such eigenvalues.

    Args:
        value: Smallest Ritz value.
        residuals: Norms of the residuals of random vectors.
        norms: Norms of the random vectors.
        n: Number of rows of the kernel.
    """
    unseen = value <= 0 or (residuals > UNSEEN * norms / np.sqrt(n)).any()
    return 0.0 if unseen else value / 2
