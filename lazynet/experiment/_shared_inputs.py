"""What members of every width, learning rate and label share: how they step, and their inputs."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lazynet.data import Dataset
from lazynet.experiment._spec import Training
from lazynet.kernels._threads import narrow_products
from lazynet.networks import traits
from lazynet.training import choose_stepper, row_space


class Prepared(NamedTuple):
    """How members step, what they share of the inputs (float64, on the host), and ||X||_2.

    `arrays` has "span" (d, r) where networks see inputs in the r coordinates of the space that all of them span: with
    fewer inputs than features nothing else of a start is ever seen, and nothing else moves.
    """

    stepper: Any
    arrays: dict[str, np.ndarray]
    norm: float

    def seen(self, data: Dataset) -> Dataset:
        """The data as networks see it."""
        if "span" not in self.arrays:
            return data
        span = self.arrays["span"]
        return replace(data, x_train=data.x_train @ span, x_test=data.x_test @ span)


def prepare(network: Any, data: Dataset, training: Training, *, by_span: bool = True) -> Prepared:
    """The stepper that trains this family on these inputs.

    Args:
        network: the family.
        data: its inputs are looked at.
        training: how it is trained. Plain descent alone moves along inputs, and a user's measures see all features.
        by_span: whether networks may see inputs in the space that they span.
    """
    arrays: dict[str, np.ndarray] = {}
    x = data.x_train
    with narrow_products(data.n_train):
        # Only a bound on plain descent asks for it.
        norm = float(np.linalg.norm(x, 2)) if training.plain and training.compare else np.nan
        if (
            by_span
            and traits(network).hidden_layer is not None
            and training.plain
            and not training.measures
            and data.n_train + data.n_test < data.dim
        ):
            arrays["span"] = row_space(np.concatenate([x, data.x_test]))
            x = x @ arrays["span"]
        stepper = choose_stepper(
            network, training.loss, training.optimizer, training.batch_size, x, stepper=training.stepper
        )
        return Prepared(stepper, arrays | stepper.share(x), norm)
