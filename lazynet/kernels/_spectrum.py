"""Eigenvalues and inverses of dense kernel matrices."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float

from lazynet.arrays import float64_array
from lazynet.display import displayed
from lazynet.kernels._threads import in_threads
from lazynet.plan import check_memory, eigenvectors_bytes
from lazynet.typing import AnyArray, SquareKernel, Targets

# If the kernel cosine of two rows is within this distance of 1 or -1, the rows are indistinguishable when the kernel is
# inverted in float64.
SAME_ROW = 1e-14
# Maximum number of rows for which a direct eigensolver is faster than Lanczos iteration.
DIRECT = 500
# Number of restarts after which Lanczos iteration is abandoned. A direct method takes about as long.
RESTARTS = 100

Matrix = TypeVar("Matrix", bound=AnyArray)

TILE = 512  # rows per tile, few enough that a tile and its transpose fit in the cache


@displayed
class Spectrum(NamedTuple):
    """Eigendecomposition of a kernel matrix, as NumPy float64 arrays.

    Attributes:
        values: Eigenvalues in ascending order, shape (n,).
        vectors: Eigenvectors as columns, shape (n, n).
    """

    values: Float[np.ndarray, " n"]
    vectors: Float[np.ndarray, "n n"]


@displayed
class LabelProjections(NamedTuple):
    """Projections of targets onto the eigenvectors of a kernel, as NumPy float64 arrays.

    Attributes:
        values: Eigenvalues in descending order, shape (n,).
        projections: Absolute values |v_i' y| of the projections, an array with the same shape as the targets.
    """

    values: Float[np.ndarray, " n"]
    projections: Float[np.ndarray, "n *k"]


def tiles(n: int, size: int) -> list[slice]:
    """Split n rows into slices of `size` rows; the last slice may be shorter."""
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def upper_tiles(n: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Iterate over the row and column slices of the tiles on and above the diagonal."""
    slices = tiles(n, size)
    return ((rows, columns) for i, rows in enumerate(slices) for columns in slices[i:])


def check_kernel(k: AnyArray, name: str = "k") -> Float[np.ndarray, "n n"]:
    """Check a kernel matrix and return it as a NumPy float64 array.

    Args:
        k: Kernel matrix, shape (n, n), with any real dtype.
        name: Name of the kernel in error messages.

    Returns:
        The kernel in float64, shape (n, n).

    Raises:
        ValueError: If `k` is not a finite symmetric matrix.
    """
    matrix = float64_array(name, k)
    check_symmetric(matrix, name)
    return matrix


def check_square(name: str, matrix: Matrix) -> Matrix:
    """Return a kernel after checking that it is a nonempty square matrix.

    Args:
        name: Name of the kernel in error messages.
        matrix: Kernel matrix.

    Returns:
        The matrix.

    Raises:
        ValueError: If `matrix` is empty or is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} must be a square matrix with at least one row, got shape {matrix.shape}.")
    return matrix


def check_symmetric(matrix: np.ndarray, name: str) -> float:
    """Check that a kernel matrix is symmetric, and return the largest asymmetry relative to the largest entry.

    Raises:
        ValueError: If `matrix` is not a finite symmetric matrix.
    """
    check_square(name, matrix)

    def largest_in_tile(tile: tuple[slice, slice]) -> np.ndarray:
        entries = matrix[tile]
        # If an entry in either triangle is not finite, the difference is not finite either.
        with np.errstate(invalid="ignore", over="ignore"):
            difference = entries - matrix[tile[::-1]].T
        return np.array([max(entries.max(), -entries.min()), max(difference.max(), -difference.min())])

    # Each tile stays in the cache of the core that processes it.
    largest = np.max(in_threads(largest_in_tile, upper_tiles(len(matrix), TILE)), axis=0)
    # The difference between finite entries may overflow, so the entries themselves are checked as well.
    if not np.isfinite(largest).all() and not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite entries.")
    # Kernels computed in float32 are symmetric only up to float32 rounding.
    tolerance = 1e-5 * largest[0]
    if largest[1] > tolerance:
        raise ValueError(
            f"{name} must be symmetric to within {tolerance:.1e}, got a matrix that differs from its transpose by "
            f"{largest[1]:.1e}."
        )
    return float(largest[1] / largest[0]) if largest[0] > 0 else 0.0


def check_targets(y: AnyArray, n: int) -> np.ndarray:
    """Check targets and return them as a NumPy float64 array.

    Args:
        y: Targets, shape (n,) or (n, k), with any real dtype.
        n: Number of rows of the kernel.

    Returns:
        The targets in float64, with the same shape as `y`.

    Raises:
        ValueError: If the targets are not a finite array of shape (n,) or (n, k).
    """
    targets = float64_array("y", y)
    if targets.ndim not in (1, 2) or targets.shape[0] != n:
        raise ValueError(
            f"y must be an array of shape ({n},) or ({n}, k) to match the kernel, got shape {targets.shape}."
        )
    if not np.isfinite(targets).all():
        raise ValueError("y must be finite, got NaN or infinite entries.")
    return targets


def spectrum(k: SquareKernel) -> Spectrum:
    """Compute all eigenvalues and eigenvectors of a symmetric kernel matrix in float64.

    Args:
        k: Kernel matrix, shape (n, n).

    Returns:
        A `Spectrum` with eigenvalues in ascending order.

    Raises:
        ValueError: If `k` is not a finite symmetric matrix, or if the eigenvectors do not fit in memory.

    >>> spectrum(np.diag([3.0, 1.0])).values
    array([1., 3.])
    """
    matrix = check_kernel(k)
    check_memory(f"The eigendecomposition of a kernel with {len(matrix)} rows", eigenvectors_bytes(len(matrix)))
    return Spectrum(*scipy.linalg.eigh(matrix, driver="evd", check_finite=False))


def label_projections(k: SquareKernel | Spectrum, y: Targets) -> LabelProjections:
    """Project targets onto the eigenvectors of a kernel (Arora et al. 2019, Figures 1b and 1d).

    After s steps of gradient descent with learning rate eta, the residual along an eigenvector v_i with eigenvalue
    lambda_i is (1 - eta lambda_i)^s times its initial value. Targets are therefore learned quickly if their largest
    projections are onto the eigenvectors with the largest eigenvalues.

    Args:
        k: Kernel on the training set, shape (n, n), or its `lazynet.kernels.Spectrum`.
        y: Targets, shape (n,) or (n, k).

    Returns:
        Eigenvalues and projections as NumPy float64 arrays. If an eigenvalue is repeated, the basis of its eigenspace
        is arbitrary, and so are the individual projections onto that basis.

    Raises:
        ValueError: If `k` is not a finite symmetric matrix, if `y` is not finite or does not match the kernel, or if
            the eigenvectors do not fit in memory.

    >>> import numpy as np
    >>> import lazynet as lz
    >>> values, projections = lz.label_projections(np.diag([1.0, 3.0]), np.array([2.0, -1.0]))
    >>> values, projections
    (array([3., 1.]), array([1., 2.]))
    """
    k = k if isinstance(k, Spectrum) else check_kernel(k)
    targets = check_targets(y, len(k.values) if isinstance(k, Spectrum) else len(k))
    values, vectors = k if isinstance(k, Spectrum) else spectrum(k)
    return LabelProjections(values[::-1].copy(), np.abs(vectors.T @ targets)[::-1].copy())


def same_rows(k: SquareKernel) -> tuple[int, int, str] | None:
    """Find the first pair of rows that makes a kernel singular.

    Two inputs have proportional feature vectors if K_ij^2 = K_ii K_jj (equality in the Cauchy-Schwarz inequality).

    Args:
        k: Kernel matrix, shape (n, n).

    Returns:
        The indices of the two rows and their relation, "identical" or "antipodal", or None if there is no such pair.

    >>> same_rows(np.ones((2, 2)))
    (0, 1, 'identical')
    """
    diagonal = np.diag(k)
    # Rows with a nonpositive diagonal entry get a cosine of NaN, which makes all comparisons false.
    scale = np.sqrt(np.where(diagonal > 0, diagonal, np.nan))
    for i in range(len(k) - 1):
        cosine = k[i, i + 1 :] / (scale[i] * scale[i + 1 :])
        same = np.flatnonzero(np.abs(cosine) >= 1 - SAME_ROW)
        if same.size:
            return i, i + 1 + int(same[0]), "identical" if cosine[same[0]] > 0 else "antipodal"
    return None


class Inverse:
    """Inverse of a kernel matrix, represented by its Cholesky factor.

    Args:
        k: Kernel matrix, shape (n, n).

    Raises:
        ValueError: If `k` is not a finite symmetric matrix, if two of the inputs from which it was computed are
            identical (or antipodal, for a kernel that is odd in each argument), or if the matrix is not positive
            definite in float64.

    >>> Inverse(np.eye(2) / 2).solve(np.array([1.0, -1.0]))
    array([ 2., -2.])
    """

    def __init__(self, k: SquareKernel) -> None:
        """Factor the matrix."""
        matrix = check_kernel(k)
        pair = same_rows(matrix)
        if pair is not None:
            i, j, relation = pair
            raise ValueError(f"k must be nonsingular, but rows {i} and {j} are {relation}. Remove one of them.")
        try:
            self._factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            raise ValueError(
                "k must be positive definite in float64, got a matrix whose smallest eigenvalue is negative or is "
                "zero up to rounding. Remove near-duplicate rows."
            ) from None
        self._matrix = matrix

    def solve(self, y: np.ndarray) -> np.ndarray:
        """Compute K^-1 y.

        Args:
            y: Targets, shape (n,) or (n, k).

        Returns:
            The solution in float64, with the same shape as `y`.
        """
        return scipy.linalg.cho_solve(self._factor, y, check_finite=False)

    def quadratic_form(self, y: np.ndarray) -> float:
        """Compute y' K^-1 y, or tr(Y' K^-1 Y) for several outputs, as the squared norm of L^-1 y, where K = L L'.

        Args:
            y: Targets, shape (n,) or (n, k).

        Returns:
            The quadratic form.
        """
        return float(np.sum(self._half(y) ** 2))

    def _half(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.linalg.solve_triangular(self._factor[0], y, lower=True, check_finite=False))

    def complexity(self, y: Targets) -> float:
        """Compute the complexity measure sqrt(2 y' K^-1 y / n); see `lazynet.complexity`.

        Args:
            y: Targets, shape (n,) or (n, k).

        Returns:
            The complexity.

        Raises:
            ValueError: If `y` is not finite or does not match the kernel.
        """
        targets = check_targets(y, len(self._matrix))
        half = self._half(targets)
        # Dividing by the largest entry keeps the squares in range.
        largest = np.abs(half).max() or 1.0
        return float(largest * np.sqrt(2 * np.sum((half / largest) ** 2) / len(targets)))

    @cached_property
    def lambda_min(self) -> float:
        """Smallest eigenvalue of the kernel, computed by Lanczos iteration on the inverse if the matrix is large."""
        if len(self._matrix) <= DIRECT:
            return self._smallest_directly()
        scale = _power_of_two(self._matrix)
        largest = _largest_by_lanczos(lambda v: self.solve(v) * scale, len(self._matrix))
        return self._smallest_directly() if largest is None else scale / largest

    def _smallest_directly(self) -> float:
        return float(scipy.linalg.eigvalsh(self._matrix, subset_by_index=[0, 0])[0])


def largest_of_matrix(k: SquareKernel) -> float:
    """Return the largest eigenvalue of a kernel matrix, using Lanczos iteration if the matrix is large."""
    n = len(k)
    if n > DIRECT:
        scale = _power_of_two(k)
        found = _largest_by_lanczos(lambda v: (k @ v) / scale, n)
        if found is not None:
            return found * scale
    return float(scipy.linalg.eigvalsh(np.asarray(k, np.float64), subset_by_index=[n - 1, n - 1])[0])


def _power_of_two(k: AnyArray) -> float:
    """Return a power of two close to the largest absolute entry of a kernel.

    ARPACK's convergence criterion includes an absolute tolerance, so matrices whose entries are all tiny must be
    rescaled. Scaling by a power of two causes no rounding errors.
    """
    return float(np.ldexp(1.0, int(np.clip(np.frexp(max(np.max(k), -np.min(k)))[1], -1000, 1000))))


def _largest_by_lanczos(product: Callable[[np.ndarray], AnyArray], n: int) -> float | None:
    """Return the largest eigenvalue of a matrix, or None if the iteration does not converge.

    It converges slowly if many eigenvalues are almost as large as the largest.

    Args:
        product: Function that multiplies the matrix by a vector.
        n: Number of rows.
    """
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
    # A fixed starting vector makes the result reproducible.
    start = np.random.default_rng(0).standard_normal(n)
    try:
        values = scipy.sparse.linalg.eigsh(
            operator, k=1, which="LA", v0=start, maxiter=RESTARTS, return_eigenvectors=False
        )
    except scipy.sparse.linalg.ArpackError:  # the base class of ArpackNoConvergence
        return None
    return float(values[0])
