"""The `Dataset` class, and a function that scales rows to unit norm."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num
from numpy.typing import ArrayLike

from lazynet.data._checks import check_rows, check_targets
from lazynet.display import displayed


# With eq=False, data sets are compared by identity. A comparison by value would fail, because comparing two arrays
# gives an array of booleans.
@displayed
@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Training and test examples, stored as NumPy arrays.

    Inputs are checked but not rescaled; use `unit_rows` to scale rows to unit norm. Arrays are stored as float64,
    and float64 arrays are not copied. However, inputs are stored as int32 if all input arrays contain integers, such as
    token ids. User-supplied networks receive these inputs as integers; lazynet's own networks convert them to
    floating-point numbers.

    Args:
        x_train: Training inputs, a finite array-like of shape (n, d) with n >= 1. Integers outside the range of int32
            are converted to float64.
        y_train: Training targets, a finite array-like of shape (n,) or (n, k) with k >= 2.
        x_test: Test inputs, shape (n_test, d). If None, there are no test examples.
        y_test: Test targets, shape (n_test,) or (n_test, k). Required if and only if `x_test` is given.
        name: Name of the data set in results.
        classes: Original label or name of each class (a list of labels if the class is a group), or None if there are
            no original labels.

    Raises:
        ValueError: If an array has the wrong shape or contains a non-finite value, or if only one of `x_test` and
            `y_test` is given.

    >>> import numpy as np
    >>> data = Dataset(np.eye(3), [1, -1, 1])
    >>> data.n_train, data.n_test, data.dim, data.outputs
    (3, 0, 3, 1)
    """

    x_train: Num[np.ndarray, "n d"]
    y_train: Float[np.ndarray, " n"] | Float[np.ndarray, "n k"]
    x_test: Num[np.ndarray, "n_test d"]
    y_test: Float[np.ndarray, " n_test"] | Float[np.ndarray, "n_test k"]
    name: str
    classes: list[int | list[int]] | list[str] | None

    def __init__(
        self,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        name: str = "custom",
        classes: list[int | list[int]] | list[str] | None = None,
    ) -> None:
        """Convert the arrays and check them."""
        x = check_rows("x_train", x_train)
        if len(x) == 0:
            raise ValueError(f"x_train must have at least one row, got shape {x.shape}.")
        y = check_targets("y_train", y_train, len(x))
        if (x_test is None) != (y_test is None):
            passed, missing = ("y_test", "x_test") if x_test is None else ("x_test", "y_test")
            raise ValueError(f"{missing} must be given together with {passed}, got None. Pass both or neither.")
        rows, targets = np.zeros((0, x.shape[1]), x.dtype), np.zeros((0, *y.shape[1:]))
        if x_test is not None:
            rows = check_rows("x_test", x_test)
            targets = check_targets("y_test", y_test, len(rows))
        if x.dtype != rows.dtype:
            x, rows = x.astype(np.float64, copy=False), rows.astype(np.float64, copy=False)
        if rows.shape[1] != x.shape[1]:
            raise ValueError(f"x_test must have {x.shape[1]} columns to match x_train, got {rows.shape[1]}.")
        if targets.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"y_test must have as many outputs as y_train (shape {y.shape}), got shape {targets.shape}."
            )
        fields = {"x_train": x, "y_train": y, "x_test": rows, "y_test": targets, "name": name, "classes": classes}
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    @property
    def n_train(self) -> int:
        """Number of training examples."""
        return len(self.x_train)

    @property
    def n_test(self) -> int:
        """Number of test examples, possibly 0."""
        return len(self.x_test)

    @property
    def dim(self) -> int:
        """Number of input features."""
        return self.x_train.shape[1]

    @property
    def outputs(self) -> int:
        """Number of targets per example, which is 1 if `y_train` has one dimension."""
        return 1 if self.y_train.ndim == 1 else self.y_train.shape[1]

    def in_span(self) -> "Dataset":
        """Return the data set with inputs expressed in an orthonormal basis of the span of all inputs.

        This preserves inner products, kernels, and the distribution of networks whose weights are drawn from
        N(0, kappa^2 I). If there are fewer examples than features, the new inputs have fewer features, so networks
        need fewer weights.

        Returns:
            A `Dataset` whose `dim` is the rank of the training and test inputs combined.

        >>> import numpy as np
        >>> data = Dataset(np.eye(2, 1000), [1, -1])
        >>> data.in_span().dim
        2
        """
        rows = np.concatenate([self.x_train, self.x_test])
        coordinates = rows @ scipy.linalg.orth(rows.T)
        return replace(self, x_train=coordinates[: self.n_train], x_test=coordinates[self.n_train :])


def unit_rows(x: ArrayLike, name: str = "x") -> Float[np.ndarray, "n d"]:
    """Scale rows to unit Euclidean norm, without centering them.

    Args:
        x: Rows, array-like of shape (n, d) with any real dtype.
        name: Name of the array in error messages.

    Returns:
        A new float64 array of shape (n, d).

    Raises:
        ValueError: If `x` is not a finite two-dimensional array, or if one of its rows is zero.

    >>> unit_rows([[3, 4], [0, 2]])
    array([[0.6, 0.8],
           [0. , 1. ]])
    """
    rows = check_rows(name, x).astype(np.float64, copy=False)
    zero_rows = np.flatnonzero(~rows.any(axis=1))
    if zero_rows.size:
        raise ValueError(f"{name} must have no zero rows, got only zeros in row {zero_rows[0]}.")
    # Scaling by a power of two is exact and keeps the squares of very large or very small entries in range.
    largest = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
    scaled = np.ldexp(rows, -np.frexp(largest)[1][:, None])
    scaled /= np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    return scaled
