"""Real and synthetic data sets, their targets, label noise, and the files for the real data sets."""

from lazynet.data._catalog import DatasetRecord, list_datasets
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._fetch import fetch_dataset
from lazynet.data._files import DATASETS, cache_folder
from lazynet.data._labels import is_labels, parse_classes
from lazynet.data._load import load_dataset
from lazynet.data._mixtures import Separation, mixture, separation, xor
from lazynet.data._noise import label_noise
from lazynet.data._read import read_dataset
from lazynet.data._synthetic import gaussian_mixture, sphere

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetRecord",
    "Separation",
    "cache_folder",
    "fetch_dataset",
    "gaussian_mixture",
    "is_labels",
    "label_noise",
    "list_datasets",
    "load_dataset",
    "mixture",
    "parse_classes",
    "read_dataset",
    "separation",
    "sphere",
    "unit_rows",
    "xor",
]
