"""Validation of arguments common to all studies."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lazynet.dynamics import check_learning_rate
from lazynet.networks import Network, Scale, at_width
from lazynet.plan import MOST


def check_count(name: str, value: Any, most: int | None = None) -> None:
    """Check that an argument is a positive integer.

    Args:
        name: Name of the argument, used in the error message.
        value: Value to check.
        most: Maximum value, or None for no limit.

    Raises:
        ValueError: If the value is not a positive integer, or exceeds `most`. Booleans are not allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}.")


def check_flag(name: str, value: Any) -> None:
    """Raise an error unless the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def check_widths(widths: Sequence[int] | int, network: Network, learning_rate: Scale | None) -> tuple[int, ...]:
    """Check the widths and return them in ascending order.

    Args:
        widths: Widths, i.e. numbers of units m.
        network: Network, which is cloned at every width to check that it supports the width.
        learning_rate: Learning rate, as a number or a function of the width, or None for the default.

    Returns:
        The widths as Python integers in ascending order.

    Raises:
        ValueError: If there are no widths, if a width is repeated, or if the network or the learning rate does not
            support a width.
    """
    if isinstance(widths, int | np.integer):
        raise ValueError(f"widths must be a list of positive integers, got {widths}.")
    for width in widths:
        check_count("width", width)
    if not len(widths):
        raise ValueError("widths must contain at least one width, got an empty list.")
    ordered = tuple(sorted(int(width) for width in widths))
    repeated = [a for a, b in pairwise(ordered) if a == b]
    if repeated:
        raise ValueError(f"widths must be distinct, got {repeated[0]} more than once.")
    for width in ordered:
        network.clone(width=width)
        if learning_rate is not None:
            check_learning_rate(at_width(learning_rate, width))
    return ordered


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds 0, ..., seeds - 1 if `seeds` is a number, or the given seeds if `seeds` is a list.

    Args:
        seeds: Number of seeds, or the seeds themselves.

    Returns:
        The seeds as Python integers, in the given order.

    Raises:
        ValueError: If there are no seeds, or if a seed is negative or repeated.
    """
    if isinstance(seeds, int | np.integer):
        check_count("seeds", seeds, most=MOST)
        return tuple(range(seeds))
    chosen = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    valid = all(isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0 for seed in chosen)
    if not chosen or not valid or len(set(chosen)) < len(chosen) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds must be a positive integer or a list of distinct nonnegative integers, got {seeds}.")
    return tuple(map(int, chosen))
