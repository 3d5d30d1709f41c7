"""Data: real and synthetic sets, targets, label noise, and the files they are read from."""

from lazynet.data.catalogue import list_datasets
from lazynet.data.dataset import Dataset, unit_rows
from lazynet.data.fetch import fetch_dataset
from lazynet.data.files import DATASETS
from lazynet.data.labels import is_labels, parse_classes
from lazynet.data.load import load_dataset
from lazynet.data.mixtures import Separation, mixture, separation, xor
from lazynet.data.noise import label_noise
from lazynet.data.synthetic import gaussian_mixture, sphere

__all__ = [
    "DATASETS",
    "Dataset",
    "Separation",
    "fetch_dataset",
    "gaussian_mixture",
    "is_labels",
    "label_noise",
    "list_datasets",
    "load_dataset",
    "mixture",
    "parse_classes",
    "separation",
    "sphere",
    "unit_rows",
    "xor",
]
