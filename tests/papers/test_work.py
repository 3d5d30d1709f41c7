"""What a reproduction keeps."""

from pathlib import Path

import numpy as np
import pytest

import lazynet as lz
from lazynet.papers import work
from lazynet.papers.work import Work

CALLS: list[int] = []


def computed():
    CALLS.append(1)
    return {"a": np.arange(3.0), "b": np.array(2)}


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def test_without_a_folder_everything_is_computed():
    told = []
    kept = Work("paper", "tiny", tell=told.append)
    for _ in range(2):
        np.testing.assert_array_equal(kept.arrays("part", computed)["a"], [0, 1, 2])
    assert (len(CALLS), told) == (2, ["1. part", "2. part"])


def test_a_part_is_computed_once(tmp_path):
    Work("paper", "tiny", tmp_path).arrays("part", computed)
    found = Work("paper", "tiny", tmp_path).arrays("part", computed)
    assert len(CALLS) == 1
    assert {name: value.tolist() for name, value in found.items()} == {"a": [0, 1, 2], "b": 2}


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: content[:90] + b"?" + content[91:]])
def test_a_damaged_part_is_computed_again(tmp_path, damage):
    Work("paper", "tiny", tmp_path).arrays("part", computed)
    file = tmp_path / "parts" / "part.npz"
    file.write_bytes(damage(file.read_bytes()))
    kept = Work("paper", "tiny", tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(kept.arrays("part", computed)["a"], [0, 1, 2])
    assert len(CALLS) == 2


def test_sweeps_are_kept_by_cell(tmp_path):
    data = lz.load_dataset("digits", n_train=8, n_test=4)
    results = [Work("paper", "tiny", tmp_path).sweep("part", lz.TwoLayer(width=2), data, [8], 2, 5) for _ in range(2)]
    assert results[0].drop_attrs().identical(results[1].drop_attrs())
    assert len(list((tmp_path / "parts" / "part" / "cells").iterdir())) == 1


def test_another_reproduction_is_refused(tmp_path):
    begun = Work("paper", "tiny", tmp_path / "run")
    # A reproduction that finds no data leaves nothing behind.
    assert not (tmp_path / "run").exists()
    begun.arrays("part", computed)
    Work("paper", "tiny", tmp_path / "run")
    with pytest.raises(ValueError, match="name a new folder"):
        Work("paper", "small", tmp_path / "run")


def test_arrays_of_another_code_are_refused(tmp_path, monkeypatch):
    Work("paper", "tiny", tmp_path).arrays("part", computed)
    source = Path(work.__file__).parent / "claims.py"
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read(file) + b"#" if file == source else read(file))
    with pytest.raises(ValueError, match="name a new folder"):
        Work("paper", "tiny", tmp_path)
