"""The inverse of a kernel matrix on a vector, from products alone: preconditioned, for small eigenvalues."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.kernels.krylov import Column, Error, Lanczos
from lazynet.kernels.operators import KernelOperator
from lazynet.kernels.spectrum import Inverse, check_targets
from lazynet.typing import SquareKernel, Targets

RANK = 1000  # columns that the preconditioner takes at most
DEPTH = 1000  # products that a solution takes at most


def complexity(k: SquareKernel | KernelOperator, y: Targets, *, tolerance: float = 1e-5) -> float:
    """The complexity measure sqrt(2 y' K^-1 y / n); with several outputs sqrt(2 tr(Y' K^-1 Y) / n).

    Arora et al. 2019, equation (10), the leading term of their generalisation bound.

    Args:
        k: kernel on the training set, (n, n), or a `lazynet.kernel_operator`.
        y: targets, (n,) or (n, k).
        tolerance: of an operator, relative error to reach; a matrix is factored and needs none.

    Returns:
        A number without unit, computed in float64.

    Raises:
        ValueError: if k is not a finite symmetric positive definite matrix, or y does not fit it; two rows that are
            identical (or antipodal, to an odd activation) are named.

    >>> import numpy as np, lazynet as lz
    >>> round(lz.complexity(np.eye(2) / 2, np.array([1.0, -1.0])), 12)
    2.0
    """
    if not isinstance(k, KernelOperator):
        return Inverse(k).complexity(y)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, but must be positive.")
    targets = check_targets(y, k.n)
    # The square root halves a relative error.
    found = solve(k, targets, tolerance=2 * tolerance)
    truncation, storage = (part / 2 for part in found.error)
    if not truncation + storage <= tolerance:
        warnings.warn(
            f"Complexity may be wrong by {truncation + storage:.1e} of itself, above its tolerance {tolerance:.1e}: "
            f"{truncation:.1e} from stopping after {found.depth} products, {storage:.1e} from rounding.",
            stacklevel=2,
        )
    return float(np.sqrt(2 * np.sum(found.forms) / k.n))


class Solution(NamedTuple):
    """K^-1 y and what belongs to it.

    Attributes:
        x: K^-1 y, shaped as y.
        forms: y' K^-1 y of each output, (k,).
        error: of the sum of the forms, relative to it.
        lambda_min: the smallest eigenvalue of the preconditioned kernel.
        depth: products taken.
    """

    x: np.ndarray
    forms: np.ndarray
    error: Error
    lambda_min: float
    depth: int


class Nystroem:
    """A preconditioner P from r columns of K, chosen at random (Frangella, Tropp and Udell 2023, section 3).

    With eigenvectors U and eigenvalues L of the Nystroem approximation, P^-1/2 = sqrt(L_r) U L^-1/2 U' + (I - U U'). It
    brings the r largest eigenvalues of K to about that of index r.
    """

    def __init__(self, k: KernelOperator, rank: int) -> None:
        """Take `rank` columns of K."""
        index = np.sort(np.random.default_rng(0).choice(k.n, rank, replace=False))
        columns = k.columns(index)
        core = columns[index]
        # A shift of the size of the rounding keeps the factor real, as there.
        shift = np.finfo(k.dtype).eps * np.linalg.norm(core)
        core[np.diag_indices(rank)] += shift
        factor = scipy.linalg.cholesky(core, lower=True, check_finite=False)
        half = scipy.linalg.solve_triangular(factor, columns.T, lower=True, check_finite=False, overwrite_b=True).T
        del columns
        q, r = scipy.linalg.qr(half, mode="economic", overwrite_a=True, check_finite=False)
        left, singular, _ = scipy.linalg.svd(r, check_finite=False)
        self._u = q @ left
        self._scale = singular[-1] / singular - 1

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """P^-1/2 v."""
        return v + self._u @ (self._scale[:, None] * (self._u.T @ v))


class Preconditioned:
    """P^-1/2 K P^-1/2."""

    def __init__(self, k: KernelOperator, p: Nystroem) -> None:
        """The two operators."""
        self._k, self._p = k, p

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """P^-1/2 K P^-1/2 v."""
        return self._p.product(self._k.product(self._p.product(v)))


def solve(
    k: KernelOperator,
    y: Float[np.ndarray, " n"] | Float[np.ndarray, "n k"],
    *,
    tolerance: float,
    rank: int | None = None,
    depth: int = DEPTH,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """K^-1 y and y' K^-1 y by the preconditioned Lanczos process.

    With e = x - x_m and r_m = y - K x_m, the quadratic form misses e' K e = r_m' K^-1 r_m, at most |r_m|^2 over the
    smallest eigenvalue (Hestenes and Stiefel 1952). That is read off T once its smallest eigenvalue has settled; until
    then the error counts as infinite.

    Args:
        k: kernel operator.
        y: targets.
        tolerance: relative error of y' K^-1 y to reach.
        rank: columns that the preconditioner takes, 0 for none; an eighth of all when left out, at most 1000.
        depth: the most products to take.
        progress: is called with depth and error after each product.
    """
    rank = min(RANK, k.n // 8) if rank is None else rank
    p = Nystroem(k, rank) if rank else None
    b = y.reshape(k.n, -1)
    b = b if p is None else p.product(b)
    process = Lanczos(k if p is None else Preconditioned(k, p), b)
    truncation, forms = 0.0 if process.complete else np.inf, np.zeros(len(process.columns))
    while not process.complete and truncation > tolerance and process.depth < depth:
        process.deepen()
        found = [_quadratic_form(column) for column in process.columns]
        forms = np.array([form for form, _ in found])
        truncation = sum(missed for _, missed in found) / np.sum(forms) if np.sum(forms) > 0 else np.inf
        if progress is not None:
            progress(process.depth, truncation)
    x = np.stack([_inverse_times(column) for column in process.columns], axis=1)
    x = (x if p is None else p.product(x)).reshape(y.shape)
    smallest = [column.ritz[0][0] for column in process.columns if column.depth]
    lambda_min = float(min(smallest, default=np.nan))
    error = Error(float(truncation), _storage_of_form(k, x, float(np.sum(forms))))
    return Solution(x, forms, error, lambda_min, process.depth)


def _inverse_times(column: Column) -> np.ndarray:
    if not column.depth:
        return np.zeros_like(column.last)
    values, vectors = column.ritz
    return column.basis.T @ (vectors @ (column.weights / values))


def _quadratic_form(column: Column) -> tuple[float, float]:
    """b' A^-1 b by Gauss quadrature, and what it may miss."""
    if not column.depth:
        return 0.0, 0.0
    values = column.ritz[0]
    if values[0] <= 0:
        return np.nan, np.inf
    residual = np.sum(column.weights / values * column.defect)
    settled = values[0] - abs(column.defect[0])
    return float(np.sum(column.weights**2 / values)), float(residual**2 / settled) if settled > 0 else np.inf


def _storage_of_form(k: KernelOperator, x: np.ndarray, total: float) -> float:
    """Relative error of y' K^-1 y from rounding the entries: x' E x, for independent errors of the entries."""
    if not total > 0:
        return 0.0 if total == 0 else np.inf
    rounding = max(k.rounding, np.finfo(float).eps / 2)
    return float(rounding * k.diagonal().max() * np.sum(x**2) / total)
