"""The inputs that members of all widths, learning rates and labels share, and their stepper."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lazynet.data import Dataset
from lazynet.experiment._training import Training
from lazynet.kernels import narrow_products
from lazynet.measures import registered
from lazynet.networks import Network, traits
from lazynet.training import Stepper, choose_stepper, row_space


class SharedInputs(NamedTuple):
    """The inputs that members share.

    Attributes:
        stepper: the stepper of the family.
        arrays: arrays that the stepper needs, in float64 on the host. "span" (d, r) is among them if networks see the
            inputs in the r coordinates of the space that all rows span: with fewer rows than features no other part of
            the weights is seen or moves.
        norm: ||X||_2 of the training inputs, NaN if no bound needs it.
    """

    stepper: Stepper
    arrays: dict[str, np.ndarray]
    norm: float

    def seen(self, data: Dataset) -> Dataset:
        """Return the data in the coordinates that networks see."""
        if "span" not in self.arrays:
            return data
        span = self.arrays["span"]
        return replace(data, x_train=data.x_train @ span, x_test=data.x_test @ span)


def share_inputs(network: Network, data: Dataset, training: Training, *, by_span: bool = True) -> SharedInputs:
    """Return the inputs that members of a family share.

    Args:
        network: the family.
        data: the data.
        training: how members are trained. Only plain descent moves weights along the inputs alone, and measures of
            one's own see all features.
        by_span: whether networks may see the inputs in the coordinates of their span.
    """
    arrays: dict[str, np.ndarray] = {}
    x, own = data.x_train, bool(training.measure.own or registered())
    with narrow_products(data.n_train):
        norm = float(np.linalg.norm(x, 2)) if training.plain and training.measure.predictions else np.nan
        fewer_rows = data.n_train + data.n_test < data.dim
        if by_span and traits(network).hidden_layer is not None and training.plain and not own and fewer_rows:
            arrays["span"] = row_space(np.concatenate([x, data.x_test]))
            x = x @ arrays["span"]
        stepper = choose_stepper(network, training.loss, training.optimizer, training.batch_size, x)
        return SharedInputs(stepper, arrays | stepper.share(x), norm)
