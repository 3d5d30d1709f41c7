"""The data set that every other room takes: training and test rows with their targets."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from lazynet.data._checks import check_rows, check_targets


# Field-wise equality of arrays is itself an array, so two data sets are equal only when they are the same object.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, as float64 NumPy arrays that are checked when the data set is made.

    Anything array-like is taken. Rows are kept as they are, not rescaled: `unit_rows` does that. Arrays that are
    float64 already are not copied.

    Args:
        x_train: training rows, (n, d), n at least 1, finite, without a zero row.
        y_train: training targets, (n,) or (n, k) with k of at least 2, finite.
        x_test: test rows, (n_test, d); None for no test rows, then of shape (0, d).
        y_test: test targets, (n_test,) or (n_test, k); None together with x_test.
        name: what the data set is called in results.
        classes: the labels behind the targets, a number or a list of them for each class, where there are any.

    Raises:
        ValueError: an array is not as above; the sentence names the argument.

    >>> import numpy as np
    >>> data = Dataset(np.eye(3), [1, -1, 1])
    >>> data.n_train, data.n_test, data.dim, data.outputs
    (3, 0, 3, 1)
    """

    # Anything array-like comes in; once made, these are float64 NumPy arrays.
    x_train: Any
    y_train: Any
    # None is replaced by arrays without rows before anyone can read it.
    x_test: Any = None
    y_test: Any = None
    name: str = "custom"
    classes: list[int | list[int]] | None = None

    def __post_init__(self) -> None:
        """Convert to float64 and check."""
        x_train = check_rows("x_train", self.x_train)
        if len(x_train) == 0:
            raise ValueError("x_train must have at least one row, got none")
        y_train = check_targets("y_train", self.y_train, len(x_train))
        if (self.x_test is None) != (self.y_test is None):
            given, missing = ("y_test", "x_test") if self.x_test is None else ("x_test", "y_test")
            raise ValueError(f"{missing} must be given together with {given}, got None: give both or neither")
        x_test, y_test = np.zeros((0, x_train.shape[1])), np.zeros((0, *y_train.shape[1:]))
        if self.x_test is not None:
            x_test = check_rows("x_test", self.x_test)
            y_test = check_targets("y_test", self.y_test, len(x_test))
        if x_test.shape[1] != x_train.shape[1]:
            raise ValueError(f"x_test must have the {x_train.shape[1]} columns of x_train, got {x_test.shape[1]}")
        if y_test.shape[1:] != y_train.shape[1:]:
            raise ValueError(f"y_test must be shaped like y_train, {y_train.shape}, but for n, got {y_test.shape}")
        for field, array in {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}.items():
            object.__setattr__(self, field, array)

    @property
    def n_train(self) -> int:
        """Number of training rows."""
        return len(self.x_train)

    @property
    def n_test(self) -> int:
        """Number of test rows, which may be 0."""
        return len(self.x_test)

    @property
    def dim(self) -> int:
        """Number of features of a row."""
        return self.x_train.shape[1]

    @property
    def outputs(self) -> int:
        """Number of targets of a row: 1 when y has one dimension."""
        return 1 if self.y_train.ndim == 1 else self.y_train.shape[1]

    def in_span(self) -> "Dataset":
        """The same examples in an orthonormal basis of the space that all rows span, in float64.

        Inner products stay as they are, and with them kernels and the distribution of networks whose weights are drawn
        from N(0, kappa^2 I); a network draws and trains fewer weights where there are fewer rows than features.

        >>> import numpy as np
        >>> data = Dataset(np.eye(2, 1000), [1, -1])
        >>> data.in_span().dim
        2
        """
        rows = np.concatenate([self.x_train, self.x_test])
        seen = rows @ scipy.linalg.orth(rows.T)
        return replace(self, x_train=seen[: self.n_train], x_test=seen[self.n_train :])


def unit_rows(x: Any, name: str = "x") -> Float[np.ndarray, "n d"]:
    """Return the rows of `x` scaled to Euclidean norm 1, without centring.

    Args:
        x: array-like, (n, d), any real dtype.
        name: what an error calls the array.

    Returns:
        A new float64 array, (n, d).

    Raises:
        ValueError: `x` is not a finite two-dimensional array, or one of its rows is zero.

    >>> unit_rows([[3, 4], [0, 2]])
    array([[0.6, 0.8],
           [0. , 1. ]])
    """
    x = check_rows(name, x)
    # A power of two, which rounds nothing, keeps the squares of very large or small rows in range.
    largest = np.maximum(x.max(axis=1, initial=0), -x.min(axis=1, initial=0))
    scaled = np.ldexp(x, -np.frexp(largest)[1][:, None])
    scaled /= np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    return scaled
