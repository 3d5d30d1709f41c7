"""Catalog of the real data sets."""

from pathlib import Path
from typing import NamedTuple

from lazynet.data._files import DATASETS, find_files

DESCRIPTIONS = {
    "digits": "1,797 grayscale 8x8 images of digits, bundled with scikit-learn",
    "mnist": "60,000 + 10,000 grayscale 28x28 images of digits, fetched on first use",
    "fashion-mnist": "60,000 + 10,000 grayscale 28x28 images of clothing, fetched on first use",
    "cifar10": "50,000 + 10,000 color 32x32 images, read from a folder",
}


class DatasetRecord(NamedTuple):
    """Description of a real-world data set.

    Attributes:
        name: Name that `load_dataset` accepts.
        available: Whether the data set can be loaded without downloading anything.
        path: Folder that contains the files, or None for "digits" and for data sets whose files are missing.
        description: Size and source of the data set.
    """

    name: str
    available: bool
    path: Path | None
    description: str


def list_datasets() -> list[DatasetRecord]:
    """List the real data sets, without loading or downloading any of them.

    Returns:
        A `DatasetRecord` for each data set, with its name, availability, folder and description.

    >>> [record.name for record in list_datasets()]
    ['digits', 'mnist', 'fashion-mnist', 'cifar10']
    """
    records = []
    for name in DATASETS:
        files = None if name == "digits" else find_files(name)
        available = name == "digits" or files is not None
        records.append(DatasetRecord(name, available, files.folder if files else None, DESCRIPTIONS[name]))
    return records
