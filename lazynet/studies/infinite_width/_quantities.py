"""The quantities in a result of `lazynet.infinite_width`."""

from lazynet.measures import Quantity, catalog
from lazynet.measures._catalog import add

BOTH = ("labels", "step")

add(
    "infinite_width",
    catalog()["step"],
    Quantity("labels", "kind of training labels: true or random", "", dims=("labels",), coordinate=True),
    Quantity(
        "train_loss",
        "loss of the infinite-width prediction on the training set",
        "loss",
        dims=BOTH,
        source="Lee et al. 2019, section 2.2",
    ),
    Quantity("train_error", "fraction of misclassified training examples", dims=BOTH),
    Quantity(
        "test_loss",
        "loss of the infinite-width prediction on the test set",
        "loss",
        dims=("step",),
        source="Lee et al. 2019, section 2.2",
    ),
    Quantity("test_error", "fraction of misclassified test examples", dims=("step",)),
    Quantity(
        "complexity",
        "sqrt(2 y' K^-1 y / n)",
        "targets",
        dims=("labels",),
        source="Arora et al. 2019, equation (10)",
    ),
    Quantity("lambda_max", "largest eigenvalue of K on the training set", dims=()),
)
