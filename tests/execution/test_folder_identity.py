"""A run folder accepts only cells and results of its own study, and a study stops if its folder is replaced."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from stored import assert_same, resumed, sweep

import lazynet as lz
from lazynet.execution import Store
from lazynet.execution._store import _hash, read_arrays

pytestmark = pytest.mark.usefixtures("small_packs")


@pytest.mark.slow
def test_cells_are_the_same_files_whenever_they_are_computed(tmp_path):
    for name in ("once", "again"):
        sweep(tmp_path / name)
    once, again = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "cells").iterdir()} for name in ("once", "again")
    )
    assert len(once) == 3
    assert once == again


@pytest.mark.slow
def test_a_cell_of_another_sweep_of_the_same_shapes_is_found(uninterrupted, computed, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    sweep(out)
    sweep(other, learning_rate=0.001)
    (own,) = (out / "cells").glob("000001-*")
    own.unlink()
    (another,) = (other / "cells").glob("000001-*")
    (out / "cells" / another.name).write_bytes(another.read_bytes())
    assert Store(out).status()[:3] == (2, 1, 3)
    computed.clear()
    with pytest.warns(UserWarning, match="belongs to another study"):
        assert_same(resumed(out), uninterrupted)
    assert computed == [(16, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_renamed_while_its_sweep_runs_is_left_alone(replaced, uninterrupted, monkeypatch, tmp_path):
    out, moved, put = tmp_path / "run", tmp_path / "moved", Store.put

    def rename(self, key, arrays):
        if int(key) == 1:
            out.rename(moved)
            if replaced:
                monkeypatch.setattr(Store, "put", put)
                sweep(out, learning_rate=0.001)
        put(self, key, arrays)

    monkeypatch.setattr(Store, "put", rename)
    with pytest.raises(ValueError, match=r"^out must not be renamed, removed or replaced while a study runs, but"):
        sweep(out)
    monkeypatch.setattr(Store, "put", put)
    assert Store(moved).status()[:3] == (1, 0, 3)
    assert_same(resumed(moved), uninterrupted)
    if replaced:
        assert Store(out).status()[:3] == (3, 0, 3)
    else:
        assert not out.exists()


def edit(out, change):
    """Change the settings that are stored in a folder, and update their hash."""
    file = out / "settings.json"
    content = json.loads(file.read_text())
    del content["hash"]
    change(content)
    file.write_text(json.dumps({**content, "hash": _hash(content)}))


EDITS = {
    "request": lambda content: content["request"].update(steps=13),
    "settings": lambda content: content["record"]["settings"].update(steps=13),
    "learning rate": lambda content: content["record"]["points"][0]["by_width"].update(learning_rate=[0.1, 0.1]),
    "cells": lambda content: content["cells"].pop(),
    "packs": lambda content: content["record"]["packs"][0][2].reverse(),
}


@pytest.mark.slow
def test_settings_that_were_edited_are_found(tmp_path):
    out = tmp_path / "run"
    sweep(out)
    for name, change in EDITS.items():
        edited = shutil.copytree(out, tmp_path / name)
        edit(edited, change)
        with pytest.raises(ValueError, match=r"modified|^out must be the folder of this study"):
            resumed(edited)
        with pytest.raises(ValueError, match="modified"):
            lz.merge_shards(edited)
        status = Store(edited).status()
        assert (status.finished, status.result) == (0, False)
    assert Store(out).status()[:3] == (3, 0, 3)


@pytest.mark.slow
def test_a_learning_rate_that_was_given_is_never_read_from_the_folder(tmp_path):
    out = tmp_path / "run"
    sweep(out, learning_rate=0.001)
    shutil.rmtree(out / "cells")
    edit(out, EDITS["learning rate"])
    with pytest.raises(ValueError, match="modified"):
        resumed(out, learning_rate=0.001)


def test_edited_settings_of_an_infinite_width_study_are_found(tmp_path):
    def study():
        lz.infinite_width(lz.TwoLayer(2), data, steps=5, snapshots=2, out=lz.RunFolder(tmp_path / "run", resume=True))

    data = lz.load_dataset("digits", n_train=8, n_test=2)
    study()
    edit(tmp_path / "run", lambda content: content["record"]["settings"].update(n_train=9))
    with pytest.raises(ValueError, match="modified"):
        study()


@pytest.mark.slow
def test_a_result_that_is_damaged_or_belongs_to_other_settings_is_not_finished(tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    sweep(out)
    result = (out / "result.nc").read_bytes()
    assert Store(out).status().result
    (out / "result.nc").write_bytes(result[:-1])
    assert not Store(out).status().result
    (out / "result.nc").write_bytes(result)
    assert Store(out).status().result
    sweep(other, learning_rate=0.001)
    for name in ("result.nc", "finished.json"):
        shutil.copy(other / name, out / name)
        assert not Store(out).status().result
    resumed(out)
    assert (out / "result.nc").read_bytes() != (other / "result.nc").read_bytes()
    assert Store(out).status().result


@pytest.mark.slow
def test_another_environment_is_recorded_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    result = sweep(tmp_path / "run")
    assert "NVIDIA_TF32_OVERRIDE=0" in result.attrs["environment"]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.warns(UserWarning, match="different environment variables"):
        resumed(tmp_path / "run")


ODD = {
    "kind": lambda content: content.update(kind=5),
    "record": lambda content: content.update(record=[1]),
    "cells": lambda content: content.update(cells="000000"),
    "request": lambda content: content.update(request=None),
    "versions": lambda content: content.pop("versions"),
    "begun": lambda content: content["record"].update(begun=[]),
    "points": lambda content: content["record"].pop("points"),
    "widths": lambda content: content["record"]["points"][0]["by_width"].update(learning_rate=3),
}


@pytest.mark.slow
def test_odd_settings_are_refused_in_a_sentence(tmp_path):
    """This holds whether or not any cells are stored."""
    out = tmp_path / "run"
    sweep(out)
    for cells in (True, False):
        if not cells:
            shutil.rmtree(out / "cells")
        for name, change in ODD.items():
            odd = shutil.copytree(out, tmp_path / f"{name}-{cells}")
            edit(odd, change)
            for call in (lz.merge_shards, lambda odd: resumed(odd)):
                with pytest.raises(ValueError, match=r"modified; use a different folder|^out must|is missing 3 of 3"):
                    call(odd)


def test_deeply_nested_settings_and_pickles_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "settings.json").write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match=r"settings\.json' is damaged or has been modified"):
        Store(tmp_path)
    stream = io.BytesIO()
    np.savez(stream, key=np.array({}), study=np.array({}))
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    file = tmp_path / f"000000-{digest}.npz"
    file.write_bytes(stream.getvalue())
    assert read_arrays(file, "study") is None


def test_a_lock_that_cannot_be_opened_names_its_owner_and_what_to_do(tmp_path):
    """A folder takes the place of the lock, because not even root can open a folder as a file."""
    (tmp_path / "lock").mkdir()
    owner = tmp_path.owner()
    message = rf"^The lock file '.*lock', which belongs to user {owner}, cannot be opened \(.*\)\. Ask {owner} to run"
    for call in (lambda out: Store(out).status(), lambda out: resumed(out)):
        with pytest.raises(ValueError, match=message):
            call(tmp_path)
