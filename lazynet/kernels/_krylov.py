"""Functions of a kernel matrix from its products alone: the block Lanczos process, deepened until the answer is good.

K Q = Q T + N R E' with Q (n, m) orthonormal, its first columns spanning those asked about, T = Q' K Q block tridiagonal
and N R what the last block leaves (Golub and Van Loan 2013, section 10.3.6). f(K) b is then nearly Q f(T) Q' b, for
every f from one Q. Every new block is made orthogonal to all before it: kernels have eigenvalues over ten decades, and
the two-term recurrence alone loses orthogonality at once.

Random columns beside those asked about cost little, because a product reads the kernel once for all of them. They find
the large eigenvalues early, which halves the number of products, and see what the others hardly show.
"""

from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.kernels._halves import TOGETHER
from lazynet.kernels._operators import KernelOperator
from lazynet.kernels._spectrum import largest_of_matrix, tiles
from lazynet.kernels._threads import in_threads, narrow_products
from lazynet.plan import available_memory, check_fits
from lazynet.typing import SquareKernel

COLUMNS = TOGETHER  # that a product takes at the price of one
SEEING = 4  # random columns at least, of which some sees every eigenvalue that the others hardly show
PARTS = 4  # of the rows, which threads free of the basis: the same sums however many threads there are
EPS = float(np.finfo(float).eps / 2)  # of float64 arithmetic
LEAST, LARGEST = 128, 3000  # vectors that a basis must have room for, and has at most


class Error(NamedTuple):
    """What an answer may be wrong by, relative to the norm of what it is a function of.

    Attributes:
        truncation: from stopping the Krylov process; 0 for the exact path.
        storage: from the rounding of the kernel's entries, and of the arithmetic.
    """

    truncation: float
    storage: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.truncation + self.storage


@runtime_checkable
class Product(Protocol):
    """Anything symmetric that multiplies."""

    def product(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """K v."""
        ...


def check_tolerance(tolerance: float | None) -> None:
    """Refuse a tolerance that is not positive."""
    if tolerance is not None and not 0 < tolerance < np.inf:
        raise ValueError(f"tolerance is {tolerance}, but must be positive and finite.")


def basis_limit(n: int) -> int:
    """How many vectors a basis may have.

    Raises:
        ValueError: if the memory does not suffice for the least.
    """
    # Twice, because a basis that grows may have to be copied.
    each = 2 * 8 * n
    check_fits(f"A Krylov basis of {n} rows", each * LEAST, available_memory())
    return min(LARGEST, available_memory() // each)


def with_random_columns(b: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k_more"]:
    """b and beside it random columns, always the same."""
    more = max(COLUMNS - b.shape[1], SEEING)
    return np.concatenate([b, np.random.default_rng(0).standard_normal((len(b), more))], axis=1)


class Lanczos:
    """One Krylov basis for all columns of b.

    It is complete, and makes every function exact, when nothing is left to add; for b = 0 it is so at once.

    Attributes:
        depth: number of products taken.
        complete: whether the basis is invariant.
    """

    def __init__(self, k: Product, b: Float[np.ndarray, "n k"]) -> None:
        """The basis that b spans."""
        self._k, self.depth = k, 0
        norms = np.linalg.norm(b, axis=0)
        self._basis, self._t = np.empty((0, len(b))), np.empty((0, 0))
        self._size, self._before = 0, slice(0, 0)
        self._last, coordinates = self._remainder((b / np.where(norms > 0, norms, 1)).T, 1.0)
        self._coordinates = coordinates * norms
        self.complete = not len(self._last)
        self._append()

    @property
    def size(self) -> int:
        """Vectors in the basis, m."""
        return self._size

    @property
    def basis(self) -> Float[np.ndarray, "m n"]:
        """Q', its rows orthonormal."""
        return self._basis[: self._size]

    def deepen(self) -> None:
        """Multiply the last block, and add what is new in the product."""
        self.__dict__.pop("ritz", None)
        self.__dict__.pop("defect", None)
        product = np.ascontiguousarray(self._k.product(self._last.T).T)
        self.depth += 1
        last, before = slice(self._size - len(self._last), self._size), self._before
        along = product @ self._basis[before.start : last.stop].T
        self._t[last, before.start : last.stop] = along
        self._t[before.start : last.stop, last] = along.T
        scale = float(np.abs(self._t[: self._size, : self._size]).max())
        self._last, self._left = self._remainder(product - along @ self._basis[before.start : last.stop], scale)
        self._before = last
        self.complete = not len(self._last)
        self._append()

    def _remainder(self, rows: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Orthonormal rows N' (b, n) for these, which the recurrence has freed of the last two blocks: rows = R' N'."""
        q, r, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True, check_finite=False)
        rank = int(np.sum(np.abs(np.diag(r)) > 8 * np.finfo(float).eps * scale))
        rank = min(rank, rows.shape[1] - self._size)
        left = np.empty((rank, len(rows)))
        if not rank:
            return np.empty((0, rows.shape[1])), left
        q, r = q[:, :rank], r[:rank]
        # Once is enough, unless much of a row was along the basis.
        for _ in range(3 if self._size else 0):
            q, again = scipy.linalg.qr(self._freed(q.T).T, mode="economic", check_finite=False)
            r = again @ r
            if np.abs(np.diag(again)).min() > 0.7:
                break
        left[:, order] = r
        return np.ascontiguousarray(q.T), left

    def _freed(self, rows: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
        """What of the rows is orthogonal to the basis."""
        parts = tiles(rows.shape[1], -(-rows.shape[1] // PARTS))
        along = sum(in_threads(lambda part: rows[:, part] @ self.basis[:, part].T, parts))
        return np.concatenate(in_threads(lambda part: rows[:, part] - along @ self.basis[:, part], parts), axis=1)

    def _append(self) -> None:
        """Put the last block into the basis."""
        size = self._size + len(self._last)
        if size > len(self._basis):
            room = max(size, 2 * len(self._basis))
            # In place where the system can, so that the basis is not held twice.
            self._basis.resize((room, self._basis.shape[1]), refcheck=False)
            t = np.zeros((room, room))
            t[: self._size, : self._size] = self._t[: self._size, : self._size]
            self._t = t
        self._basis[self._size : size] = self._last
        self._size = size

    @property
    def multiplied(self) -> int:
        """Vectors of the basis whose products are known: all but the last block."""
        return self._size - len(self._last)

    @cached_property
    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (m,) in ascending order and eigenvectors (m, m) of T, after at least one product."""
        m = self.multiplied
        return scipy.linalg.eigh(self._t[:m, :m], driver="evd", check_finite=False)

    @property
    def weights(self) -> Float[np.ndarray, "m k"]:
        """The columns asked about along each Ritz vector."""
        return self.ritz[1][: len(self._coordinates)].T @ self._coordinates

    @cached_property
    def defect(self) -> Float[np.ndarray, "b m"]:
        """What the process leaves out of K times each Ritz vector, in coordinates of the next block."""
        return self._left @ self.ritz[1][self.multiplied - self._left.shape[1] :]

    def vectors(self) -> Float[np.ndarray, "n m"]:
        """The Ritz vectors: for functions of K on the columns asked about as good as all eigenvectors."""
        return self.basis[: self.multiplied].T @ self.ritz[1]


def largest_eigenvalue(k: SquareKernel | KernelOperator) -> float:
    """The largest eigenvalue of a kernel, to about 1e-12 of itself.

    An operator is asked for products with fixed random vectors, until the defect of the largest Ritz value is a
    millionth of it, which leaves far less than that where no other eigenvalue is near.
    """
    if not isinstance(k, KernelOperator):
        return largest_of_matrix(k)
    process = Lanczos(k, with_random_columns(np.zeros((k.n, 0))))
    with narrow_products():
        while True:
            process.deepen()
            largest = float(process.ritz[0][-1])
            if process.complete or np.linalg.norm(process.defect[:, -1]) <= 1e-6 * largest:
                return largest
