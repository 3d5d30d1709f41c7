"""The tasks of a job array run shards of a sweep with `lazynet`."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from lazynet import cli

SCRIPT = Path(__file__).parents[2] / "scripts" / "sweep_array.slurm"
SMALL = ["--n-train", "16", "--n-test", "6", "--widths", "8", "16", "--seeds", "2", "--steps", "3"]


@pytest.fixture
def task(tmp_path):
    """Return a function that runs one of two tasks of a job array and gives the arguments it passes to `lazynet`."""
    fake = tmp_path / "bin" / "lazynet"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\nprintf "%q " "$@"\n')
    fake.chmod(0o755)

    def arguments(number, *flags):
        path = f"{fake.parent}:{os.environ['PATH']}"
        slurm = {"PATH": path, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
        done = subprocess.run(["bash", SCRIPT, *flags], env=slurm, capture_output=True, text=True)
        return done.returncode, shlex.split(done.stdout), done.stderr

    return arguments


@pytest.mark.slow
def test_tasks_of_an_array_share_a_folder(task, tmp_path, capsys):
    out = str(tmp_path / "a run")
    for number in (2, 1):
        code, arguments, _ = task(number, out, *SMALL)
        assert code == 0
        assert arguments == ["sweep", "--out", out, "--shard", f"{number}/2", *SMALL]
        assert cli.main(arguments) == 0
        assert f"Shard {number}/2 is done" in capsys.readouterr().out
    assert cli.main(["merge", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["widths"] == [8, 16]
    assert (Path(out) / "figures" / "sweep.png").exists()
    # A requeued task reads its stored cells.
    assert cli.main(arguments) == 0
    assert "2 of 2 cells are stored" in capsys.readouterr().out


def test_a_task_without_a_folder_is_refused(task):
    code, _, errors = task(1)
    assert code != 0
    assert "the first argument must be the folder of the run" in errors


@pytest.mark.parametrize("shard", ["3", "0/2", "3/2", "a/b", "1/"])
def test_malformed_shards_are_refused(shard, tmp_path, capsys):
    assert cli.main(["sweep", *SMALL, "--out", str(tmp_path / "run"), "--shard", shard]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lazynet: --shard must be ")
    assert shard in line
    assert not (tmp_path / "run").exists()
