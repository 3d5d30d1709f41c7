"""The scripts run, and print their results."""

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
def test_a_custom_network_has_a_sweep_and_a_verdict(name):
    rows = {line.split()[0]: line for line in run(name).splitlines() if " last " in line or " maximum " in line}
    assert "holds" in rows["displacement"]
    assert "holds" in rows["linearization_gap_train"]
    # Lines of code besides the network.
    body = (SCRIPTS / name).read_text().partition("__main__")[2].splitlines()[1:]
    assert len(body) < 10


@pytest.mark.slow
def test_the_map_of_the_digits_has_the_predicted_boundary(tmp_path):
    flags = ["--widths", "64", "256", "--scales", "0.1", "1", "10", "--seeds", "3"]
    text = run("laziness_map.py", *flags, "--out", tmp_path)
    assert text.count("boundary exponent") == 2
    assert text.count("not fitted: ") == 2
    both, _ = text.split("Trained: hidden")
    exponent = float(both.partition("boundary exponent ")[2].split()[0])
    assert -0.7 < exponent < -0.3
    assert {path.name for path in tmp_path.iterdir()} == {"both", "both.png", "hidden", "hidden.png"}


@pytest.mark.slow
def test_kernels_of_deep_networks_agree_with_means():
    lines = run("deep_kernels.py", "--depths", "1", "2", "--widths", "512").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "512", "200"], ["2", "512", "200"]]
    assert all(float(line.split()[3].rstrip("%")) < 2 for line in lines[1:])
