"""Real data sets, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazynet.data._checks import check_count
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._fetch import fetch_dataset
from lazynet.data._files import Files, base_folders, check_name, file_names, find_files
from lazynet.data._formats import check_labels, read_cifar10, read_idx
from lazynet.data._labels import class_indices, class_targets, parse_classes


class _Part(NamedTuple):
    """Labels, and the images on request: arguments are checked against the labels before images are read."""

    labels: np.ndarray
    images: Callable[[], np.ndarray]


def _digits() -> _Part:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _Part(labels, lambda: images)


def _idx(paths: tuple[Path, ...]) -> _Part:
    images_path, labels_path = paths
    labels = read_idx(labels_path, 1)
    check_labels(labels_path, labels)

    def images() -> np.ndarray:
        pixels = read_idx(images_path, 3)
        if len(pixels) != len(labels):
            raise ValueError(
                f"{images_path} must have an image for each of the {len(labels)} labels of {labels_path.name}, but it "
                f"has {len(pixels)} images"
            )
        return pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])

    return _Part(labels, images)


def _cifar10(paths: tuple[Path, ...]) -> _Part:
    images, labels = zip(*(read_cifar10(path) for path in paths), strict=True)
    return _Part(np.concatenate(labels), lambda: np.concatenate(images))


def _files(name: str, root: Any) -> Files:
    found = find_files(name, root)
    if found:
        return found
    if root is None and name != "cifar10":
        fetch_dataset(name)
        found = find_files(name)
        if found:
            return found
    folders = " or ".join(f"{base / name} or {base}" for base in base_folders(root))
    way_out = "name their folder in LAZYNET_DATA" if root is None else f"give another root than {str(root)!r}"
    raise FileNotFoundError(f"{name} was not found: put {file_names(name)} in {folders}, or {way_out}")


def _rows(name: str, labels: np.ndarray, groups: tuple[tuple[int, ...], ...]) -> np.ndarray:
    for label in (label for group in groups for label in group):
        if label not in labels:
            present = ", ".join(str(other) for other in np.unique(labels))
            raise ValueError(
                f"classes must have examples in {name}, got {label}, which has none: choose from {present}"
            )
    return np.flatnonzero(class_indices(labels, groups) >= 0)


def _first(argument: str, rows: np.ndarray, count: int | None, source: str) -> np.ndarray:
    if count is not None and count > len(rows):
        raise ValueError(
            f"{argument} must be at most {len(rows)}, the examples of those classes in {source}, got {count}: ask for "
            "fewer or name more classes"
        )
    return rows[:count]


def load_dataset(
    name: str, classes: Any = (0, 1), n_train: Any = None, n_test: Any = None, root: Any = None
) -> Dataset:
    """Return the first examples of some classes of a real data set, in the order of its files.

    Files are looked for in `root` alone when it is given; else in the folder that LAZYNET_DATA names, where Debian's
    packages put them, then in the user's cache, into which MNIST and Fashion-MNIST are fetched when they are nowhere.

    Args:
        name: "digits" (comes with scikit-learn, needs no files and no root), "mnist", "fashion-mnist" or "cifar10".
        classes: two or more labels from 0 to 9, or groups that count as one class; see `parse_classes`.
        n_train: number of training rows, at least 1; None for all, of digits for the first 80% (rounded down).
        n_test: number of test rows, at least 0; None for all. Those of digits come after its training rows.
        root: the folder with the files, or with a folder `name` that has them.

    Returns:
        A `Dataset` in float64: rows of unit norm, not centered; targets +1 for the first and -1 for the second of
        two classes, (n,), and one-hot minus 1/k, (n, k), for k > 2 classes.

    Raises:
        ValueError: an argument that is not as above, more examples than there are, or a damaged file.
        FileNotFoundError: the files are nowhere and cannot be fetched; the sentence says where to put them.

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
        rows = _rows(name, train.labels, groups)
        train_rows = _first("n_train", rows, len(rows) * 4 // 5 if n_train is None else n_train, name)
        test_rows = _first("n_test", rows[len(train_rows) :], n_test, f"{name} after the training rows")
    else:
        files = _files(name, root)
        read = _cifar10 if name == "cifar10" else _idx
        train, test = read(files.train), read(files.test)
        train_rows = _first("n_train", _rows(name, train.labels, groups), n_train, f"the training files of {name}")
        in_test = np.flatnonzero(class_indices(test.labels, groups) >= 0)
        test_rows = _first("n_test", in_test, n_test, f"the test files of {name}")

    def part(source: _Part, rows: np.ndarray, argument: str) -> tuple[np.ndarray, np.ndarray]:
        x = unit_rows(source.images()[rows], f"{argument} of {name}")
        return x, class_targets(class_indices(source.labels[rows], groups), len(groups))

    x_train, y_train = part(train, train_rows, "x_train")
    x_test, y_test = part(test, test_rows, "x_test")
    labels = [group[0] if len(group) == 1 else list(group) for group in groups]
    return Dataset(x_train, y_train, x_test, y_test, name=name, classes=labels)
