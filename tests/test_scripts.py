"""The scripts run and print their results."""

import runpy
import sys
from pathlib import Path

import jax
import pytest

from lazynet.experiment import _members as members

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def run_here(capsys, monkeypatch):
    """Return a function that runs a script in this process, to save time for imports, and gives its output."""

    def output(name, *flags):
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        code = 0
        # Flax layers fail under the strict settings of the tests.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            try:
                runpy.run_path(str(SCRIPTS / name), run_name="__main__")
            except SystemExit as stopped:
                code = stopped.code
        assert not code
        return capsys.readouterr().out

    return output


@pytest.mark.whole
@pytest.mark.parametrize("name", ["own_flax.py", "own_nnx.py"])
def test_a_custom_network_has_a_sweep_and_a_verdict(name, run_here, monkeypatch):
    if name == "own_flax.py":
        # JAX cannot split a batch of convolutions among devices.
        monkeypatch.setattr(members, "mesh_for", lambda members, width: None)
    rows = {line.split()[0]: line for line in run_here(name).splitlines() if " last " in line or " maximum " in line}
    assert "holds" in rows["displacement"]
    assert "holds" in rows["linearization_gap_train"]
    # Count the lines of code besides the network.
    body = (SCRIPTS / name).read_text().partition("__main__")[2].splitlines()[1:]
    assert len(body) < 10


@pytest.mark.whole
def test_the_map_of_the_digits_has_the_predicted_boundary(tmp_path, run_here):
    flags = ["--widths", "32", "128", "--scales", "1", "10", "--seeds", "1"]
    text = run_here("laziness_map.py", *flags, "--out", tmp_path)
    assert text.count("boundary exponent") == 2
    assert text.count("not fitted: ") == 2
    both, _ = text.split("Trained: hidden")
    exponent = float(both.partition("boundary exponent ")[2].split()[0])
    assert -0.7 < exponent < -0.3
    assert {path.name for path in tmp_path.iterdir()} == {"both", "both.png", "hidden", "hidden.png"}


@pytest.mark.whole
def test_kernels_of_deep_networks_agree_with_means(run_here):
    lines = run_here("deep_kernels.py", "--depths", "1", "2", "--widths", "256").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "256", "200"], ["2", "256", "200"]]
    assert all(float(line.split()[3].rstrip("%")) < 2 for line in lines[1:])


@pytest.mark.whole
def test_wide_networks_follow_their_kernels(run_here):
    text = run_here("followed_training.py", "--cases", "batches", "ridge", "--widths", "256", "2048", "--factor", "5")
    assert text.count("width exponents") == 2
    assert "FAILED" not in text


@pytest.mark.whole
def test_with_the_batches_of_another_seed_networks_do_not_follow(capsys, monkeypatch):
    flags = ["--cases", "batches", "--widths", "256", "2048", "--factor", "5", "--order-of", "1"]
    monkeypatch.setattr(sys, "argv", ["followed_training.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPTS / "followed_training.py"), run_name="__main__")
    assert stopped.value.code == 1
    assert "batches: FAILED (own" in capsys.readouterr().out


@pytest.mark.whole
def test_forecasts_are_compared_with_training(run_here):
    text = run_here("forecasts.py", "--n-train", "64", "--steps", "60", "--seeds", "3", "--no-cubic")
    assert text.count("forecast / measured") == 8


@pytest.mark.whole
def test_predicted_widths_are_compared_with_crossings(tmp_path, run_here):
    flags = ["--sets", "5", "--steps", "100", "--tolerance", "0.03", "--pilots", "64", "128", "256", "--ratio", "9"]
    text = run_here("required_widths.py", *flags, "--out", tmp_path)
    assert text.count(" inside; ") >= 4
    assert "of 5 intervals contain the crossing" in text
    assert (tmp_path / "seeds-100" / "result.nc").exists()
