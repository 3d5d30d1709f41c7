"""Sweeps that are stopped, damaged or mistaken for another study, and then resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from packs import set_carried_bytes
from stored import DATA, MEASURE, assert_same, resumed, sweep

import lazynet as lz
from lazynet import cli
from lazynet.execution import Store
from lazynet.execution import _checkpoint as checkpoint
from lazynet.execution import _store as store
from lazynet.experiment import References
from lazynet.experiment import _spec as spec
from lazynet.studies.sweep import _study as study
from lazynet.training import _program as program

pytestmark = pytest.mark.usefixtures("small_packs")

ALONE, NO_DRIFT = lz.Measure(predictions=False, kernel_drift=False), lz.Measure(kernel_drift=False)


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_stored_cells_are_not_computed_again(finished, uninterrupted, computed, monkeypatch, tmp_path):
    out, put = tmp_path / "run", Store.put

    def stop(self, key, arrays):
        if int(key) == finished:
            raise KeyboardInterrupt
        put(self, key, arrays)

    monkeypatch.setattr(Store, "put", stop)
    if finished < 3:
        with pytest.raises(KeyboardInterrupt):
            sweep(out)
    else:
        sweep(out)
    assert Store(out).status()._asdict() == {
        "finished": finished,
        "damaged": 0,
        "cells": 3,
        "running": False,
        "result": finished == 3,
        "holders": (),
    }
    monkeypatch.setattr(Store, "put", put)
    computed.clear()
    assert_same(resumed(out), uninterrupted)
    assert computed == [(8, 4), (16, 2), (16, 2)][finished:]


def noisy(eta):
    """Return an optimizer that adds noise to the gradient and whose state is a random key."""

    def update(gradient, key, params=None):
        key, drawn = jax.random.split(key)
        return jax.tree.map(lambda g: -eta * (g + jax.random.normal(drawn, g.shape, g.dtype)), gradient), key

    return optax.GradientTransformation(lambda params: jax.random.key(0), update)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float64", {}),
        ("float32", {"optimizer": lz.Optimizer(momentum=0.9), "batch_size": 5, "measure": NO_DRIFT}),
        # The state of this optimizer is a random key.
        ("float32", {"optimizer": noisy, "measure": ALONE}),
    ],
)
def test_a_cell_resumes_from_its_last_checkpoint(dtype, options, monkeypatch, tmp_path):
    """The sweep stops in the middle of its second cell and saves a checkpoint at every call to the device."""

    def sweep(out):
        return lz.sweep(*(lz.TwoLayer(width=8), DATA, [16], 6, 6), dtype=dtype, learning_rate=0.05, out=out, **options)

    expected = sweep(tmp_path / "expected")
    out, advance, calls = tmp_path / "run", program._advance, []

    def counted(stepper, measure, carry, members, shared, first, last, *rest):
        # Do not count linearized networks, which are trained after the networks of their cell.
        if isinstance(stepper.network, lz.TwoLayer):
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            calls.append((stepper.network.width, first, last))
        return advance(stepper, measure, carry, members, shared, first, last, *rest)

    monkeypatch.setattr(program, "_advance", counted)
    # Every call to the device takes one step.
    monkeypatch.setattr(program, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    stop_at = 7 + 4
    with pytest.raises(KeyboardInterrupt):
        sweep(out)
    assert calls[-1] == (16, 2, 3)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["000001"]
    calls.clear()
    assert_same(sweep(lz.RunFolder(out, resume=True)), expected)
    # The last checkpoint contains the state before the interrupted call.
    assert calls[0] == (16, 3, 4)
    assert sum(last - first for _, first, last in calls) == 3 + 6
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_without_test_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(program, "CALL_SECONDS", 0.0)
    data, save, saved = lz.Dataset(DATA.x_train, DATA.y_train), checkpoint.CellCheckpoint.save, []

    def stop(self, step, arrays):
        save(self, step, arrays)
        saved.append(step)
        if saved == [*range(3)]:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.CellCheckpoint, "save", stop)
    arguments = {"network": lz.TwoLayer(width=8), "data": data, "widths": [8], "seeds": 4, "steps": 6}
    arguments["measure"] = NO_DRIFT
    with pytest.raises(KeyboardInterrupt):
        lz.sweep(**arguments, out=tmp_path / "run")
    assert_same(lz.sweep(**arguments, out=lz.RunFolder(tmp_path / "run", resume=True)), lz.sweep(**arguments))
    assert saved == [*range(3), *range(2, 6)]


@pytest.mark.slow
def test_a_resumed_sweep_keeps_its_packs(uninterrupted, computed, monkeypatch, tmp_path):
    out = tmp_path / "run"
    sweep(out)
    next((out / "cells").glob("000002-*")).unlink()
    computed.clear()
    set_carried_bytes(monkeypatch, tmp_path / "cache", 2**30)
    assert_same(resumed(out), uninterrupted)
    assert computed == [(16, 2)]


def test_a_folder_that_does_not_exist_is_begun(uninterrupted, tmp_path):
    assert_same(resumed(tmp_path / "new"), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_a_damaged_cell_is_found_and_computed_again(damage, uninterrupted, computed, tmp_path):
    out = tmp_path / "run"
    sweep(out)
    file = next((out / "cells").glob("000001-*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flipped": bytes(content), "short": content[:-3], "empty": b""}[damage])
    assert Store(out).status()[:2] == (2, 1)
    computed.clear()
    with pytest.warns(UserWarning, match=r"000001-.* is damaged or belongs to another study"):
        assert_same(resumed(out), uninterrupted)
    assert computed == [(16, 2)]
    assert Store(out).status()[:2] == (3, 0)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"steps": 13}, "steps = 12 instead of 13"),
        ({"learning_rate": 0.1}, "learning_rate = None instead of"),
        ({"widths": [8, 16, 32]}, r"widths = \[8, 16\] instead of \[8, 16, 32\]"),
        ({"network": lz.TwoLayer(width=8, output_scale=np.sqrt)}, "output_scale = 1.0 instead of 'sqrt'"),
        ({"optimizer": lambda eta: optax.adam(eta), "learning_rate": 0.1}, "optimizer = 'sgd' instead of"),
        (
            {"data": lz.Dataset(DATA.x_train, -DATA.y_train, DATA.x_test, DATA.y_test, "digits", [0, 1])},
            "the study in .* has different data",
        ),
    ],
)
def test_another_sweep_is_refused(change, difference, uninterrupted_run, computed):
    out = uninterrupted_run[0]
    arguments = {"network": lz.TwoLayer(width=8), "data": DATA, "widths": [8, 16], "seeds": 4, "steps": 12}
    arguments |= {"measure": MEASURE, **change}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"^out must be the folder of this study, but .*{difference}"):
        lz.sweep(**arguments, out=lz.RunFolder(out, resume=True))
    assert computed == []
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_optimizers_losses_and_schedules_of_one_name_are_told_apart(tmp_path):
    def sweep(out, **options):
        return lz.sweep(lz.TwoLayer(width=8), DATA, [8], 4, 12, out=out, measure=ALONE, **options)

    def resumed(path, **options):
        return sweep(lz.RunFolder(path, resume=True), **options)

    def settings(optimizer=lambda eta: optax.sgd(eta), power=2):
        loss = lz.losses.Loss("mine", lambda f, y: jnp.abs(f - y) ** power, "sum")
        return {"optimizer": optimizer, "loss": loss, "learning_rate": 0.01}

    sweep(tmp_path / "run", **settings())
    resumed(tmp_path / "run", **settings(lambda eta: optax.sgd(eta)))
    with pytest.raises(ValueError, match="optimizer_values ="):
        resumed(tmp_path / "run", **settings(lambda eta: optax.adam(eta)))
    with pytest.raises(ValueError, match="loss_values ="):
        resumed(tmp_path / "run", **settings(power=4))
    schedules = [
        lz.Optimizer(schedule=lambda step, power=power: 1.0 / (1.0 + jnp.asarray(step, "float32")) ** power)
        for power in (1, 1, 2)
    ]
    sweep(tmp_path / "schedule", optimizer=schedules[0])
    resumed(tmp_path / "schedule", optimizer=schedules[1])
    with pytest.raises(ValueError, match="optimizer_values ="):
        resumed(tmp_path / "schedule", optimizer=schedules[2])


def test_settings_that_were_changed_are_refused(tmp_path):
    sweep(tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    for content in (file.read_text().replace('"steps": 12', '"steps": 13'), file.read_text()[:100], "[]"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"settings.json' is damaged or has been modified"):
            resumed(tmp_path / "run")


def test_other_keys_are_refused_and_other_versions_named(monkeypatch, tmp_path):
    sweep(tmp_path / "run")
    monkeypatch.setattr(store, "versions", lambda: {"jax_version": "0.1.0"})
    with pytest.warns(UserWarning, match="was created with different package versions"):
        resumed(tmp_path / "run")
    monkeypatch.setattr(spec, "_key_data", lambda width, seeds: [[width, seed] for seed in seeds])
    with pytest.raises(ValueError, match="so its networks have different random keys"):
        resumed(tmp_path / "run")


@pytest.mark.slow
def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ValueError, match=r"^out must be a new folder or the folder of this study"):
        resumed(tmp_path)
    with pytest.raises(ValueError, match=r"^out must be a new folder, got"):
        sweep(tmp_path)
    ends, options = DATA.x_train[:2], {"seeds": 2, "steps": 2, "places": [0.5]}
    network = lz.TwoLayer(width=8, symmetric=False)
    lz.line_ensemble(network, DATA, ends, [8], out=tmp_path / "line", **options)
    with pytest.raises(
        ValueError, match=r"^out must be the folder of a study of kind sweep, got .* of kind line_ensemble"
    ):
        resumed(tmp_path / "line")


def test_a_study_that_fails_before_it_begins_leaves_no_folder(monkeypatch, tmp_path):
    def fail(*_):
        raise ValueError("no kernel")

    monkeypatch.setattr(References, "rates", fail)
    with pytest.raises(ValueError, match="no kernel"):
        sweep(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no kernel"):
        resumed(tmp_path / "mine")
    assert (tmp_path / "mine").exists()


def test_a_full_disk_leaves_the_stored_cells(uninterrupted, monkeypatch, tmp_path):
    out, write = tmp_path / "run", store.write_file

    def full(file, content, **options):
        if "000002" in file.name:
            # Fail as if the disk were full.
            raise OSError(28, "No space left on device")
        write(file, content, **options)

    monkeypatch.setattr(store, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        sweep(out)
    assert Store(out).status()[:3] == (2, 0, 3)
    monkeypatch.setattr(store, "write_file", write)
    assert_same(resumed(out), uninterrupted)


def test_a_write_that_fails_leaves_no_draft(monkeypatch, tmp_path):
    def fail(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write_file(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cells_that_changed_places_are_damaged(uninterrupted, computed, tmp_path):
    out = tmp_path / "run"
    sweep(out)
    first, second = sorted((out / "cells").glob("00000[12]-*"))
    content = first.read_bytes()
    first.unlink()
    first.with_name(f"{second.name[:6]}{first.name[6:]}").write_bytes(content)
    second.rename(second.with_name(f"{first.name[:6]}{second.name[6:]}"))
    (out / "cells" / "notes-of-mine.npz").write_bytes(b"")
    assert Store(out).status()[:3] == (1, 2, 3)
    with pytest.raises(ValueError, match="is missing 2 of 3 cells"):
        lz.merge_shards(out)
    assert Store(out).status()[:3] == (1, 2, 3)
    computed.clear()
    with pytest.warns(UserWarning, match="is damaged or belongs to another study, so its cell will be recomputed"):
        assert_same(resumed(out), uninterrupted)
    assert computed == [(16, 2), (16, 2)]


# Flags for the sweep in `stored.py`.
FLAGS = [
    *("--n-train", "16", "--n-test", "6", "--widths", "8", "16", "--seeds", "4", "--steps", "12"),
    *("--no-predictions", "--json"),
]


@pytest.mark.whole
def test_a_killed_process_loses_no_finished_cell(uninterrupted, tmp_path):
    """A sweep that is resumed after SIGKILL has the same result as one that was never stopped."""
    run = tmp_path / "killed"
    flags = ["sweep", *FLAGS, "--out", str(run), "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lazynet", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(run.glob("cells/*.npz")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in run.glob("cells/*.npz")}
    assert cli.main(flags) == 0
    now = {path.name: path.stat().st_mtime_ns for path in run.glob("cells/*.npz")}
    assert kept.items() <= now.items()
    assert_same(xr.load_dataset(run / "result.nc", engine="h5netcdf"), uninterrupted)


@pytest.mark.slow
def test_the_command_line_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    out = str(tmp_path / "run")

    def stop(*_):
        raise KeyboardInterrupt

    # Interrupt the sweep before it stores anything.
    with monkeypatch.context() as patch:
        patch.setattr(References, "rates", stop)
        assert cli.main(["sweep", *FLAGS, "--out", out]) == 130
    assert capsys.readouterr().err == "lazynet: interrupted; nothing was written\n"
    assert not Path(out).exists()
    with monkeypatch.context() as patch:
        patch.setattr(study, "compute_cell", stop)
        assert cli.main(["sweep", *FLAGS, "--out", out]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "0 of 3 cells are stored" in line
    assert "use --resume to continue the run" in line
    assert cli.main(["status", out]) == 0
    assert "again with --resume" in capsys.readouterr().out
    # If the sweep is interrupted while the figure is drawn, everything else is already written.
    with monkeypatch.context() as patch:
        patch.setattr(lz, "plot", stop)
        assert cli.main(["sweep", *FLAGS, "--out", out, "--resume"]) == 130
    assert "3 of 3 cells are stored" in capsys.readouterr().err
    assert cli.main(["sweep", *FLAGS, "--out", out, "--resume"]) == 0
    capsys.readouterr()
    assert cli.main(["status", out, "--json"]) == 0
    assert '"finished": 3, "damaged": 0, "cells": 3, "running": false, "result": true' in capsys.readouterr().out
    assert (Path(out) / "figures" / "sweep.png").exists()
    assert cli.main(["status", str(tmp_path)]) == 2
