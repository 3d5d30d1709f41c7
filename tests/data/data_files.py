"""Small files in the formats of the real data sets."""

import gzip
from pathlib import Path

import numpy as np

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array):
    array = np.asarray(array, dtype=np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def cifar_bytes(images, labels):
    return np.column_stack([np.asarray(labels, np.uint8), np.asarray(images, np.uint8)]).tobytes()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def tiny_images(n, shape, seed):
    return np.random.default_rng(seed).integers(1, 256, size=(n, *shape), dtype=np.uint8)


class Tiny:
    """A data set in MNIST's format: 40 training and 20 test images of 4x3 pixels, labeled with the digits in turn."""

    def __init__(self, seed=0):
        self.x_train, self.y_train = tiny_images(40, (4, 3), seed), np.arange(40, dtype=np.uint8) % 10
        self.x_test, self.y_test = tiny_images(20, (4, 3), seed + 1), np.arange(20, dtype=np.uint8)[::-1] % 10

    @property
    def contents(self):
        arrays = (self.x_train, self.y_train, self.x_test, self.y_test)
        return dict(zip(IDX_NAMES, map(idx_bytes, arrays), strict=True))

    def save(self, folder, suffix="", rename=lambda name: name):
        for name, content in self.contents.items():
            write(Path(folder) / (rename(name) + suffix), content)
        return Path(folder)
