"""The scripts run, and print their results."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(name):
    one_device = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run([sys.executable, SCRIPTS / name], capture_output=True, text=True, env=one_device)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run_here(capsys, monkeypatch):
    """A function that runs a script in this process, which saves its imports, and returns its output."""

    def output(name, *flags):
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        code = 0
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
        assert not code
        return capsys.readouterr().out

    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_flax.py", "own_nnx.py"])
def test_a_custom_network_has_a_sweep_and_a_verdict(name, run_here):
    rows = {
        line.split()[0]: line
        for line in (run if name == "own_flax.py" else run_here)(name).splitlines()
        if " last " in line or " maximum " in line
    }
    assert "holds" in rows["displacement"]
    assert "holds" in rows["linearization_gap_train"]
    # Lines of code besides the network.
    body = (SCRIPTS / name).read_text().partition("__main__")[2].splitlines()[1:]
    assert len(body) < 10


@pytest.mark.slow
def test_the_map_of_the_digits_has_the_predicted_boundary(tmp_path, run_here):
    flags = ["--widths", "32", "128", "--scales", "0.1", "1", "10", "--seeds", "1"]
    text = run_here("laziness_map.py", *flags, "--out", tmp_path)
    assert text.count("boundary exponent") == 2
    assert text.count("not fitted: ") == 2
    both, _ = text.split("Trained: hidden")
    exponent = float(both.partition("boundary exponent ")[2].split()[0])
    assert -0.7 < exponent < -0.3
    assert {path.name for path in tmp_path.iterdir()} == {"both", "both.png", "hidden", "hidden.png"}


@pytest.mark.slow
def test_kernels_of_deep_networks_agree_with_means(run_here):
    lines = run_here("deep_kernels.py", "--depths", "1", "2", "--widths", "256").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "256", "200"], ["2", "256", "200"]]
    assert all(float(line.split()[3].rstrip("%")) < 2 for line in lines[1:])
