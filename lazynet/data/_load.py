"""A function that loads real data sets by name."""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lazynet.arguments import check_count
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._fetch import fetch_dataset
from lazynet.data._files import Files, base_folders, check_name, file_names, find_files
from lazynet.data._formats import check_labels, read_cifar10, read_idx
from lazynet.data._labels import Classes, class_indices, class_targets, parse_classes
from lazynet.programs import entry


class _LabeledImages(NamedTuple):
    """Labels of a data set, and a function that reads the images, to be called after the arguments are checked."""

    labels: np.ndarray
    read_images: Callable[[], np.ndarray]


@cache
def _digits() -> _LabeledImages:
    table = np.loadtxt(_digits_file(), delimiter=",")
    images = table[:, :-1]
    return _LabeledImages(table[:, -1].astype(int), lambda: images)


def _digits_file() -> Path:
    """Return the path of scikit-learn's digits without importing scikit-learn, which would take over a second."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise FileNotFoundError("The digits are bundled with scikit-learn, which was not found. Install scikit-learn.")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _idx(paths: tuple[Path, ...]) -> _LabeledImages:
    images_path, labels_path = paths
    labels = read_idx(labels_path, 1)
    check_labels(labels_path, labels)

    def read_images() -> np.ndarray:
        pixels = read_idx(images_path, 3)
        if len(pixels) != len(labels):
            raise ValueError(
                f"{images_path} has {len(pixels)} images, but {labels_path.name} has {len(labels)} labels. "
                "Download both files again."
            )
        return pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])

    return _LabeledImages(labels, read_images)


def _cifar10(paths: tuple[Path, ...]) -> _LabeledImages:
    images, labels = zip(*(read_cifar10(path) for path in paths), strict=True)
    return _LabeledImages(np.concatenate(labels), lambda: np.concatenate(images))


def _find_or_fetch(name: str, root: str | os.PathLike[str] | None) -> Files:
    files = find_files(name, root)
    if files is None and root is None and name != "cifar10":
        fetch_dataset(name)
        files = find_files(name)
    if files is not None:
        return files
    folders = " or ".join(f"{base / name} or {base}" for base in base_folders(root))
    way_out = (
        "set LAZYNET_DATA to the folder that contains them" if root is None else f"pass a root other than {str(root)!r}"
    )
    raise FileNotFoundError(f"{name} was not found. Place {file_names(name)} in {folders}, or {way_out}.")


def _rows_of_classes(name: str, labels: np.ndarray, groups: tuple[tuple[int, ...], ...]) -> np.ndarray:
    for label in (label for group in groups for label in group):
        if label not in labels:
            present = ", ".join(str(other) for other in np.unique(labels))
            raise ValueError(f"classes must be labels that occur in {name} ({present}), got {label}.")
    return np.flatnonzero(class_indices(labels, groups) >= 0)


def _first_rows(argument: str, rows: np.ndarray, count: int | None, source: str) -> np.ndarray:
    if count is not None and count > len(rows):
        raise ValueError(f"{argument} must be at most {len(rows)} for these classes in {source}, got {count}.")
    return rows[:count]


@entry
def load_dataset(
    name: str,
    classes: Classes = (0, 1),
    n_train: int | None = None,
    n_test: int | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load the first examples of the selected classes from a real data set, in file order.

    If `root` is given, only that folder is searched for the files. Otherwise, the function searches the folder named by
    the environment variable LAZYNET_DATA, the folder used by Debian packages, and the user's cache. MNIST and
    Fashion-MNIST are downloaded to the cache if none of these folders contains them.

    Args:
        name: "digits" (bundled with scikit-learn), "mnist", "fashion-mnist" or "cifar10".
        classes: Two or more labels from 0 to 9, or groups of labels that each count as one class; see `parse_classes`.
        n_train: Number of training examples, at least 1. Defaults to all training examples of the selected classes or,
            for digits, to the first 80% of the examples of these classes (rounded down).
        n_test: Number of test examples, at least 0. Defaults to all test examples of the selected classes. For digits,
            the test examples follow the training examples.
        root: Folder that contains either the files or a subfolder `name` with the files.

    Returns:
        A float64 `Dataset` whose inputs have unit norm and are not centered. Targets for two classes are +1 for the
        first and -1 for the second, shape (n,). Targets for k > 2 classes are one-hot rows minus 1/k, shape (n, k).

    Raises:
        ValueError: If an argument is invalid, there are fewer examples than requested, or a file is damaged.
        FileNotFoundError: If the files are missing and cannot be downloaded.

    >>> data = load_dataset("digits", classes=(0, 1), n_train=256, n_test=100)
    >>> data.x_train.shape, data.y_test[:4]
    ((256, 64), array([ 1.,  1., -1.,  1.]))
    """
    check_name(name)
    groups = parse_classes(classes)
    n_train = None if n_train is None else check_count("n_train", n_train, 1)
    n_test = None if n_test is None else check_count("n_test", n_test, 0)
    if name == "digits":
        train = test = _digits()
        rows = _rows_of_classes(name, train.labels, groups)
        train_rows = _first_rows("n_train", rows, len(rows) * 4 // 5 if n_train is None else n_train, name)
        test_rows = _first_rows(
            "n_test", rows[len(train_rows) :], n_test, f"the part of {name} that follows the training examples"
        )
    else:
        files = _find_or_fetch(name, root)
        read = _cifar10 if name == "cifar10" else _idx
        train, test = read(files.train), read(files.test)
        rows = _rows_of_classes(name, train.labels, groups)
        train_rows = _first_rows("n_train", rows, n_train, f"the training files of {name}")
        rows = np.flatnonzero(class_indices(test.labels, groups) >= 0)
        test_rows = _first_rows("n_test", rows, n_test, f"the test files of {name}")

    def inputs_and_targets(source: _LabeledImages, rows: np.ndarray, argument: str) -> tuple[np.ndarray, np.ndarray]:
        x = unit_rows(source.read_images()[rows], f"{argument} of {name}")
        return x, class_targets(class_indices(source.labels[rows], groups), len(groups))

    x_train, y_train = inputs_and_targets(train, train_rows, "x_train")
    x_test, y_test = inputs_and_targets(test, test_rows, "x_test")
    labels = [group[0] if len(group) == 1 else list(group) for group in groups]
    return Dataset(x_train, y_train, x_test, y_test, name=name, classes=labels)
