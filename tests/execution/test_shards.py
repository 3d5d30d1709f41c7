"""Shards of a sweep that meet in a folder, and processes that keep out of each other's way."""

import fcntl
import sys
import threading

import pytest
from stored import assert_same, sweep

import lazynet as lz
from lazynet.execution import _runner as engine
from lazynet.execution import _store as store
from lazynet.execution._store import RunFolder
from lazynet.experiment import _packing as packing

API = sys.modules["lazynet.studies.sweep._api"]

pytestmark = pytest.mark.usefixtures("small_packs")


def test_shards_that_begin_at_once_must_be_of_one_sweep(monkeypatch, tmp_path):
    limits = API.Limits

    def late():
        """While this one finds its kernels another one begins."""
        monkeypatch.setattr(API, "Limits", limits)
        sweep(tmp_path / "run", shard=(1, 2), optimizer="momentum")
        return limits()

    monkeypatch.setattr(API, "Limits", late)
    with pytest.raises(ValueError, match="there optimizer is 'momentum', and now it is 'sgd'"):
        sweep(tmp_path / "run", shard=(2, 2))


def test_shards_of_another_division_are_kept_away(tmp_path):
    with open(tmp_path / "lock-1-of-3", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another number of shards: lock-1-of-3 is held"):
            sweep(tmp_path, shard=(1, 2))


def test_a_folder_that_another_process_is_at_work_on_is_refused(computed, tmp_path):
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process is at work on"):
            sweep(tmp_path, resume=True)
    assert computed == []


def test_shards_meet_in_a_folder(whole, computed, tmp_path):
    for k in (3, 1, 2):
        with pytest.raises(ValueError, match=r"cells, the first of them number|holds no sweep"):
            lz.merge(tmp_path / "run")
        assert sweep(tmp_path / "run", shard=(k, 3)) is None
    assert computed == [(16, 2), (8, 4), (16, 2)]
    assert_same(lz.merge(tmp_path / "run"), whole)
    # A shard that is run once more has nothing to do, and what was there is merged again.
    assert sweep(tmp_path / "run", shard=(1, 3)) is None
    assert len(computed) == 3
    with pytest.raises(ValueError, match="shard is 4/3"):
        sweep(tmp_path / "run", shard=(4, 3))
    with pytest.raises(ValueError, match="where the shards meet"):
        sweep(None, shard=(1, 3))


def test_shards_have_about_as_much_to_do():
    units = [1, 1, 1, 1, 4, 4, 16, 16, 64, 64]
    shares = [engine.share_of(units, (k, 3)) for k in (1, 2, 3)]
    assert sorted(number for share in shares for number in share) == list(range(10))
    assert [sum(units[number] for number in share) for share in shares] == [64, 64, 44]
    assert engine.share_of(units, (1, 1)) == list(range(10))
    assert engine.share_of(units[:2], (3, 3)) == []


def test_who_looks_at_a_folder_keeps_nobody_away(tmp_path):
    out = tmp_path / "run"
    sweep(out)
    (out / "lock").unlink()
    assert not RunFolder(out).status().running
    assert not (out / "lock").exists()
    with open(out / "lock", "a") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        assert RunFolder(out).status().running
        threading.Timer(2 * store.PAUSE, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        sweep(out, resume=True)


def test_the_packing_of_the_first_shard_holds_for_all(whole, monkeypatch, tmp_path):
    sweep(tmp_path / "run", shard=(1, 2))
    monkeypatch.setattr(packing, "carried_bytes", lambda: 2**30)
    sweep(tmp_path / "run", shard=(2, 2))
    assert_same(lz.merge(tmp_path / "run"), whole)


def test_shards_keep_others_away(tmp_path):
    with open(tmp_path / "lock", "a") as lock, open(tmp_path / "lock-1-of-2", "a") as own:
        for held in (lock, own):
            fcntl.flock(held, fcntl.LOCK_SH)
        # The same shard twice, and a sweep of its own.
        for more in ({"shard": (1, 2)}, {"resume": True}):
            with pytest.raises(ValueError, match="Another process is at work on"):
                sweep(tmp_path, **more)
        assert sweep(tmp_path, shard=(2, 2)) is None
        with pytest.raises(ValueError, match="Another process is at work on"):
            lz.merge(tmp_path)
