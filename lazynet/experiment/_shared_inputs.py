"""The inputs and the stepper that members share, regardless of their width, learning rate and labels."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lazynet.data import Dataset
from lazynet.experiment._training import Training
from lazynet.kernels import narrow_products
from lazynet.networks import Network, traits
from lazynet.training import Stepper, choose_stepper, row_space


class SharedInputs(NamedTuple):
    """The inputs that members share.

    Attributes:
        stepper: The stepper of the network family.
        arrays: Arrays that the stepper needs, in float64 on the host. They include "span", an orthonormal basis of the
            space spanned by all rows, shape (d, r), if networks receive each input as r coordinates in this basis. The
            components of the weights orthogonal to this space affect no output, and training does not change them.
        norm: The spectral norm ||X||_2 of the training inputs, or NaN if no bound needs it.
    """

    stepper: Stepper
    arrays: dict[str, np.ndarray]
    norm: float

    def seen(self, data: Dataset) -> Dataset:
        """Return the data, with the inputs in the form that the networks receive.

        If `arrays` contains "span", the inputs become coordinates in this basis; otherwise, they do not change.
        """
        if "span" not in self.arrays:
            return data
        span = self.arrays["span"]
        return replace(data, x_train=data.x_train @ span, x_test=data.x_test @ span)


def share_inputs(network: Network, data: Dataset, training: Training, *, by_span: bool = True) -> SharedInputs:
    """Return the inputs that all members of a network family share.

    Args:
        network: A network of the family, of any width.
        data: Training and test sets.
        training: Settings used to train and measure the members.
        by_span: Whether networks with one hidden layer may receive the inputs as coordinates in a basis of the span of
            all rows. Such coordinates are used only if there are fewer rows than features, and only for plain gradient
            descent, which moves weights only within the span of the inputs. They are not used if there are
            user-supplied measurement functions, because these receive all features.

    Returns:
        The stepper, its arrays and the norm of the training inputs.

    Raises:
        ValueError: If the optimizer specifies a stepper that does not support the network or the training settings.
    """
    arrays: dict[str, np.ndarray] = {}
    x, own = data.x_train, bool(training.own_measures)
    with narrow_products(data.n_train):
        norm = float(np.linalg.norm(x, 2)) if training.plain and training.measure.predictions else np.nan
        fewer_rows = data.n_train + data.n_test < data.dim
        if by_span and traits(network).hidden_layer is not None and training.plain and not own and fewer_rows:
            arrays["span"] = row_space(np.concatenate([x, data.x_test]))
            x = x @ arrays["span"]
        stepper = choose_stepper(network, training.loss, training.optimizer, training.batch_size, x)
        return SharedInputs(stepper, arrays | stepper.share(x), norm)
