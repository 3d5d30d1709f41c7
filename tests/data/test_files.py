"""Files of real data sets are found under several locations and names, and damaged files are refused."""

import hashlib
import re

import numpy as np
import pytest
from data_files import IDX_NAMES, Tiny, cifar_bytes, idx_bytes, tiny_images, write

from lazynet.data import _files as files
from lazynet.data import list_datasets, load_dataset

ALL = range(10)


def assert_is(data, tiny):
    """Assert that the data are all rows of the small data set, in file order and scaled to unit norm."""
    pixels = tiny.x_train.reshape(40, 12).astype(float)
    np.testing.assert_allclose(data.x_train, pixels / np.linalg.norm(pixels, axis=1, keepdims=True), rtol=1e-14)
    np.testing.assert_array_equal(data.y_train.argmax(axis=1), tiny.y_train)
    pixels = tiny.x_test.reshape(20, 12).astype(float)
    np.testing.assert_allclose(data.x_test, pixels / np.linalg.norm(pixels, axis=1, keepdims=True), rtol=1e-14)
    np.testing.assert_array_equal(data.y_test.argmax(axis=1), tiny.y_test)


@pytest.mark.parametrize("below", ["", "mnist"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("rename", [str, lambda name: name.replace("-idx", ".idx")], ids=["dashed", "dotted"])
def test_every_name_of_the_idx_files(bare_machine, tiny, below, suffix, rename):
    tiny.save(bare_machine / "here" / below, suffix, rename)
    assert_is(load_dataset("mnist", ALL, root=bare_machine / "here"), tiny)


def test_search_order_of_the_folders(bare_machine, monkeypatch):
    root, environment, debian, cache = (bare_machine / place for place in ("root", "env", "debian", "cache/lazynet"))
    monkeypatch.setenv("LAZYNET_DATA", str(environment))
    for seed, place in enumerate((cache, debian, environment, root)):
        tiny = Tiny(seed)
        tiny.save(place / "fashion-mnist")
        argument = root if place == root else None
        assert_is(load_dataset("fashion-mnist", ALL, root=argument), tiny)
        (record,) = (record for record in list_datasets() if record.name == "fashion-mnist")
        assert record.available
        assert record.path == (environment if place == root else place) / "fashion-mnist"


def test_incomplete_folders_are_skipped(bare_machine, monkeypatch, tiny):
    monkeypatch.setenv("LAZYNET_DATA", str(Tiny(5).save(bare_machine / "partial")))
    (bare_machine / "partial" / IDX_NAMES[3]).unlink()
    tiny.save(bare_machine / "debian" / "mnist")
    assert_is(load_dataset("mnist", ALL), tiny)


def test_root_excludes_all_other_folders(bare_machine, tiny):
    tiny.save(bare_machine / "debian" / "mnist")
    with pytest.raises(FileNotFoundError, match="mnist was not found") as caught:
        load_dataset("mnist", root=bare_machine / "empty")
    assert f"pass a root other than '{bare_machine / 'empty'}'" in str(caught.value)
    assert "debian" not in str(caught.value)


def test_files_of_one_set_are_not_taken_for_the_other(bare_machine, monkeypatch, tiny):
    tiny.save(bare_machine / "here")
    checksums = tuple(hashlib.sha256(content).hexdigest() for content in tiny.contents.values())
    monkeypatch.setitem(files.CHECKSUMS, "fashion-mnist", checksums)
    assert_is(load_dataset("fashion-mnist", ALL, root=bare_machine / "here"), tiny)
    with pytest.raises(FileNotFoundError, match="ubyte for mnist"):
        load_dataset("mnist", root=bare_machine / "here")


def cifar(folder, names, seed=0):
    """Write 10 examples with labels 0..9 to each file and return their pixels."""
    pixels = []
    for number, name in enumerate(names):
        pixels.append(tiny_images(10, (3072,), seed + number))
        write(folder / name, cifar_bytes(pixels[-1], np.arange(10)))
    return np.concatenate(pixels).astype(float)


BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]


@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
@pytest.mark.parametrize(
    ("train", "test"), [(BATCHES, "test_batch.bin"), (["train.bin"], "test.bin"), (["train.bin.gz"], "test.bin.gz")]
)
def test_every_name_of_the_cifar_files(bare_machine, below, train, test):
    pixels = cifar(bare_machine / below, train)
    test_pixels = cifar(bare_machine / below, [test], seed=50)
    data = load_dataset("cifar10", (8, 3), root=bare_machine)
    rows = np.flatnonzero(np.isin(np.arange(len(pixels)) % 10, (3, 8)))
    expected = pixels[rows] / np.linalg.norm(pixels[rows], axis=1, keepdims=True)
    np.testing.assert_allclose(data.x_train, expected, rtol=1e-14)
    np.testing.assert_array_equal(data.y_train, np.where(rows % 10 == 8, 1, -1))
    np.testing.assert_allclose(data.x_test * np.linalg.norm(test_pixels[[3, 8]], axis=1)[:, None], test_pixels[[3, 8]])


def test_cifar_is_not_fetched(bare_machine, monkeypatch):
    monkeypatch.setattr("lazynet.data._load.fetch_dataset", lambda name: pytest.fail("fetched"))
    with pytest.raises(
        FileNotFoundError, match=r"^cifar10 was not found\. Place data_batch_1\.bin to .*set LAZYNET_DATA .*\.$"
    ) as caught:
        load_dataset("cifar10")
    assert str(bare_machine / "debian" / "cifar10") in str(caught.value)
    assert str(bare_machine / "cache" / "lazynet" / "cifar10") in str(caught.value)


def test_list_without_any_files(bare_machine):
    records = {record.name: record for record in list_datasets()}
    assert [name for name, record in records.items() if record.available] == ["digits"]
    assert all(record.path is None for record in records.values())
    assert "bundled with scikit-learn" in records["digits"].description
    assert "28x28" in records["mnist"].description


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IDX_NAMES[0], idx_bytes(np.ones((39, 4, 3))), "has 39 images, but train-labels-idx1-ubyte has 40 labels."),
        (IDX_NAMES[2], idx_bytes(np.ones((21, 4, 3))), "has 21 images"),
        (IDX_NAMES[1], idx_bytes(np.arange(40) % 11), "has the label 10 at index 10"),
        (IDX_NAMES[3], idx_bytes(np.full(20, 255)), "has the label 255 at index 0"),
        (IDX_NAMES[1], idx_bytes(np.ones((40, 1))), "starts with 00000802"),
        (IDX_NAMES[0], idx_bytes(np.ones(480)), "starts with 00000801"),
        (IDX_NAMES[0], idx_bytes(np.ones((40, 4, 3)))[:-1], "is 495 bytes long"),
    ],
    ids=["train count", "test count", "train label", "test label", "label magic", "image magic", "cut short"],
)
def test_a_damaged_file_is_refused_by_name(bare_machine, tiny, name, content, message):
    write(tiny.save(bare_machine / "mnist") / name, content)
    with pytest.raises(ValueError, match=re.escape(f"{bare_machine / 'mnist' / name} {message}")):
        load_dataset("mnist", root=bare_machine)


def test_a_black_image_is_refused(bare_machine, tiny):
    tiny.x_train[11] = 0  # the fourth example of classes 0 and 1
    tiny.save(bare_machine)
    with pytest.raises(ValueError, match="x_train of mnist must have no zero rows, got only zeros in row 3"):
        load_dataset("mnist", (0, 1), root=bare_machine)
    assert load_dataset("mnist", (0, 1), n_train=3, root=bare_machine).n_train == 3
