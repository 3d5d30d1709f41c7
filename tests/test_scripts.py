"""The scripts with networks of one's own run as they stand, and say what a verdict says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(name, *flags):
    done = subprocess.run(
        [sys.executable, SCRIPTS / name, *flags], capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_flax.py", "own_nnx.py"])
def test_a_network_of_ones_own_goes_through_a_sweep_and_its_verdict(name):
    said = run(name)
    rows = {line.split()[0]: line for line in said.splitlines() if " last " in line or " maximum " in line}
    assert "holds" in rows["displacement"]
    assert "holds" in rows["linearization_gap_train"]
    # What it takes beside the network, in lines.
    body = (SCRIPTS / name).read_text().partition("__main__")[2].splitlines()[1:]
    assert len(body) < 10


@pytest.mark.slow
def test_kernels_of_deep_networks_agree_with_means():
    lines = run("deep_kernels.py", "--depths", "1", "2", "--widths", "512").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "512", "200"], ["2", "512", "200"]]
    assert all(float(line.split()[3].rstrip("%")) < 2 for line in lines[1:])
