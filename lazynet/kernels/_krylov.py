"""Block Lanczos process, which approximates functions of a kernel matrix using products with the matrix.

The process computes K Q = Q T + N R E' (Golub and Van Loan 2013, section 10.3.6). The matrix Q of shape (n, m) has
orthonormal columns, and its first columns span the column space of the block b of starting vectors. T = Q' K Q is block
tridiagonal, N R is the remainder of the last block, and E consists of the last columns of the identity. For every
function f, f(K) b can then be approximated by Q f(T) Q' b with the same Q. Each new block is orthogonalized against all
previous blocks. The short recurrence alone would lose orthogonality immediately, because the eigenvalues of kernels
span ten orders of magnitude.

Additional random starting vectors are cheap, because each product reads the kernel only once for all vectors. These
vectors reveal the large eigenvalues early, which halves the number of products. They also reveal eigenvalues whose
eigenvectors are nearly orthogonal to b.
"""

from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.arguments import check_number
from lazynet.kernels._halves import TOGETHER
from lazynet.kernels._operators import KernelOperator
from lazynet.kernels._spectrum import check_kernel, largest_of_matrix, tiles
from lazynet.kernels._threads import in_threads, narrow_products
from lazynet.plan import available_memory, check_fits
from lazynet.typing import SquareKernel

COLUMNS = TOGETHER  # number of columns that a product can process at the cost of a single column
# Minimum number of random columns, enough to reveal eigenvalues whose eigenvectors are nearly orthogonal to the columns
# that the caller supplies.
MIN_RANDOM_COLUMNS = 4
PARTS = 4  # number of parts into which sums are split, fixed so that results do not depend on the number of threads
EPS = float(np.finfo(float).eps / 2)  # unit roundoff of float64
# Number of vectors that must fit in memory, and maximum number of vectors in a Krylov basis.
LEAST, LARGEST = 128, 3000


class Error(NamedTuple):
    """Estimated error in a result f(K) v, relative to the norm of v.

    Attributes:
        truncation: Error from stopping the Krylov process, or 0 for exact methods.
        storage: Error from rounding in the kernel's entries and in the arithmetic.
    """

    truncation: float
    storage: float

    @property
    def total(self) -> float:
        """Sum of the truncation error and the storage error."""
        return self.truncation + self.storage


@runtime_checkable
class Product(Protocol):
    """Symmetric linear operator."""

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Return K v."""
        ...


def check_tolerance(tolerance: float | None) -> None:
    """Check that a tolerance is valid.

    Args:
        tolerance: Tolerance to check, or None for the default.

    Raises:
        ValueError: If `tolerance` is given but is not positive and finite.
    """
    if tolerance is not None:
        check_number("tolerance", tolerance, positive=True)


def basis_limit(n: int) -> int:
    """Return the maximum number of vectors of length n that a Krylov basis may contain.

    Args:
        n: Length of the vectors.

    Returns:
        The number of float64 vectors that fit in the available memory, with room for a copy, but at most 3000.

    Raises:
        ValueError: If fewer than 128 vectors fit in memory.
    """
    # The factor of 2 allows for a copy when the basis grows.
    bytes_per_vector = 2 * 8 * n
    check_fits(f"A Krylov basis of {n} rows", bytes_per_vector * LEAST, available_memory())
    return min(LARGEST, available_memory() // bytes_per_vector)


def with_random_columns(b: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k_more"]:
    """Append random columns to a block of vectors.

    Args:
        b: Block of vectors, shape (n, k).

    Returns:
        The given vectors, followed by at least 4 columns of standard normal samples, as an array of shape (n, k_more)
        with k_more >= 8. The random columns are the same for all blocks of the same shape.
    """
    count = max(COLUMNS - b.shape[1], MIN_RANDOM_COLUMNS)
    return np.concatenate([b, np.random.default_rng(0).standard_normal((len(b), count))], axis=1)


class Lanczos:
    """Block Lanczos process, which builds a Krylov basis for all columns of a block b.

    Args:
        k: Symmetric operator K with n rows.
        b: Starting vectors, shape (n, k).

    Attributes:
        depth: Number of products with K so far.
        complete: Whether the basis spans an invariant subspace, so that approximations of f(K) b are exact. For b = 0,
            the basis is complete from the start.
    """

    def __init__(self, k: Product, b: Float[np.ndarray, "n k"]) -> None:
        """Initialize the basis with orthonormal vectors that span the column space of b."""
        self._k, self.depth = k, 0
        norms = np.linalg.norm(b, axis=0)
        self._basis, self._t = np.empty((0, len(b))), np.empty((0, 0))
        self._size, self._before = 0, slice(0, 0)
        self._last, coordinates = self._orthonormalize((b / np.where(norms > 0, norms, 1)).T, 1.0)
        self._coordinates = coordinates * norms
        self.complete = not len(self._last)
        self._append()

    @property
    def size(self) -> int:
        """Number of vectors in the basis, m."""
        return self._size

    @property
    def basis(self) -> Float[np.ndarray, "m n"]:
        """Orthonormal basis Q', one vector per row."""
        return self._basis[: self._size]

    def deepen(self) -> None:
        """Multiply the last block by K and append the new directions to the basis."""
        self.__dict__.pop("ritz", None)
        self.__dict__.pop("defect", None)
        product = np.ascontiguousarray(self._k.product(self._last.T).T)
        self.depth += 1
        last, before = slice(self._size - len(self._last), self._size), self._before
        along = product @ self._basis[before.start : last.stop].T
        self._t[last, before.start : last.stop] = along
        self._t[before.start : last.stop, last] = along.T
        scale = float(np.abs(self._t[: self._size, : self._size]).max())
        self._last, self._remainder_factor = self._orthonormalize(
            product - along @ self._basis[before.start : last.stop], scale
        )
        self._before = last
        self.complete = not len(self._last)
        self._append()

    def _orthonormalize(self, rows: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return orthonormal rows N' that are orthogonal to the basis, and a matrix R for which rows = R' N'.

        The recurrence has already made `rows` orthogonal to the last two blocks. Directions that are small relative to
        `scale` are treated as rounding errors and dropped.
        """
        q, r, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True, check_finite=False)
        rank = int(np.sum(np.abs(np.diag(r)) > 8 * np.finfo(float).eps * scale))
        rank = min(rank, rows.shape[1] - self._size)
        factor = np.empty((rank, len(rows)))
        if not rank:
            return np.empty((0, rows.shape[1])), factor
        q, r = q[:, :rank], r[:rank]
        # One orthogonalization pass suffices unless a row has a large component in the span of the basis.
        for _ in range(3 if self._size else 0):
            q, again = scipy.linalg.qr(self._project_out_basis(q.T).T, mode="economic", check_finite=False)
            r = again @ r
            if np.abs(np.diag(again)).min() > 0.7:
                break
        factor[:, order] = r
        return np.ascontiguousarray(q.T), factor

    def _project_out_basis(self, rows: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
        """Return the components of the rows that are orthogonal to the basis."""
        parts = tiles(rows.shape[1], -(-rows.shape[1] // PARTS))
        along = sum(in_threads(lambda part: rows[:, part] @ self.basis[:, part].T, parts))
        return np.concatenate(in_threads(lambda part: rows[:, part] - along @ self.basis[:, part], parts), axis=1)

    def _append(self) -> None:
        """Append the last block to the basis."""
        size = self._size + len(self._last)
        if size > len(self._basis):
            room = max(size, 2 * len(self._basis))
            # Resizing in place, if the system supports it, avoids holding two copies of the basis.
            self._basis.resize((room, self._basis.shape[1]), refcheck=False)
            t = np.zeros((room, room))
            t[: self._size, : self._size] = self._t[: self._size, : self._size]
            self._t = t
        self._basis[self._size : size] = self._last
        self._size = size

    @property
    def multiplied(self) -> int:
        """Number of basis vectors that have been multiplied by K: all but those in the last block."""
        return self._size - len(self._last)

    @cached_property
    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of T in ascending order, shape (m,), and eigenvectors of T as columns, shape (m, m).

        Both are available only after the first call to `deepen`.
        """
        m = self.multiplied
        return scipy.linalg.eigh(self._t[:m, :m], driver="evd", check_finite=False)

    @property
    def weights(self) -> Float[np.ndarray, "m k"]:
        """Coefficients of the columns of b in the basis of Ritz vectors."""
        return self.ritz[1][: len(self._coordinates)].T @ self._coordinates

    @cached_property
    def defect(self) -> Float[np.ndarray, "b m"]:
        """Residual K v - lambda v of each Ritz pair (lambda, v), in the coordinates of the next block."""
        factor = self._remainder_factor
        return factor @ self.ritz[1][self.multiplied - factor.shape[1] :]

    def vectors(self) -> Float[np.ndarray, "n m"]:
        """Compute the Ritz vectors, which take the place of the eigenvectors of K when f(K) b is computed.

        Returns:
            The Ritz vectors as columns, shape (n, m).
        """
        return self.basis[: self.multiplied].T @ self.ritz[1]


def largest_eigenvalue(k: SquareKernel | KernelOperator) -> float:
    """Compute the largest eigenvalue of a kernel to a relative accuracy of about 1e-12.

    For an operator, a Lanczos process that starts from random vectors with a fixed seed runs until the residual of the
    largest Ritz value is at most a millionth of that value. The error in the eigenvalue is far smaller, because it is
    on the order of the squared residual divided by the gap to the next eigenvalue.

    Args:
        k: Kernel matrix, shape (n, n), or a `lazynet.kernel_operator`.

    Returns:
        The largest eigenvalue.

    Raises:
        ValueError: If `k` is neither a `KernelOperator` nor a symmetric matrix of finite numbers.

    >>> largest_eigenvalue(np.diag([1.0, 3.0]))
    3.0
    """
    if not isinstance(k, KernelOperator):
        return largest_of_matrix(check_kernel(k))
    process = Lanczos(k, with_random_columns(np.zeros((k.n, 0))))
    with narrow_products():
        while True:
            process.deepen()
            largest = float(process.ritz[0][-1])
            if process.complete or np.linalg.norm(process.defect[:, -1]) <= 1e-6 * largest:
                return largest
