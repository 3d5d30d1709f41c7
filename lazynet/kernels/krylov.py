"""Functions of a kernel matrix from its products alone: the Lanczos process, deepened until the answer is good enough.

K V = V T + beta v e_m' with V (n, m) orthonormal, V e_1 along the vector asked about, and T tridiagonal (Golub and
Meurant 2010, chapter 4). f(K) b is then nearly |b| V f(T) e_1, for every f from one V. Every new vector is made
orthogonal to all before it, twice: kernels have eigenvalues over ten decades, and lose orthogonality at once.
"""

from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.kernels.spectrum import Spectrum


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


class Lanczos:
    """One Krylov basis for each column of b, all deepened by the same products.

    A column that is zero, or whose basis has become invariant, is complete and takes part in no further product.
    """

    def __init__(self, k: Product, b: Float[np.ndarray, "n k"]) -> None:
        """Bases of depth 0 for the columns of b."""
        self._k = k
        self.columns = [Column(vector) for vector in b.T]

    @property
    def depth(self) -> int:
        """The largest depth."""
        return max(column.depth for column in self.columns)

    @property
    def complete(self) -> bool:
        """Whether every basis is invariant, which makes every function exact."""
        return all(column.complete for column in self.columns)

    def deepen(self) -> None:
        """Add a vector to every basis that is not complete."""
        going = [column for column in self.columns if not column.complete]
        products = self._k.product(np.stack([column.last for column in going], axis=1))
        for column, product in zip(going, products.T, strict=True):
            column.add(product)


class Column:
    """The Krylov basis of one vector."""

    def __init__(self, b: Float[np.ndarray, " n"]) -> None:
        """An empty basis, with b as the next vector."""
        self.norm = float(np.linalg.norm(b))
        self.complete = self.norm == 0
        self.last = b if self.complete else b / self.norm
        self.depth = 0
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self._basis = np.empty((16, len(b)))

    @property
    def basis(self) -> Float[np.ndarray, "m n"]:
        """V', its rows orthonormal."""
        return self._basis[: self.depth]

    def add(self, product: Float[np.ndarray, " n"]) -> None:
        """Take K times the last vector."""
        if self.depth == len(self._basis):
            # In place where the system can, so that the basis is not held twice.
            self._basis.resize((2 * self.depth, len(product)), refcheck=False)
        self._basis[self.depth] = self.last
        self.depth += 1
        self.__dict__.pop("ritz", None)
        self.alpha.append(float(self.last @ product))
        rest = product
        for _ in range(2):
            rest = rest - self.basis.T @ (self.basis @ rest)
        norm = float(np.linalg.norm(rest))
        scale = max(np.abs(self.alpha).max(), *self.beta, 0.0)
        self.complete = self.depth == len(product) or norm <= 8 * np.finfo(float).eps * scale
        self.beta.append(0.0 if self.complete else norm)
        self.last = rest if self.complete else rest / norm

    @cached_property
    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (m,) and eigenvectors (m, m) of T; nothing for a vector that is zero."""
        if not self.depth:
            return np.zeros(0), np.zeros((0, 0))
        return scipy.linalg.eigh_tridiagonal(self.alpha, self.beta[:-1])

    @property
    def weights(self) -> np.ndarray:
        """The vector asked about along each Ritz vector, (m,)."""
        return self.norm * self.ritz[1][0] if self.depth else np.zeros(0)

    @property
    def defect(self) -> np.ndarray:
        """What the process leaves out of K times each Ritz vector, (m,): beta e_m' q_i."""
        return self.beta[-1] * self.ritz[1][-1]

    def spectrum(self) -> Spectrum:
        """The Ritz values (m,) and vectors (n, m): for functions of K on this vector as good as all of them."""
        return Spectrum(self.ritz[0], self.basis.T @ self.ritz[1])


def largest_eigenvalue_of(k: Product, n: int, accuracy: float = 1e-6) -> float:
    """The largest eigenvalue of a kernel known by its products, from a fixed random vector.

    Deepened until the defect of the largest Ritz value is `accuracy` times it, which leaves far less than that where no
    other eigenvalue is near.
    """
    process = Lanczos(k, np.random.default_rng(0).standard_normal((n, 1)))
    (column,) = process.columns
    while True:
        process.deepen()
        if column.complete or abs(column.defect[-1]) <= accuracy * column.ritz[0][-1]:
            return float(column.ritz[0][-1])
