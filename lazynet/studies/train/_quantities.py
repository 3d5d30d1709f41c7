"""Quantities found in the snapshots of `lazynet.train` but not in the result of a sweep."""

from lazynet.measures import Quantity
from lazynet.measures._catalog import add

add(
    "train",
    Quantity("train_example", "number of the training example", dims=("train_example",), coordinate=True),
    Quantity("test_example", "number of the test example", dims=("test_example",), coordinate=True),
    Quantity("output", "number of the output", dims=("output",), coordinate=True),
    Quantity("train_prediction", "outputs on the training set", "targets", dims=("step", "train_example", "output")),
    Quantity("test_prediction", "outputs on the test set", "targets", dims=("step", "test_example", "output")),
)
