"""Eigenvalues and inverses of a kernel matrix, and what theory asks of them."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float

from lazynet.kernels._threads import in_threads
from lazynet.plan import check_memory, eigenvectors_bytes
from lazynet.typing import AnyArray, SquareKernel, Targets

# Two rows whose kernel cosine is nearer to 1 than this are one row to an inverse in float64.
SAME_ROW = 1e-14
# Up to this size a direct eigensolver is quicker than Lanczos.
DIRECT = 500

TILE = 512  # rows of a tile whose transpose stays in the cache


class Spectrum(NamedTuple):
    """Eigenvalues (n,) in ascending order and eigenvectors (n, n) in columns, NumPy float64."""

    values: Float[np.ndarray, " n"]
    vectors: Float[np.ndarray, "n n"]


class LabelProjections(NamedTuple):
    """Eigenvalues (n,) from the largest on, and |v_i' y| of each eigenvector, shaped as the targets."""

    values: Float[np.ndarray, " n"]
    projections: Float[np.ndarray, "n *k"]


def tiles(n: int, size: int) -> list[slice]:
    """n rows in slices of `size`, and what is left."""
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def upper_tiles(n: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles on and above the diagonal."""
    slices = tiles(n, size)
    return ((rows, columns) for i, rows in enumerate(slices) for columns in slices[i:])


def check_kernel(k: AnyArray, name: str = "k") -> Float[np.ndarray, "n n"]:
    """A kernel matrix as NumPy float64.

    Raises:
        ValueError: if it is not square, not finite or not symmetric.
    """
    matrix = np.asarray(k, np.float64)
    check_symmetric(matrix, name)
    return matrix


def check_symmetric(matrix: np.ndarray, name: str) -> float:
    """How far a kernel matrix is from its transpose, over its largest entry; one that is no such matrix is refused."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} has shape {matrix.shape}, but must be a square matrix (n, n).")

    def largest(places: tuple[slice, slice]) -> np.ndarray:
        tile = matrix[places]
        # What is not finite on either side makes this so too.
        with np.errstate(invalid="ignore", over="ignore"):
            difference = tile - matrix[places[::-1]].T
        return np.array([max(tile.max(), -tile.min()), max(difference.max(), -difference.min())])

    # A tile stays in the cache of its thread.
    found = np.max(in_threads(largest, upper_tiles(len(matrix), TILE)), axis=0)
    # The difference of finite entries may overflow.
    if not np.isfinite(found).all() and not np.isfinite(matrix).all():
        raise ValueError(f"{name} has NaN or infinite entries, but must be finite.")
    # Kernels stored in float32 are symmetric to its rounding only.
    tolerance = 1e-5 * found[0]
    if found[1] > tolerance:
        raise ValueError(f"{name} differs from its transpose by more than {tolerance:.1e}, but must be symmetric.")
    return float(found[1] / found[0]) if found[0] > 0 else 0.0


def check_targets(y: AnyArray, n: int) -> np.ndarray:
    """Targets as NumPy float64, (n,) or (n, k).

    Raises:
        ValueError: if there are not n of them or they are not finite.
    """
    targets = np.asarray(y, np.float64)
    if targets.ndim not in (1, 2) or targets.shape[0] != n:
        raise ValueError(f"y has shape {targets.shape}, but the kernel asks for ({n},) or ({n}, k).")
    if not np.isfinite(targets).all():
        raise ValueError("y has NaN or infinite entries, but must be finite.")
    return targets


def spectrum(k: SquareKernel) -> Spectrum:
    """All eigenvalues and eigenvectors of a symmetric kernel matrix, in float64.

    Raises:
        ValueError: if k is not a finite symmetric matrix, or the memory does not suffice.
    """
    check_memory(f"Finding all eigenvectors of a kernel of {len(k)} rows", eigenvectors_bytes(len(k)))
    return Spectrum(*scipy.linalg.eigh(check_kernel(k), driver="evd", check_finite=False))


def label_projections(k: SquareKernel | Spectrum, y: Targets) -> LabelProjections:
    """How much of the targets each eigenvector of a kernel carries (Arora et al. 2019, Figure 1 b and d).

    Descent learns the part along v_i as (1 - eta lambda_i)^step, so labels are learned soon where large projections
    stand at large eigenvalues.

    Args:
        k: kernel on the training set, (n, n), or its `lazynet.kernels._spectrum`.
        y: targets, (n,) or (n, k).

    Returns:
        LabelProjections(values, projections) in NumPy float64. Within an eigenspace of several dimensions its basis,
        and so their division, is arbitrary.

    Raises:
        ValueError: if k is not a finite symmetric matrix, y does not fit it, or the memory does not suffice.

    >>> import numpy as np
    >>> import lazynet as lz
    >>> lz.label_projections(np.diag([1.0, 3.0]), np.array([2.0, -1.0]))
    LabelProjections(values=array([3., 1.]), projections=array([1., 2.]))
    """
    targets = check_targets(y, len(k.values) if isinstance(k, Spectrum) else len(k))
    values, vectors = k if isinstance(k, Spectrum) else spectrum(k)
    return LabelProjections(values[::-1].copy(), np.abs(vectors.T @ targets)[::-1].copy())


def same_rows(k: SquareKernel) -> tuple[int, int, str] | None:
    """The first two rows that make a kernel singular: (i, j, "identical" or "antipodal"), or None.

    Rows are one feature vector up to a factor when K_ij^2 = K_ii K_jj (Cauchy-Schwarz with equality).
    """
    diagonal = np.diag(k)
    # A row without a positive diagonal entry is like no other, and not a number compares as that.
    scale = np.sqrt(np.where(diagonal > 0, diagonal, np.nan))
    for i in range(len(k) - 1):
        cosine = k[i, i + 1 :] / (scale[i] * scale[i + 1 :])
        hit = np.flatnonzero(np.abs(cosine) >= 1 - SAME_ROW)
        if hit.size:
            return i, i + 1 + int(hit[0]), "identical" if cosine[hit[0]] > 0 else "antipodal"
    return None


class Inverse:
    """The inverse of a kernel matrix through its Cholesky factor.

    Raises:
        ValueError: if two rows are identical, or antipodal where the kernel cannot tell them apart, or the matrix is
            not positive definite in float64.
    """

    def __init__(self, k: SquareKernel) -> None:
        """Factor the matrix, or say why it has no inverse."""
        matrix = check_kernel(k)
        pair = same_rows(matrix)
        if pair is not None:
            i, j, kind = pair
            raise ValueError(
                f"The kernel has no inverse, because rows {i} and {j} are {kind} to it; remove one of the two."
            )
        try:
            self._factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            raise ValueError(
                "The kernel has no inverse in float64, because its smallest eigenvalue is zero to rounding; remove "
                "rows that are nearly the same."
            ) from None
        self._matrix = matrix

    def solve(self, y: np.ndarray) -> np.ndarray:
        """K^-1 y, shaped as y."""
        return scipy.linalg.cho_solve(self._factor, y, check_finite=False)

    def quadratic_form(self, y: np.ndarray) -> float:
        """y' K^-1 y, and tr(Y' K^-1 Y) for several outputs, as the squared norm of L^-1 y."""
        half = scipy.linalg.solve_triangular(self._factor[0], y, lower=True, check_finite=False)
        return float(np.sum(half**2))

    def complexity(self, y: Targets) -> float:
        """sqrt(2 y' K^-1 y / n), see `lazynet.complexity`."""
        targets = check_targets(y, len(self._matrix))
        return float(np.sqrt(2 * self.quadratic_form(targets) / len(targets)))

    @cached_property
    def lambda_min(self) -> float:
        """The smallest eigenvalue, by Lanczos on the inverse where the matrix is large."""
        if len(self._matrix) <= DIRECT:
            return float(scipy.linalg.eigvalsh(self._matrix, subset_by_index=[0, 0])[0])
        inverse = scipy.sparse.linalg.LinearOperator(self._matrix.shape, matvec=self.solve, dtype=np.float64)
        return 1 / _largest_eigenvalue(inverse)


def largest_of_matrix(k: SquareKernel) -> float:
    """The largest eigenvalue of a kernel matrix, by Lanczos where the matrix is large."""
    n = len(k)
    if n <= DIRECT:
        return float(scipy.linalg.eigvalsh(np.asarray(k, np.float64), subset_by_index=[n - 1, n - 1])[0])
    return _largest_eigenvalue(k)


def _largest_eigenvalue(operator: np.ndarray | scipy.sparse.linalg.LinearOperator) -> float:
    # A fixed start vector gives the same digits each time.
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    return float(scipy.sparse.linalg.eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
