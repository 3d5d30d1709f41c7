"""Functions that parse the requested classes and encode class labels as targets."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lazynet.arrays import real_array

LABELS = range(10)  # labels that occur in every real data set
GROUPS = {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}

# Either a single string that specifies all classes, or an iterable with one entry per class. Each entry is a label, a
# group of labels, or a string that names a label or a group.
Classes = str | Iterable[int | np.integer | str | Iterable[int | np.integer]]


def _invalid_class(entry: object) -> ValueError:
    return ValueError(
        f"classes must be labels from 0 to 9, groups of labels, 'even' or 'odd', got {entry!r}. "
        "For example, pass (0, 1), ((0, 2), (1, 3)) or ('even', 'odd')."
    )


def _parse_label(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value not in LABELS:
        raise _invalid_class(value)
    return int(value)


def _parse_group(entry: object) -> tuple[int, ...]:
    if isinstance(entry, str):
        named = GROUPS.get(entry.strip())
        return named if named else tuple(_parse_label(part) for part in entry.split(","))
    if not isinstance(entry, Iterable):
        return (_parse_label(entry),)
    group = tuple(_parse_label(label) for label in _as_tuple(entry))
    if not group:
        raise _invalid_class(entry)
    return group


def _as_tuple(value: Iterable[object]) -> tuple[object, ...]:
    try:
        return tuple(value)
    except TypeError:
        # The value is not iterable, or it is a zero-dimensional array.
        raise _invalid_class(value) from None


def parse_classes(classes: Classes) -> tuple[tuple[int, ...], ...]:
    """Parse classes into groups of labels; each group counts as one class.

    Args:
        classes: At least two entries. Each is a label from 0 to 9, a group of labels, "even", "odd", or a string of
            labels such as "3" or "0,2". If `classes` is a single string, it is split on whitespace.

    Returns:
        A tuple of labels for each class, in the order given.

    Raises:
        ValueError: If there are fewer than two classes, an entry is invalid, or a label appears more than once.

    >>> parse_classes((0, 1))
    ((0,), (1,))
    >>> parse_classes(("even", "1,3"))
    ((0, 2, 4, 6, 8), (1, 3))
    """
    entries = _as_tuple(classes.split() if isinstance(classes, str) else classes)
    groups = tuple(_parse_group(entry) for entry in entries)
    if len(groups) < 2:
        raise ValueError(f"classes must name at least two classes, got {entries!r}.")
    labels = [label for group in groups for label in group]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ValueError(f"classes must not repeat a label, got label {repeated[0]} more than once in {entries!r}.")
    return groups


def class_indices(labels: np.ndarray, groups: tuple[tuple[int, ...], ...]) -> Int[np.ndarray, " n"]:
    """Return the index of each label's group as int64, shape (n,); labels that are not in any group get -1."""
    index_of_label = np.full(len(LABELS), -1)
    for index, group in enumerate(groups):
        index_of_label[list(group)] = index
    return index_of_label[labels]


def class_targets(indices: np.ndarray, count: int) -> Float[np.ndarray, "n *k"]:
    """Encode class indices from 0 to count - 1 as float64 targets.

    Two classes are encoded as +1 for the first and -1 for the second, with shape (n,). Three or more classes are
    encoded as one-hot rows minus 1/count, shape (n, count), so that each row sums to zero.

    >>> class_targets(np.array([0, 1, 1]), 2)
    array([ 1., -1., -1.])
    """
    if count == 2:
        return np.where(indices == 0, 1.0, -1.0)
    return np.eye(count)[indices] - 1 / count


def is_labels(y: ArrayLike) -> bool:
    """Return whether targets encode classes as +1 and -1, or as one-hot rows minus 1/k (to within 1e-6).

    Args:
        y: Targets, array-like of shape (n,) or (n, k) with any real dtype.

    Returns:
        True if all targets encode classes, and False for other values, other shapes, and empty arrays.

    >>> is_labels([1, -1, 1]), is_labels([0.5, -1, 1])
    (True, False)
    """
    y = real_array("y", y)
    if y.size == 0 or y.ndim not in (1, 2):
        return False
    if y.ndim == 1:
        return bool(np.isin(y, (-1, 1)).all())
    classes = y.shape[1]
    one_hot = np.eye(classes)[y.argmax(axis=1)] - 1 / classes
    return classes > 1 and bool((np.abs(y - one_hot) <= 1e-6).all())
