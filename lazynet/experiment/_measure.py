"""What is measured for each network, and on which examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lazynet.arguments import check_count, check_flag
from lazynet.measures import reserved_names
from lazynet.typing import AnyArray

# Names and functions of user-supplied quantities, in hashable form. The functions have the signature
# (network, variables, variables_0, data) -> array.
OwnMeasures = tuple[tuple[str, Callable[..., Any]], ...]


@dataclass(frozen=True)
class Measure:
    """What to measure for each network, and which predictions to compare it with.

    Args:
        predictions: Whether to compare each network with its linearization and with the infinite-width limit. If no
            predictions are made, only `kernel_drift` and `regression` need arrays of size n_train x n_train.
            `lazynet.train` never makes predictions.
        kernel_drift: Whether to measure the empirical kernel at every snapshot.
        sharpness: Whether to measure the largest eigenvalue of the empirical kernel of all outputs, and
            learning_rate_over_stability_limit, the learning rate divided by 2 / sharpness. Plain gradient descent on
            the squared loss is stable if this ratio is below 1.
        quadratic: Whether to also train the second-order Taylor polynomial of each network at initialization, which
            gives quadratic_gap_train and quadratic_gap_test. This takes about four times as long as training the
            network.
        forecast: Whether to also forecast measurements from the initial weights alone, as `lazynet.forecast` does, for
            comparison. Requires plain full-batch gradient descent on the squared loss.
        regression: Whether to measure the test errors of kernel regression with the kernel of each network, both before
            and after training, and with the infinite-width kernel. The targets must be labels.
        rows: Number of training examples on which to measure networks, or None for all of them. If a number is given,
            only the first `rows` examples are used, and quantities such as train_loss refer to these examples only. In
            a sweep, this option requires `predictions=False`.
        own: User-supplied quantities, as a mapping from names to functions with the signature
            (network, variables, variables_0, data) -> array. JAX must be able to trace the functions. Each function
            receives the network, its current and initial variables, and the examples, whose attributes x_train,
            y_train, x_test and y_test are traced arrays.

    Raises:
        ValueError: If an argument is invalid.

    >>> import jax.numpy as jnp, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> largest = lambda network, variables, variables_0, data: jnp.max(network.apply(variables, data.x_train))
    >>> measure = lz.Measure(predictions=False, own={"largest_output": largest})
    >>> lz.sweep(lz.TwoLayer(width=16), data, [16, 32], seeds=2, steps=10, measure=measure).largest_output.dims
    ('width', 'seed', 'step')
    """

    predictions: bool = True
    kernel_drift: bool = True
    sharpness: bool = False
    quadratic: bool = False
    forecast: bool = False
    regression: bool = False
    rows: int | None = None
    own: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the arguments."""
        for name in ("predictions", "kernel_drift", "sharpness", "quadratic", "forecast", "regression"):
            check_flag(f"measure.{name}", getattr(self, name))
        if self.rows is not None:
            check_count("measure.rows", self.rows)
        if not isinstance(self.own, Mapping) or not all(map(callable, self.own.values())):
            raise ValueError(f"measure.own must map names to functions, got {self.own!r}.")
        reserved = reserved_names()
        for name in self.own:
            if not (isinstance(name, str) and name.isidentifier()) or name in reserved:
                raise ValueError(f"each name in measure.own must be an identifier that is not reserved, got {name!r}.")
        for name in ("quadratic", "forecast"):
            if getattr(self, name) and not self.predictions:
                raise ValueError(f"measure.{name} must be False if measure.predictions is False, got True.")

    def __hash__(self) -> int:
        """Return a hash that is the same for equal objects."""
        return hash((self.predictions, self.rows, *self.own))

    @property
    def own_items(self) -> tuple[tuple[str, Callable[..., Any]], ...]:
        """The user-supplied quantities, in hashable form."""
        return tuple(self.own.items())


class Examples(NamedTuple):
    """The training examples on which networks are measured, and the test examples, as traced arrays."""

    x_train: AnyArray
    y_train: AnyArray
    x_test: AnyArray
    y_test: AnyArray


def examples(shared: dict[str, Any], rows: int | None = None) -> Examples:
    """Return the first `rows` training examples (all if `rows` is None) and all test examples, as `Examples`."""
    return Examples(shared["x"][:rows], shared["y"][:rows], shared["x_test"], shared["y_test"])
