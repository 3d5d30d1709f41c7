"""Shards of a sweep share a folder, and locks keep other processes out of it."""

import os
import re
import socket
import subprocess
import sys
import threading

import pytest
from filelock import ReadWriteLock
from packs import set_carried_bytes
from stored import assert_same, resumed, sweep
from unchecked import unchecked

import lazynet as lz
from lazynet.execution import Store
from lazynet.execution import _locks as locks
from lazynet.execution._runner import share_of
from lazynet.experiment import References

pytestmark = pytest.mark.usefixtures("small_packs")


def sharded(path, k, parts, **options):
    return sweep(lz.RunFolder(path, shard=(k, parts)), **options)


def test_shards_that_begin_at_once_must_be_of_one_sweep(monkeypatch, tmp_path):
    rates = References.rates

    def late(self, point, widths):
        """Start another shard while this one computes its kernels."""
        monkeypatch.setattr(References, "rates", rates)
        sharded(tmp_path / "run", 1, 2, learning_rate=0.1)
        return rates(self, point, widths)

    monkeypatch.setattr(References, "rates", late)
    with pytest.raises(ValueError, match=r"learning_rate = {'8': 0\.1, '16': 0\.1} instead of None"):
        sharded(tmp_path / "run", 2, 2)


def test_shards_of_another_division_are_kept_away(tmp_path):
    message = "a different number of shards and holds the lock 'lock-1-of-3'"
    with locks.locked(tmp_path / "lock-1-of-3"), pytest.raises(ValueError, match=message):
        sharded(tmp_path, 1, 2)


def test_a_folder_that_another_process_is_at_work_on_is_refused(computed, tmp_path):
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with locks.locked(tmp_path / "lock"):
        with pytest.raises(ValueError, match=rf"^Another process \({re.escape(holder)}\) is using"):
            resumed(tmp_path)
        assert Store(tmp_path).status().holders == (holder,)
    assert Store(tmp_path).status().holders == ()
    assert computed == []


HOLD = """
import sys, time
from pathlib import Path
from lazynet.execution._locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_process_lets_go_of_its_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=rf"^Another process \(process {process.pid} on "):
            resumed(tmp_path)
        process.kill()
        process.wait()
    assert not Store(tmp_path).status().running
    resumed(tmp_path)


def test_a_lock_file_of_an_earlier_version_is_taken(computed, tmp_path):
    (tmp_path / "lock").touch()
    resumed(tmp_path)
    assert computed


def test_shards_meet_in_a_folder(uninterrupted, computed, tmp_path):
    for k in (3, 1, 2):
        with pytest.raises(ValueError, match=r"cells; the first missing one is cell|folder that contains a study"):
            lz.merge_shards(tmp_path / "run")
        assert sharded(tmp_path / "run", k, 3) is None
    assert computed == [(16, 2), (8, 4), (16, 2)]
    assert_same(lz.merge_shards(tmp_path / "run"), uninterrupted)
    # A finished shard that is run again has nothing to do.
    assert sharded(tmp_path / "run", 1, 3) is None
    assert len(computed) == 3


def test_shards_have_about_as_much_to_do():
    units = [1, 1, 1, 1, 4, 4, 16, 16, 64, 64]
    shares = [share_of(units, (k, 3)) for k in (1, 2, 3)]
    assert sorted(number for share in shares for number in share) == list(range(10))
    assert [sum(units[number] for number in share) for share in shares] == [64, 64, 44]
    assert share_of(units, (1, 1)) == list(range(10))
    assert share_of(units[:2], (3, 3)) == []


def test_who_looks_at_a_folder_keeps_nobody_away(tmp_path):
    out = tmp_path / "run"
    sweep(out)
    (out / "lock").unlink()
    assert not Store(out).status().running
    assert not (out / "lock").exists()
    lock = ReadWriteLock(out / "lock", is_singleton=False)
    lock.acquire_write()
    assert Store(out).status().running
    threading.Timer(locks.PATIENCE / 4, lock.close).start()
    resumed(out)


def test_the_packing_of_the_first_shard_holds_for_all(uninterrupted, monkeypatch, tmp_path):
    sharded(tmp_path / "run", 1, 2)
    set_carried_bytes(monkeypatch, tmp_path / "cache", 2**30)
    sharded(tmp_path / "run", 2, 2)
    assert_same(lz.merge_shards(tmp_path / "run"), uninterrupted)


@pytest.mark.slow
def test_shards_keep_others_away(tmp_path):
    with locks.locked(tmp_path / "lock", shared=True), locks.locked(tmp_path / "lock-1-of-2"):
        # Neither the same shard nor a whole sweep may use the folder at the same time.
        for folder in (lz.RunFolder(tmp_path, shard=(1, 2)), lz.RunFolder(tmp_path, resume=True)):
            with pytest.raises(ValueError, match=r"Another process \(process .*\) is using"):
                sweep(folder)
        assert sharded(tmp_path, 2, 2) is None
        with pytest.raises(ValueError, match=r"Another process \(process .*\) is using"):
            lz.merge_shards(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": 3}, "^path must be a path"),
        (
            {"path": "~nobody-of-this-name/run"},
            "^path must be a path whose leading ~, if any, refers to a known home directory",
        ),
        ({"resume": "yes"}, "^resume must be True or False, got 'yes'"),
        ({"shard": 3}, r"^shard must be a pair \(k, N\)"),
        ({"shard": (4, 3)}, "^shard must be k/N"),
        ({"shard": (0, 3)}, "^shard must be k/N"),
        ({"shard": (True, True)}, r"^shard must be a pair \(k, N\) of integers, got \(True, True\)"),
        ({"max_seconds": True}, "^max_seconds must be positive, got True"),
        ({"max_seconds": 0.0}, "^max_seconds must be positive, got 0.0"),
        ({"max_seconds": "1"}, "^max_seconds must be positive, got '1'"),
    ],
)
def test_folders_that_cannot_be_are_refused(options, message):
    with unchecked(), pytest.raises(ValueError, match=message):
        lz.RunFolder(**{"path": "run"} | options)
