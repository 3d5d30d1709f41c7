"""The infinite-width kernels of a sweep, computed when they are asked for, and the default learning rates."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from lazynet.data import Dataset
from lazynet.experiment._grid import Point
from lazynet.experiment._reference import (
    Limit,
    largest_empirical_eigenvalue,
    limit_of,
    warn_of_learning_rate,
    warn_of_singular_kernel,
)
from lazynet.kernels import analytic_kernel, largest_eigenvalue, limit_key
from lazynet.networks import at_width, traits
from lazynet.training._keys import member_key, start_key

# Bytes of kernels that are kept for the points and widths that come later.
KEPT = 2**30


class Limits:
    """The limit kernel of each point and width: one and the same where it depends on neither."""

    def __init__(self) -> None:
        """Without any kernel yet."""
        self._found: dict[tuple, Limit | None] = {}
        self._warned: set[str] = set()

    def at(self, point: Point, width: int) -> Limit | None:
        """The kernel of infinite width, None for a family that has none, and where nothing is compared with it."""
        if not point.training.compare:
            return None
        network, data = point.network.clone(width=width), point.data
        key = (limit_key(network), data.n_train)
        if key not in self._found:
            while sum(limit.nbytes for limit in self._found.values() if limit is not None) > KEPT:
                self._found.pop(next(iter(self._found)))
            limit = self._found[key] = limit_of(network, data)
            if limit is not None and "singular" not in self._warned and limit.why_singular is not None:
                self._warned.add("singular")
                warn_of_singular_kernel(limit)
        return self._found[key]

    def rates(self, point: Point, widths: Sequence[int]) -> dict[int, float]:
        """The learning rate at each width: as given, or one default for all, from the largest width.

        Where learning rates go as a power of the width by the parametrization, defaults do.
        """
        if point.learning_rate is not None:
            return {width: at_width(point.learning_rate, width) for width in widths}

        def stable(width: int) -> float:
            network, limit = point.network.clone(width=width), self.at(point, width)
            lambda_max = None if limit is None else limit.lambda_max
            return default_learning_rate(network, point.data, member_key(width, 0), lambda_max)

        known = traits(point.network)
        power = known.learning_rate_exponent
        if power is None:
            return dict.fromkeys(widths, stable(widths[-1]))
        # As the parametrization asks, and as large as none of the widths forbids.
        scale = point.network.output_scale if "output_scale" in known.fields else 1.0
        falls = {width: width**-power / at_width(scale, width) ** 2 for width in widths}
        factor = min(stable(width) / falls[width] for width in widths)
        return {width: factor * falls[width] for width in widths}

    def check_rate(self, point: Point, width: int, rate: float) -> None:
        """Warn, once in a sweep, of a learning rate at which descent on the kernel diverges."""
        limit = self.at(point, width) if point.training.plain else None
        if limit is not None and rate > 2 / limit.lambda_max and "rate" not in self._warned:
            self._warned.add("rate")
            warn_of_learning_rate(limit, width, rate)


def default_learning_rate(network: Any, data: Dataset, key: Array, lambda_max: float | None = None) -> float:
    """1 / lambda_max of the analytic kernel, known or not, or of the empirical one where there is none."""
    kernel = analytic_kernel(network)
    if lambda_max is None and kernel is not None:
        lambda_max = largest_eigenvalue(kernel(data.x_train))
    if lambda_max is None:
        variables = dict(network.init(start_key(key), jnp.asarray(data.x_train, "float32")))
        lambda_max = largest_empirical_eigenvalue(network, variables, data)
    if not 0 < lambda_max < float("inf"):
        raise ValueError(
            f"learning_rate is left out, but the largest eigenvalue of the kernel is {lambda_max:g} at width "
            f"{network.width}, so that there is no default; give one, or another start."
        )
    return 1 / lambda_max
