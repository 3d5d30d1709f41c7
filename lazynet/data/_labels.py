"""Labels: which classes are asked for, and the targets that stand for them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

LABELS = range(10)  # every real data set here has the labels 0..9
GROUPS = {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}


def _invalid(entry: Any) -> ValueError:
    return ValueError(
        f"classes must hold labels from 0 to 9, groups of them, 'even' or 'odd', got {entry!r}: write for example "
        "(0, 1), ((0, 2), (1, 3)) or ('even', 'odd')"
    )


def _label(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value not in LABELS:
        raise _invalid(value)
    return int(value)


def _entries(value: Any) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise _invalid(value) from None


def _group(entry: Any) -> tuple[int, ...]:
    if isinstance(entry, str):
        named = GROUPS.get(entry.strip())
        return named if named else tuple(_label(part) for part in entry.split(","))
    if not isinstance(entry, Iterable):
        return (_label(entry),)
    group = tuple(_label(label) for label in _entries(entry))
    if not group:
        raise _invalid(entry)
    return group


def parse_classes(classes: Any) -> tuple[tuple[int, ...], ...]:
    """Return the classes as groups of labels: a group counts as one class.

    Args:
        classes: at least two entries, each a label from 0 to 9, a group of labels, "even", "odd", or a string of
            labels such as "3" or "0,2"; one string is split at its spaces.

    Returns:
        One tuple of labels for each class, in the order given.

    Raises:
        ValueError: fewer than two classes, a label outside 0..9, or a label that appears twice.

    >>> parse_classes((0, 1))
    ((0,), (1,))
    >>> parse_classes(("even", "1,3"))
    ((0, 2, 4, 6, 8), (1, 3))
    """
    if isinstance(classes, str):
        classes = classes.split()
    classes = _entries(classes)
    groups = tuple(_group(entry) for entry in classes)
    if len(groups) < 2:
        raise ValueError(f"classes must name at least two classes, got {classes!r}: add another label")
    labels = [label for group in groups for label in group]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"classes must name each label once, got {twice[0]} twice in {classes!r}: leave one out")
    return groups


def class_indices(labels: np.ndarray, groups: tuple[tuple[int, ...], ...]) -> Int[np.ndarray, " n"]:
    """Return the position of each label's group in `groups`, (n,) int64, and -1 for a label in none of them."""
    position = np.full(len(LABELS), -1)
    for index, group in enumerate(groups):
        position[list(group)] = index
    return position[labels]


def class_targets(indices: np.ndarray, count: int) -> Float[np.ndarray, "n *k"]:
    """Return the float64 targets of class `indices` in 0..count-1.

    Two classes: +1 for the first and -1 for the second, (n,). More: one-hot minus 1/count, (n, count), so that
    the targets of a row sum to zero.

    >>> class_targets(np.array([0, 1, 1]), 2)
    array([ 1., -1., -1.])
    """
    if count == 2:
        return np.where(indices == 0, 1.0, -1.0)
    return np.eye(count)[indices] - 1 / count


def is_labels(y: Any) -> bool:
    """Tell whether targets stand for classes: +1 and -1, or rows of one-hot minus 1/k (to 1e-6).

    Args:
        y: array-like, (n,) or (n, k), any real dtype.

    Returns:
        False for any other values, any other shape, and no rows at all.

    >>> is_labels([1, -1, 1]), is_labels([0.5, -1, 1])
    (True, False)
    """
    y = np.asarray(y)
    if y.size == 0 or y.ndim not in (1, 2):
        return False
    if y.ndim == 1:
        return bool(np.isin(y, (-1, 1)).all())
    classes = y.shape[1]
    one_hot = np.eye(classes)[y.argmax(axis=1)] - 1 / classes
    return classes > 1 and bool((np.abs(y - one_hot) <= 1e-6).all())
