"""What real data sets there are, and which are on this machine."""

from pathlib import Path
from typing import NamedTuple

from lazynet.data._files import DATASETS, find_files

DESCRIPTIONS = {
    "digits": "1,797 gray 8x8 images of digits, bundled with scikit-learn",
    "mnist": "60,000 + 10,000 gray 28x28 images of digits, fetched on first use",
    "fashion-mnist": "60,000 + 10,000 gray 28x28 images of clothes, fetched on first use",
    "cifar10": "50,000 + 10,000 color 32x32 images, read from a folder",
}


class DatasetRecord(NamedTuple):
    """One real data set: its name, whether it can be read now, the folder of its files (if any), what it is."""

    name: str
    available: bool
    path: Path | None
    description: str


def list_datasets() -> list[DatasetRecord]:
    """Return a record of each real data set: name, available, path, description; nothing is read or fetched.

    >>> [record.name for record in list_datasets()]
    ['digits', 'mnist', 'fashion-mnist', 'cifar10']
    """
    records = []
    for name in DATASETS:
        files = None if name == "digits" else find_files(name)
        available = name == "digits" or files is not None
        records.append(DatasetRecord(name, available, files.folder if files else None, DESCRIPTIONS[name]))
    return records
