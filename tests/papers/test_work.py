"""Test that the parts of a reproduction are stored, resumed, and refused for another reproduction."""

import json
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet import cli
from lazynet.execution import Store
from lazynet.measures import SCHEMA
from lazynet.papers import Reproduction, arora2019
from lazynet.papers.work import REPRODUCTION, Work


class Computed:
    """A function that returns arrays and counts how often it is called."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return {"a": np.arange(3.0), "b": np.array(2), "c": np.ones((2, 3), np.float32)}


def assert_computed(arrays):
    expected = Computed()()
    assert set(arrays) == set(expected)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype


def test_without_a_folder_everything_is_computed():
    reported, compute = [], Computed()
    work = Work("paper", "tiny", report=reported.append)
    for _ in range(2):
        assert_computed(work.arrays("part", compute))
    assert (compute.count, reported) == (2, ["1. part", "2. part"])


def test_a_stored_part_is_computed_once(tmp_path):
    compute = Computed()
    for _ in range(2):
        assert_computed(Work("paper", "tiny", tmp_path).arrays("part", compute))
    assert compute.count == 1
    with xr.open_dataset(tmp_path / "parts" / "part" / "result.nc", engine="h5netcdf") as stored:
        assert (stored.attrs["kind"], stored.attrs["schema"]) == ("arrays", SCHEMA)


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: content[:90] + b"?" + content[91:]])
def test_a_damaged_part_is_computed_again(tmp_path, damage):
    compute = Computed()
    Work("paper", "tiny", tmp_path).arrays("part", compute)
    (file,) = tmp_path.glob("parts/part/cells/*.npz")
    file.write_bytes(damage(file.read_bytes()))
    work = Work("paper", "tiny", tmp_path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert_computed(work.arrays("part", compute))
    assert_computed(work.arrays("part", compute))
    assert compute.count == 2


@pytest.mark.slow
def test_sweeps_are_stored_by_cell(tmp_path):
    data = lz.load_dataset("digits", n_train=8, n_test=4)
    results = [Work("paper", "tiny", tmp_path).sweep("part", lz.TwoLayer(width=2), data, [8], 2, 5) for _ in range(2)]
    assert results[0].drop_attrs().identical(results[1].drop_attrs())
    assert len(list((tmp_path / "parts" / "part" / "cells").iterdir())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lazynet.papers.work import Work

work = Work("paper", "tiny", Path(sys.argv[1]))
work.arrays("first", lambda: {"a": np.arange(3.0)})
work.arrays("second", lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.slow
def test_a_killed_reproduction_resumes(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, timeout=120)
    assert done.returncode == -9
    work, first, second = Work("paper", "tiny", tmp_path), Computed(), Computed()
    np.testing.assert_array_equal(work.arrays("first", first)["a"], np.arange(3.0))
    assert_computed(work.arrays("second", second))
    assert (first.count, second.count) == (0, 1)


def test_another_size_is_refused(tmp_path):
    work = Work("paper", "tiny", tmp_path / "run")
    # A reproduction that has stored no data leaves no folder behind.
    assert not (tmp_path / "run").exists()
    work.arrays("part", Computed())
    Work("paper", "tiny", tmp_path / "run")
    with pytest.raises(ValueError, match="size = 'tiny' instead of 'small'"):
        Work("paper", "small", tmp_path / "run")


def test_arrays_of_another_code_are_refused(tmp_path):
    Work("paper", "tiny", tmp_path / "run").arrays("part", Computed())
    request = Store(tmp_path / "run").content["request"] | {"code": "another"}
    (tmp_path / "other").mkdir()
    Store(tmp_path / "other", REPRODUCTION, json.dumps(request)).begin({}, [])
    with pytest.raises(ValueError, match="code = 'another'"):
        Work("paper", "tiny", tmp_path / "other")


def test_each_combination_of_values_is_stored_by_itself(tmp_path):
    computed = []

    def compute(width, kind):
        computed.append((width, kind))
        if (width, kind) == (4, "random"):
            raise KeyboardInterrupt
        return {"product": np.arange(3.0) * width, "kind": np.array(len(kind))}

    axes = {"width": [2, 4], "kind": ["true", "random"]}
    with pytest.raises(KeyboardInterrupt):
        Work("paper", "tiny", tmp_path).arrays("part", compute, **axes)
    assert computed == [(2, "true"), (2, "random"), (4, "true"), (4, "random")]
    computed.clear()

    def resumed(width, kind):
        computed.append((width, kind))
        return {"product": np.arange(3.0) * width, "kind": np.array(len(kind))}

    arrays = Work("paper", "tiny", tmp_path).arrays("part", resumed, **axes)
    assert computed == [(4, "random")]
    np.testing.assert_array_equal(arrays["product"], np.arange(3.0) * np.array([2, 4])[:, None, None] * np.ones((2, 1)))
    np.testing.assert_array_equal(arrays["kind"], [[4, 6], [4, 6]])


def test_a_reproduction_that_runs_out_of_time_is_resumed(tmp_path, capsys, monkeypatch):
    computed, out = [], tmp_path / "run"

    def compute(name):
        if name == "second" and computed == ["first"]:
            computed.append("interrupt")
            raise KeyboardInterrupt
        computed.append(name)
        return {"a": np.ones(3)}

    def reproduce(size, work):
        for name in ("first", "second"):
            work.arrays(name, lambda name=name: compute(name))
        return Reproduction()

    monkeypatch.setattr(arora2019, "reproduce", reproduce)
    command = ["reproduce", "arora2019", "--size", "tiny", "--resume", "--out", str(out)]
    assert cli.main([*command, "--max-seconds", "1e-9"]) == 3
    message = f"stored in {out} (use --resume to continue the run)"
    assert capsys.readouterr().err.splitlines()[-1] == f"lazynet: out of time; 0 parts are {message}"
    assert cli.main(command) == 130
    # A stored part is read even if no time is left.
    assert cli.main([*command, "--max-seconds", "1e-9"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"lazynet: out of time; 1 part is {message}"
    assert not (out / "summary.json").exists()
    assert cli.main([*command, "--max-seconds", "1000"]) == 0
    assert computed == ["first", "interrupt", "second"]
    assert (out / "summary.json").exists()
    assert cli.main(["reproduce", "arora2019", "--max-seconds", "5"]) == 2
    assert "--out must be a folder if --max-seconds is given" in capsys.readouterr().err


def test_a_reproduction_keeps_others_away(tmp_path, capsys, monkeypatch):
    codes = []

    def meanwhile(size, work):
        work.arrays("part", lambda: {"a": np.ones(3)})
        if not codes:
            codes.append(cli.main([*command, "--resume"]))
        return Reproduction()

    monkeypatch.setattr(arora2019, "reproduce", meanwhile)
    command = ["reproduce", "arora2019", "--size", "tiny", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    assert codes == [2]
    assert "lazynet: Another process (process " in capsys.readouterr().err
    # A download that times out must not be reported as reaching the time limit.
    monkeypatch.setattr(arora2019, "reproduce", Mock(side_effect=TimeoutError("timed out")))
    assert cli.main([*command, "--resume", "--max-seconds", "100"]) == 2
    assert "lazynet: timed out" in capsys.readouterr().err
