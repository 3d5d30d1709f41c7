"""The inverse of a kernel matrix on a vector, from products alone: preconditioned, for small eigenvalues."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.kernels._dense import dense_operator
from lazynet.kernels._krylov import (
    EPS,
    Error,
    Lanczos,
    basis_limit,
    check_tolerance,
    with_random_columns,
)
from lazynet.kernels._operators import KernelOperator, error_norm
from lazynet.kernels._spectrum import Inverse, check_targets
from lazynet.kernels._threads import narrow_products
from lazynet.typing import SquareKernel, Targets

RANK = 1000  # columns that the preconditioner takes at most
FACTORED = 16_000  # rows of a matrix that is factored at most: LAPACK libraries crash beyond 2^31 bytes
UNSEEN = 0.03  # share of its typical size below which a component of a random vector is as good as never


def complexity(k: SquareKernel | KernelOperator, y: Targets, *, tolerance: float = 1e-5) -> float:
    """The complexity measure sqrt(2 y' K^-1 y / n); with several outputs sqrt(2 tr(Y' K^-1 Y) / n).

    Arora et al. 2019, equation (10), the leading term of their generalization bound.

    Args:
        k: kernel on the training set, (n, n), or a `lazynet.kernel_operator`.
        y: targets, (n,) or (n, k).
        tolerance: relative error to reach for an operator, and for a matrix of more than 16,000 rows. A smaller one is
            factored and needs none.

    Returns:
        A number without unit, computed in float64.

    Raises:
        ValueError: if k is not a finite symmetric positive definite matrix, or y does not fit it. Of a matrix that is
            factored, two rows that are identical (or antipodal, to an odd activation) are named.

    >>> import numpy as np, lazynet as lz
    >>> round(lz.complexity(np.eye(2) / 2, np.array([1.0, -1.0])), 12)
    2.0
    """
    check_tolerance(tolerance)
    return complexity_and_smallest(k, y, tolerance)[0]


def complexity_and_smallest(
    k: SquareKernel | KernelOperator, y: Targets, tolerance: float = 1e-5
) -> tuple[float, float]:
    """The complexity of targets, and the smallest eigenvalue of the kernel; from above, where it is not factored."""
    if not isinstance(k, KernelOperator) and len(k) <= FACTORED:
        inverse = Inverse(k)
        return inverse.complexity(y), inverse.lambda_min
    if not isinstance(k, KernelOperator):
        k = dense_operator(k)
    targets = check_targets(y, k.n)
    # The square root halves a relative error.
    found = solve(k, targets, tolerance=2 * tolerance)
    if found.singular:
        raise ValueError(
            f"The kernel has no inverse in {k.dtype}, because its smallest eigenvalue is zero to rounding; remove rows "
            "that are nearly the same."
        )
    truncation, storage = (part / 2 for part in found.error)
    if not truncation + storage <= tolerance:
        warnings.warn(
            f"Complexity may be wrong by {truncation + storage:.1e} of itself, above its tolerance {tolerance:.1e}: "
            f"{truncation:.1e} from stopping after {found.depth} products, {storage:.1e} from rounding.",
            stacklevel=3,
        )
    return float(np.sqrt(2 * np.sum(found.forms) / k.n)), found.lambda_min


class Solution(NamedTuple):
    """K^-1 y and what belongs to it.

    Attributes:
        x: K^-1 y, shaped as y.
        forms: y' K^-1 y of each output, (k,).
        error: of the forms, the largest over outputs, each relative to its own.
        lambda_min: the smallest eigenvalue of K, from above; some percent off where the solution needed no more.
        depth: products taken.
    """

    x: np.ndarray
    forms: np.ndarray
    error: Error
    lambda_min: float
    depth: int

    @property
    def singular(self) -> bool:
        """Whether the smallest eigenvalue is zero to the rounding of the entries."""
        return self.error.storage == np.inf


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
        self.largest = float(singular[0] ** 2)

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
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """K^-1 y and y' K^-1 y by the preconditioned Lanczos process.

    With e = x - x_m and r_m = y - K x_m, the quadratic form misses e' K e = r_m' K^-1 r_m, at most |r_m|^2 over the
    smallest eigenvalue (Hestenes and Stiefel 1952). That eigenvalue is estimated from random vectors, which go
    through the same products, because y may have next to nothing along it; until it has settled the error is infinite.

    Args:
        k: kernel operator.
        y: targets.
        tolerance: relative error of y' K^-1 y to reach.
        rank: columns that the preconditioner takes, 0 for none; an eighth of all when left out, at most 1000.
        progress: is called with depth and error after each product.
    """
    rank = min(RANK, k.n // 8) if rank is None else rank
    p = _preconditioner(k, rank)
    asked = y.reshape(k.n, -1)
    outputs = asked.shape[1]
    b = with_random_columns(asked if p is None else p.product(asked))
    rounding, diagonal = max(k.rounding, EPS), float(k.diagonal().max())
    zero = error_norm(rounding, diagonal, k.n)
    process, limit = Lanczos(k if p is None else Preconditioned(k, p), b), basis_limit(k.n)
    x, forms, truncation, lambda_min, check = np.zeros(asked.shape), np.zeros(outputs), np.inf, np.inf, 1
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
            left = np.linalg.norm(process.defect @ inverse, axis=0)
            smallest = _settled(lambda_min, left[outputs:], np.linalg.norm(b[:, outputs:], axis=0), k.n)
            forms = np.sum(process.weights * inverse, axis=0)[:outputs]
            truncation = np.inf
            if smallest > 0:
                truncation = float(np.max(left[:outputs] ** 2 / smallest / np.where(forms > 0, forms, 1.0)))
            if progress is not None:
                progress(process.depth, truncation)
    if process.depth:
        inverse = _inverse_on_ritz_vectors(process)[:, :outputs]
        z = process.vectors() @ inverse
        x = z if p is None else p.product(z)
        forms = np.sum(process.weights[:, :outputs] * inverse, axis=0)
        if p is not None:
            # The Rayleigh quotient of P^-1/2 z with K is that of z with P^-1/2 K P^-1/2, over its squared norm.
            lowest = process.basis[: process.multiplied].T @ process.ritz[1][:, :1]
            lambda_min /= float(np.sum(p.product(lowest) ** 2))
    storage = 0.0 if lambda_min > zero else np.inf
    if process.depth:
        # x' E x for errors E of the entries that are independent, and for those of products by their norm; what the
        # process drops as rounding is as small beside the largest Ritz value.
        largest = float(process.ritz[0][-1])
        products = EPS * (largest if p is None else p.largest)
        lost = (rounding * diagonal + products) * np.sum(x**2, axis=0) + 8 * EPS * largest * np.sum(z**2, axis=0)
        if p is not None:
            # P^-1/2 y is small beside what it is the difference of.
            lost += 8 * EPS * np.linalg.norm(z, axis=0) * np.linalg.norm(asked, axis=0)
        relative = np.divide(lost, forms, out=np.zeros(outputs), where=forms > 0) + 4 * EPS * (forms > 0)
        storage = max(storage, float(relative.max()))
    return Solution(x.reshape(y.shape), forms, Error(truncation, storage), lambda_min, process.depth)


def _preconditioner(k: KernelOperator, rank: int) -> Nystroem | None:
    """The preconditioner, None for rank 0 and for a kernel that is not positive, as the process itself will show."""
    try:
        return Nystroem(k, rank) if rank else None
    except np.linalg.LinAlgError:
        return None


def _inverse_on_ritz_vectors(process: Lanczos) -> Float[np.ndarray, "m k"]:
    """The inverse times the columns asked about, along each Ritz vector."""
    values = process.ritz[0][:, None]
    return process.weights * np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)


def _settled(value: float, left: np.ndarray, norms: np.ndarray, n: int) -> float:
    """Half the smallest eigenvalue that random vectors show, 0 where another might still be far below.

    What conjugate gradients leave of a random vector's components along eigenvalues far below all Ritz values is nearly
    the whole of them, typically norm / sqrt(n) each. Residuals well below that rule them out.
    """
    unseen = value <= 0 or (left > UNSEEN * norms / np.sqrt(n)).any()
    return 0.0 if unseen else value / 2
