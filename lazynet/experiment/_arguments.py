"""Validation of the arguments that all studies share."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from lazynet.arguments import check_count, check_instance, check_sequence, described
from lazynet.data import Dataset
from lazynet.networks import Network, Scale, check_network, check_scale, traits
from lazynet.plan import MOST
from lazynet.training import MOST_IN_KEY


def check_inputs(network: object, data: Any) -> Dataset:
    """Check that a network can be trained on a data set.

    Args:
        network: Network of any width.
        data: Training and test sets.

    Returns:
        The data as the network receives them: integer inputs are converted to float64 unless the network accepts
        integers.

    Raises:
        ValueError: If `data` is not a `lazynet.Dataset`, if `network` is not a network, or if the network's outputs for
            a row are not finite or depend on other rows. Errors raised by the network itself are passed on with a note.
    """
    check_instance("data", data, Dataset)
    check_network(network, data.x_train)
    if traits(network).integers or data.x_train.dtype == np.float64:
        return data
    return replace(data, x_train=data.x_train.astype(np.float64), x_test=data.x_test.astype(np.float64))


def check_widths(
    widths: Sequence[int] | int, network: Network, learning_rate: Scale | None, name: str = "widths"
) -> tuple[int, ...]:
    """Check the widths and return them in ascending order.

    Args:
        widths: Widths, i.e. numbers of units m.
        network: Network. It is cloned at every width to check that it can have that width.
        learning_rate: Learning rate, as a number or a function of the width, or None for the default.
        name: Name of the argument in error messages.

    Returns:
        The widths as Python integers in ascending order.

    Raises:
        ValueError: If there are no widths, if a width is not a positive integer or is repeated, or if the network or
            the learning rate is invalid at one of the widths.
    """
    widths = check_sequence(name, widths, "positive integers")
    for width in widths:
        check_count("width" if name == "widths" else f"each width in {name}", width)
    if not len(widths):
        raise ValueError(f"{name} must contain at least one width, got an empty list.")
    ordered = tuple(sorted(int(width) for width in widths))
    repeated = [a for a, b in pairwise(ordered) if a == b]
    if repeated:
        raise ValueError(f"{name} must be distinct, got {repeated[0]} more than once.")
    for width in ordered:
        try:
            network.clone(width=width)
        except ValueError as error:
            # Notes mark errors from a user's function, which must stay as they are.
            if name == "widths" or hasattr(error, "__notes__"):
                raise
            raise ValueError(f"each width in {name} must be a width of the network, got {width}: {error}") from error
        if learning_rate is not None:
            check_scale("learning_rate", learning_rate, width)
    return ordered


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds 0, ..., seeds - 1 if `seeds` is a number, or the given seeds if `seeds` is a list.

    Args:
        seeds: Number of seeds, or the seeds themselves.

    Returns:
        The seeds as Python integers, in the given order.

    Raises:
        ValueError: If there are no seeds, or if a seed is not an integer, is negative or too large, or is repeated.
    """
    if isinstance(seeds, int | np.integer):
        check_count("seeds", seeds, most=MOST)
        return tuple(range(seeds))
    allowed = f"a positive integer or a list of distinct integers from 0 to {MOST_IN_KEY}"
    one_axis = isinstance(seeds, list | tuple | range | np.ndarray) and getattr(seeds, "ndim", 1) == 1
    chosen = list(seeds) if one_axis else []
    valid = all(
        isinstance(seed, int | np.integer) and not isinstance(seed, bool) and 0 <= seed <= MOST_IN_KEY
        for seed in chosen
    )
    if not chosen or not valid or len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds must be {allowed}, got {described(seeds)}.")
    return tuple(map(int, chosen))
