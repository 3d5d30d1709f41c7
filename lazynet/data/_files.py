"""File names, checksums and locations of the real data sets."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from lazynet.arguments import described
from lazynet.data._formats import read_bytes

# Names of the image data sets that `load_dataset` reads.
DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Sizes of the uncompressed files in bytes, in the order of IDX_FILES.
SIZES = (47_040_016, 60_008, 7_840_016, 10_008)
# SHA-256 checksums of the uncompressed files, in the order of IDX_FILES. The compressed files are not checked, because
# they differ between mirrors.
CHECKSUMS = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
DEBIAN = Path("/usr/share/datasets")  # the Debian package dataset-fashion-mnist installs its files here


class Files(NamedTuple):
    """Files of a data set: images and labels in IDX format, or one or more CIFAR-10 batches."""

    folder: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]


def check_name(name: str, allowed: tuple[str, ...] = DATASETS, hint: str = "") -> None:
    """Check the name of a data set.

    Raises:
        ValueError: If `name` is not among the `allowed` names; `hint` is appended to the message.
    """
    if not isinstance(name, str) or name not in allowed:
        names = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
        raise ValueError(f"name must be {names}, got {described(name)}.{hint}")


def cache_folder() -> Path:
    """Return lazynet's folder in the user's cache.

    Returns:
        The path of the folder, which need not exist.

    >>> cache_folder().name
    'lazynet'
    """
    import pooch

    return Path(pooch.os_cache("lazynet"))


def base_folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders to search, in order, or only `root` if it is given."""
    if root is not None:
        return [Path(root).expanduser()]
    environment = os.environ.get("LAZYNET_DATA")
    first = [Path(environment).expanduser()] if environment else []
    return [*first, DEBIAN, cache_folder()]


def file_names(name: str) -> str:
    """Return the file names of a data set as a phrase for error messages."""
    if name == "cifar10":
        return "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or train.bin and test.bin (plain or gzipped)"
    return ", ".join(IDX_FILES) + f" for {name} (plain or gzipped)"


def _existing_files(folder: Path, names: list[str]) -> tuple[Path, ...]:
    """Return the paths of the named files, plain or gzipped, or an empty tuple if any file is missing."""
    paths = []
    for name in names:
        variants = [name, name + ".gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"]
        present = [folder / variant for variant in variants if (folder / variant).is_file()]
        if not present:
            return ()
        paths.append(present[0])
    return tuple(paths)


def _belongs_to_other_dataset(name: str, test_labels: Path) -> bool:
    """Return whether the test labels are from another data set; MNIST and Fashion-MNIST use the same file names."""
    try:
        digest = hashlib.sha256(read_bytes(test_labels)).hexdigest()
    except ValueError:
        return False  # a damaged file is reported when it is loaded
    return any(digest == checksums[3] for other, checksums in CHECKSUMS.items() if other != name)


def _files_in_folder(name: str, folder: Path) -> Files | None:
    if name == "cifar10":
        batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
        for location in (folder, folder / "cifar-10-batches-bin"):
            for train_names, test_name in ((batches, "test_batch.bin"), (["train.bin"], "test.bin")):
                train, test = _existing_files(location, train_names), _existing_files(location, [test_name])
                if train and test:
                    return Files(location, train, test)
        return None
    paths = _existing_files(folder, list(IDX_FILES))
    if not paths or _belongs_to_other_dataset(name, paths[3]):
        return None
    return Files(folder, paths[:2], paths[2:])


def find_files(name: str, root: str | os.PathLike[str] | None = None) -> Files | None:
    """Return the files for "mnist", "fashion-mnist" or "cifar10", or None if they are missing.

    In each base folder, the subfolder `name` is searched first, then the folder itself. The first folder that
    contains all of the data set's files is used.
    """
    for base in base_folders(root):
        for folder in (base / name, base):
            files = _files_in_folder(name, folder)
            if files:
                return files
    return None
