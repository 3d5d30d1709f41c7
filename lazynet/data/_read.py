"""A function that reads a user's data set from a file."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lazynet.arguments import check_count, check_flag, check_instance, check_path
from lazynet.data._dataset import Dataset
from lazynet.data._labels import class_targets, is_labels
from lazynet.programs import entry

# Largest number of classes that a column of whole numbers may have; more values are probably meant for regression.
MOST_CLASSES = 100
# Rows whose norms differ by more than this factor are named in a warning.
UNEQUAL = 2.0

# The arrays x_train and y_train, and x_test and y_test or None.
Split = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]


@entry
def read_dataset(
    path: str | Path,
    *,
    target: str | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    split_seed: int = 0,
    standardize: bool = False,
) -> Dataset:
    """Read a data set from a CSV file with a header, or from the arrays in an .npz or .nc (netCDF) file.

    In a CSV file, one column is the target, and all others are inputs, which must be numbers. A target of text or whole
    numbers contains classes; the classes are sorted, and encoded as in `lazynet.load_dataset`, except that classes -1
    and 1 keep their values. Any other target is for regression. The test examples are drawn at random, and the training
    examples are the remaining rows, or `n_train` of them drawn at random, in the order of the file.

    An .npz or .nc file contains the arrays x_train and y_train, and optionally x_test and y_test, for which `n_train`
    and `n_test` select the first rows. If it has no test arrays, the test examples are drawn from the training arrays.

    Args:
        path: Path of the file, whose name ends with .csv, .npz or .nc.
        target: Name of the target's column in a CSV file. Defaults to the last column.
        n_train: Number of training examples, at least 1. Defaults to all.
        n_test: Number of test examples, at least 0. Defaults to a fifth of the rows (rounded down), or to all test
            examples in the file.
        split_seed: Seed for drawing the examples.
        standardize: Whether to shift and scale each input to mean 0 and variance 1/d on the training set, where d is
            the number of inputs that vary, so that rows have a root-mean-square norm of 1, and targets for regression
            to mean 0 and variance 1 for each output. Without this, nothing is scaled.

    Returns:
        A float64 `Dataset` with the name of the file.

    Raises:
        ValueError: If an argument is invalid, or if the file does not contain such data.
        FileNotFoundError: If there is no such file.

    Warns:
        UserWarning: If `standardize` is False and the mean of the targets for regression exceeds their standard
            deviation, or the norms of rows differ by more than a factor of 2.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "flowers.csv")
    ...     _ = file.write_text("length,width,kind\\n1,2,rose\\n2,1,tulip\\n2,2,rose\\n1,1,tulip\\n1,2,rose\\n")
    ...     data = read_dataset(file)
    >>> data.x_train.shape, data.classes
    ((4, 2), ['rose', 'tulip'])
    """
    file = check_path("path", path)
    n_train = None if n_train is None else check_count("n_train", n_train, 1)
    n_test = None if n_test is None else check_count("n_test", n_test, 0)
    seed = check_count("split_seed", split_seed, 0)
    check_flag("standardize", standardize)
    if target is not None:
        check_instance("target", target, str)
    if file.suffix not in (".csv", *READERS):
        raise ValueError(f"path must end with .csv, .npz or .nc, got {str(file)!r}.")
    if not file.is_file():
        raise FileNotFoundError(f"path must be a file, got {str(file)!r}.")
    classes: list[Any] | None = None
    if file.suffix == ".csv":
        x, y, classes = _table(file, target)
        split = _drawn(file, x, y, n_train, n_test, seed)
    else:
        if target is not None:
            raise ValueError(f"target must be None for a file of arrays, got {target!r}.")
        split = _arrays(file, n_train, n_test, seed)
    regression = classes is None and not is_labels(split[1])
    if standardize:
        split = _standardized(split, regression)
    # The arrays are checked before the warnings are given.
    data = Dataset(*split, name=file.stem, classes=classes)
    if not standardize:
        _warn(file, data, regression)
    return data


def _table(file: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, list[Any] | None]:
    """Return the inputs, the targets and the classes of a CSV file."""
    import pandas as pd

    try:
        table = pd.read_csv(file, skipinitialspace=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as CSV: {' '.join(str(error).split())}.") from error
    names = [str(name).strip() for name in table.columns]
    table.columns = names
    if all(name.lstrip("-").replace(".", "").isdecimal() for name in names):
        raise ValueError(f"{str(file)!r} must begin with a header, but all names in its first line are numbers.")
    if len(names) < 2 or table.empty:
        raise ValueError(f"{str(file)!r} must have a header, at least two columns and at least one row.")
    target = names[-1] if target is None else target
    if target not in names:
        raise ValueError(f"target must be one of {', '.join(names)}, got {target!r}.")
    for name in names:
        column = table[name]
        if name != target and not pd.api.types.is_numeric_dtype(column):
            raise ValueError(
                f"{str(file)!r} must have numbers in all columns except the target {target!r}, but the column {name!r} "
                f"contains {_first_text(column)!r}."
            )
        missing = np.flatnonzero(column.isna())
        if len(missing):
            raise ValueError(
                f"{str(file)!r} has no value in column {name!r} of data row {missing[0] + 1}. Fill or remove such rows."
            )
    x = table.drop(columns=target).to_numpy(np.float64)
    y, classes = _targets(file, target, table[target].to_numpy())
    return x, y, classes


def _first_text(column: Any) -> str:
    """Return the first value of a column that is no number."""
    import pandas as pd

    return str(column[pd.to_numeric(column, errors="coerce").isna()].iloc[0])


def _targets(file: Path, target: str, values: np.ndarray) -> tuple[np.ndarray, list[Any] | None]:
    """Return the targets and, if they are classes, the classes."""
    if values.dtype.kind == "f":
        return values, None
    classes, indices = np.unique(values.astype(str) if values.dtype.kind not in "iu" else values, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{str(file)!r} must have at least two classes in the column {target!r}, got {classes.tolist()[0]!r}."
        )
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"{str(file)!r} must have at most {MOST_CLASSES} classes in the column {target!r}, got {len(classes)}. For "
            "regression, write whole numbers with a decimal point."
        )
    if classes.tolist() == [-1, 1]:
        return values.astype(np.float64), [1, -1]
    return class_targets(indices, len(classes)), classes.tolist()


def _drawn(file: Path, x: np.ndarray, y: np.ndarray, n_train: int | None, n_test: int | None, seed: int) -> Split:
    """Draw test and training examples from rows; both are in the order of the rows."""
    rows = len(x)
    n_test = rows // 5 if n_test is None else n_test
    n_train = rows - n_test if n_train is None else n_train
    if n_train < 1 or n_train + n_test > rows:
        raise ValueError(
            f"n_train and n_test must be at most {rows} together, the number of rows of {str(file)!r}, got "
            f"{max(n_train, 0)} and {n_test}."
        )
    order = np.random.default_rng(seed).permutation(rows)
    test, train = np.sort(order[:n_test]), np.sort(order[n_test : n_test + n_train])
    return x[train], y[train], x[test], y[test]


def _npz(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _nc(file: Path) -> dict[str, np.ndarray]:
    import xarray as xr

    with xr.open_dataset(file, engine="h5netcdf") as arrays:
        return {str(name): array.values for name, array in arrays.variables.items()}


# Functions that read the arrays of a file, keyed by the end of its name.
READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {".npz": _npz, ".nc": _nc}


def _arrays(file: Path, n_train: int | None, n_test: int | None, seed: int) -> Split:
    """Return the arrays of an .npz or .nc file."""
    try:
        found = READERS[file.suffix](file)
    except Exception as error:
        raise ValueError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}.") from error
    for name in ("x_train", "y_train"):
        if name not in found:
            raise ValueError(f"{str(file)!r} must contain the array {name}, got {', '.join(sorted(found)) or 'none'}.")
    x, y = found["x_train"], found["y_train"]
    if "x_test" not in found and "y_test" not in found:
        if len(np.shape(x)) < 1 or len(np.shape(y)) < 1 or len(x) != len(y):
            raise ValueError(f"{str(file)!r} must have one target for each row, got shapes {x.shape} and {y.shape}.")
        return _drawn(file, x, y, n_train, n_test, seed)
    for name, count, rows in (("n_train", n_train, len(x)), ("n_test", n_test, len(found.get("x_test", ())))):
        if count is not None and count > rows:
            raise ValueError(f"{name} must be at most {rows} for {str(file)!r}, got {count}.")
    x_test, y_test = found.get("x_test"), found.get("y_test")
    return (
        x[:n_train],
        y[:n_train],
        None if x_test is None else x_test[:n_test],
        None if y_test is None else y_test[:n_test],
    )


def _standardized(split: Split, regression: bool) -> Split:
    """Shift and scale the inputs and, for regression, the targets, as on the training set."""
    x, y = (np.asarray(part, np.float64) for part in split[:2])
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # Rounding in the mean gives a constant input a tiny deviation.
    varies = deviation > 1e-12 * np.abs(mean)
    if not varies.any():
        raise ValueError("standardize must be False if no input varies on the training set, got True.")
    scale = np.where(varies, deviation, 1) * np.sqrt(varies.sum())
    center, spread = (y.mean(axis=0), y.std(axis=0)) if regression else (np.zeros(()), np.ones(()))
    # Constant targets are only shifted.
    spread = np.where(spread > 1e-12 * np.abs(center), spread, 1)

    def scaled(rows: np.ndarray | None, targets: np.ndarray | None) -> tuple[Any, Any]:
        if rows is None or targets is None:
            return rows, targets
        return np.where(varies, (rows - mean) / scale, 0), (targets - center) / spread

    return *scaled(x, y), *scaled(*split[2:])


def _warn(file: Path, data: Dataset, regression: bool) -> None:
    """Warn of data that need scaling."""
    # With several outputs, the one that is farthest from zero on average is named.
    mean, deviation = max(
        zip(np.ravel(data.y_train.mean(axis=0)), np.ravel(data.y_train.std(axis=0)), strict=True),
        key=lambda pair: abs(pair[0]) - pair[1],
    )
    if regression and abs(mean) > deviation:
        warnings.warn(
            f"The targets in {file.name} have the mean {mean:.3g} and the standard deviation {deviation:.3g}, so "
            "networks move far only to learn the mean. To shift and scale the data, use standardize=True.",
            stacklevel=3,
        )
    norms = np.linalg.norm(data.x_train, axis=1)
    if norms.max() > UNEQUAL * norms.min():
        warnings.warn(
            f"The rows in {file.name} have norms from {norms.min():.3g} to {norms.max():.3g}, and rows of large norm "
            "dominate the kernel. To shift and scale the data, use standardize=True.",
            stacklevel=3,
        )
