"""Output and exit codes of the commands, on data small enough to run in a second."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet import cli
from lazynet.cli._common import in_words
from lazynet.cli._limits import complexity_record
from lazynet.cli._reports import report
from lazynet.networks import ACTIVATIONS
from lazynet.papers.work import Work

SMALL = ["--n-train", "16", "--n-test", "6", "--widths", "8", "16", "--seeds", "2", "--steps", "3"]


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def spec_of(*arguments):
    """Return the specification of the sweep that `lazynet sweep` runs with these flags."""
    return cli.parse(["sweep", *arguments]).spec()


def test_the_default_is_the_demonstration():
    spec = spec_of()
    data = spec.data
    assert (data.name, data.n_train, data.n_test) == ("digits", 256, 100)
    np.testing.assert_array_equal(data.y_train, lz.load_dataset("digits", (0, 1), 256, 100).y_train)
    assert spec.widths == (64, 128, 256, 512, 1024, 2048, 4096)
    assert spec.seeds == tuple(range(8))
    assert (spec.training.steps, spec.training.snapshots, spec.training.batch_size) == (1000, 20, None)
    assert (spec.training.optimizer, spec.training.dtype) == (lz.Optimizer("sgd"), "float32")
    assert spec.learning_rate is None
    assert spec.axes == ()
    assert spec.training.measure == lz.Measure()
    assert spec.network.clone(width=64) == lz.TwoLayer(width=64)


def test_every_flag_reaches_the_sweep():
    flags = """--dataset digits --classes 3,5 8 --n-train 32 --n-test 7 --widths 4 6 --seeds 3 --steps 9 --snapshots 5
        --learning-rate 0.25 --activation erf --train both --init-scale 2 --output-scale 3 --label-noise 0.1
        --batch-size 8 --momentum 0.5 --dtype float64 --stop-loss 0.01 --sharpness --no-predictions --rows 16"""
    spec = spec_of(*flags.split())
    expected = lz.load_dataset("digits", ((3, 5), 8), 32, 7)
    np.testing.assert_array_equal(spec.data.x_test, expected.x_test)
    np.testing.assert_array_equal(spec.data.y_train, expected.y_train)
    training = spec.training
    assert (spec.widths, spec.seeds, spec.learning_rate) == ((4, 6), (0, 1, 2), 0.25)
    assert (training.steps, training.snapshots, training.batch_size, training.dtype) == (9, 5, 8, "float64")
    assert training.optimizer == lz.Optimizer("sgd", momentum=0.5)
    assert training.stop == lz.Stop(loss=0.01)
    assert training.measure == lz.Measure(predictions=False, sharpness=True, rows=16)
    assert spec.network == lz.TwoLayer(width=6, activation="erf", train="both", init_scale=2.0, output_scale=3.0)
    assert [(axis.name, axis.values) for axis in spec.axes] == [("label_noise", (0.1,))]


def test_flags_of_other_families_losses_and_penalties_reach_the_sweep():
    flags = """--family mlp --depth 2 --widths 4 6 --loss logistic --learning-rate 0.1 --weight-decay 0.1 --ridge 0.2
        --init-scale 1.5"""
    spec = spec_of(*flags.split())
    assert spec.network == lz.MLP(width=6, depth=2, init_scale=1.5)
    assert spec.training.loss == lz.losses.logistic()
    assert spec.training.optimizer == lz.Optimizer("sgd", weight_decay=0.1, ridge=0.2)
    assert spec_of("--family", "conv", "--no-symmetric").network == lz.ConvNet(width=4096, symmetric=False)
    assert spec_of("--family", "mlp", "--widths", "8").network == lz.MLP(width=8)


def test_a_users_own_file_takes_the_place_of_a_data_set(tmp_path, capsys):
    file = tmp_path / "mine.csv"
    rows = np.random.default_rng(0).normal(loc=3, size=(30, 3))
    file.write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows.tolist()))
    flags = ["--data", str(file), "--target", "a", "--split-seed", "4", "--standardize"]
    expected = lz.read_dataset(file, target="a", split_seed=4, standardize=True)
    data = spec_of(*flags).data
    np.testing.assert_array_equal(data.x_train, expected.x_train)
    np.testing.assert_array_equal(data.y_test, expected.y_test)
    assert (data.n_train, data.n_test, data.name) == (24, 6, "mine")
    assert spec_of(*flags, "--n-train", "10", "--n-test", "5").data.n_train == 10
    assert spec_of(*flags, "--n-train", "5", "10").varied == {"n_train": [5, 10]}
    code, _, errors = run(capsys, "complexity", "--data", file, "--target", "a")
    assert code == 0
    assert "shift and scale the data, use --standardize." in errors


MODULE = """
import flax.linen as nn
import lazynet as lz

class Net(nn.Module):
    width: int
    outputs: int = 1

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.tanh(nn.Dense(self.width)(x)))

class Unnamed(nn.Module):
    units: int = 3

def deep():
    return lz.MLP(width=2, depth=4)
"""


def test_a_users_own_network_is_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    assert spec_of("--network", "my_networks:deep", "--widths", "4", "6").network == lz.MLP(width=6, depth=4)
    rate = ["--learning-rate", "0.1"]
    network = spec_of("--network", "my_networks:Net", "--widths", "4", "6", *rate).network
    x = np.ones((5, 3), np.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert network.apply(network.init(jax.random.key(0), x), x).shape == (5,)
        three = spec_of("--network", "my_networks:Net", "--classes", "0", "1", "2", *rate).network
        assert three.apply(three.init(jax.random.key(0), x), x).shape == (5, 3)
    code, _, errors = run(capsys, "sweep", "--network", "my_networks:Unnamed")
    assert (code, errors.count("\n")) == (2, 1)
    assert "--network must name a flax class with a field width" in errors
    assert str(tmp_path) not in sys.path


def test_several_values_make_an_axis():
    flags = """--n-train 16 32 --activation relu erf --init-scale 1 2 --output-scale 1 3 --learning-rate 0.1 0.2
        --label-noise 0 0.5 --batch-size 8 16 --momentum 0 0.9"""
    spec = spec_of(*flags.split())
    assert spec.varied == {
        "activation": ["relu", "erf"],
        "init_scale": [1.0, 2.0],
        "output_scale": [1.0, 3.0],
        "n_train": [16, 32],
        "momentum": [0.0, 0.9],
        "learning_rate": [0.1, 0.2],
        "batch_size": [8, 16],
        "label_noise": [0.0, 0.5],
    }
    assert spec.data.n_train == 32


@pytest.mark.slow
def test_sweep_writes_and_prints_its_verdict(capsys, tmp_path):
    out = tmp_path / "runs" / "digits"
    code, shown, errors = run(capsys, "sweep", *SMALL, "--out", out)
    assert code == 0
    assert errors == ""
    for word in ("relative_displacement", "Levels at width 16", "path bound", f"Written to {out}"):
        assert word in shown
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.suffix != ".npz")
    assert found == [
        *("cells", "figures", "figures/sweep.png", "finished.json", "lock", "result.nc", "settings.json"),
        "verdict.json",
    ]
    settings = json.loads((out / "settings.json").read_text())["record"]["settings"]
    assert settings["classes"] == [0, 1]
    assert settings["widths"] == [8, 16]


@pytest.mark.slow
def test_sweep_json_is_one_object(capsys):
    code, shown, errors = run(capsys, "sweep", *SMALL, "--json")
    assert code == 0
    assert errors == ""
    assert len(shown.splitlines()) == 1
    record = json.loads(shown)
    assert set(record) == {"settings", "verdict", "out"}
    assert record["out"] is None
    assert record["verdict"]["widths"] == [8, 16]
    assert {row["quantity"] for row in record["verdict"]["rows"]} >= {"displacement", "kernel_gap_train"}


@pytest.mark.slow
def test_with_a_tolerance_the_check_fails_unless_the_largest_width_is_lazy(capsys, tmp_path):
    data = lz.load_dataset("digits", n_train=16, n_test=6)
    result = lz.sweep(lz.TwoLayer(width=8), data, [256], 3, 3, progress=False)
    for tolerance, code in ((0.9, 0), (1e-6, 1)):
        assert report(result, tmp_path, True, True, tolerance) == code
        shown = json.loads(capsys.readouterr().out)["verdict"]
        stored = json.loads((tmp_path / "verdict.json").read_text())
        assert shown["tolerance"] == stored["tolerance"] == tolerance
        assert shown["answer"] == stored["answer"] == lz.verify(result, tolerance).answer
    assert report(result, None, True, True) == 0


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("check", [True, False])
def test_check_decides_the_exit_code(check, passes, capsys):
    data = lz.load_dataset("digits", n_train=16, n_test=6)
    result = lz.sweep(lz.TwoLayer(width=8), data, [8], 2, 3, progress=False)
    # Make the bound so large that it must hold, or so small that it must fail.
    result = result.assign(path_bound=result.path_bound * (1e6 if passes else 1e-6))
    assert report(result, None, False, check) == (1 if check and not passes else 0)
    assert ("fails" in capsys.readouterr().out) != passes


def test_a_large_learning_rate_is_a_line_on_stderr_and_the_sweep_runs(capsys):
    code, shown, errors = run(capsys, "sweep", *SMALL, "--learning-rate", 5, "--json")
    assert code == 0
    assert json.loads(shown)["settings"]["steps"] == 3
    limit = (
        2
        / np.linalg.eigvalsh(lz.analytic_kernel(lz.TwoLayer(width=8))(lz.load_dataset("digits", n_train=16).x_train))[
            -1
        ]
    )
    assert len(errors.splitlines()) == 1
    assert errors.startswith("lazynet: warning: --learning-rate is 5 ")
    assert f"{limit:.6g}" in errors


@pytest.mark.slow
def test_infinite_width(capsys, tmp_path):
    small = ["infinite-width", "--n-train", 40, "--n-test", 12, "--steps", 30]
    out = tmp_path / "run"
    code, shown, errors = run(capsys, *small, "--out", out)
    assert (code, errors) == (0, "")
    assert "loss, random labels" in shown
    assert "are not resolved" in shown
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.suffix != ".npz")
    assert files == ["figures/infinite_width.png", "finished.json", "result.nc", "settings.json"]
    code, shown, _ = run(capsys, *small, "--json")
    record = json.loads(shown)
    data = lz.load_dataset("digits", n_train=40, n_test=12)
    kernel = lz.analytic_kernel(lz.TwoLayer(width=2))
    expected = lz.complexity(kernel(data.x_train), data.y_train)
    assert record["complexity"]["true"] == pytest.approx(expected, rel=1e-3)
    assert record["settings"]["classes"] == [0, 1]
    assert record["prediction_error"] <= 1e-4
    # The result of a finished run is read from its folder instead of computed again.
    code, shown, _ = run(capsys, *small, "--out", out, "--resume", "--json")
    assert json.loads(shown)["complexity"] == record["complexity"]


@pytest.mark.slow
def test_status_of_every_kind(capsys, tmp_path):
    small = ["--n-train", 16, "--n-test", 6, "--steps", 3, "--out"]
    for command, more, kind, cells in (
        ("sweep", ["--widths", 8, 16, "--seeds", 2], "sweep", 2),
        ("infinite-width", [], "infinite_width", 2),
    ):
        run(capsys, command, *more, *small, tmp_path / kind)
        code, shown, _ = run(capsys, "status", tmp_path / kind, "--json")
        assert code == 0
        assert json.loads(shown) == {
            "kind": kind,
            "finished": cells,
            "damaged": 0,
            "cells": cells,
            "running": False,
            "result": True,
            "holders": [],
        }
        _, shown, _ = run(capsys, "status", tmp_path / kind)
        assert shown.startswith(f"{kind}: {cells} of {cells} cells are stored")


def test_status_of_a_reproduction(capsys, tmp_path):
    Work("arora2019", "tiny", tmp_path).arrays("part", lambda: {"a": np.ones(3)})
    code, shown, _ = run(capsys, "status", tmp_path)
    assert (code, shown) == (0, "part: 1 of 1 cells are stored, 0 are damaged.\n")
    _, shown, _ = run(capsys, "status", tmp_path, "--json")
    status = {"finished": 1, "damaged": 0, "cells": 1, "running": False, "result": True, "holders": []}
    assert json.loads(shown) == {"kind": "reproduction", "parts": {"part": status}}


@pytest.mark.slow
@pytest.mark.parametrize("command", [["sweep", *SMALL], ["infinite-width", "--n-train", "16"]])
def test_out_of_time(command, capsys, tmp_path):
    code, shown, errors = run(capsys, *command, "--out", tmp_path / "run", "--max-seconds", 1e-6)
    assert (code, shown) == (3, "")
    assert errors.startswith("lazynet: out of time; 0 of 2 cells")
    assert run(capsys, *command, "--out", tmp_path / "run", "--resume")[0] == 0


def test_complexity(capsys):
    code, shown, errors = run(capsys, "complexity", "--n-train", 40, "--classes", 3, 8, "--json")
    assert (code, errors) == (0, "")
    record = json.loads(shown)
    assert set(record) == {"complexity", "n", "lambda_min", "lambda_max", "dataset", "classes"}
    data = lz.load_dataset("digits", (3, 8), 40)
    cosine = np.clip(data.x_train @ data.x_train.T, -1, 1)
    kernel = cosine * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    np.fill_diagonal(kernel, 0.5)
    expected = np.sqrt(2 * data.y_train @ np.linalg.solve(kernel, data.y_train) / 40)
    assert record["complexity"] == pytest.approx(expected, rel=1e-9)
    values = np.linalg.eigvalsh(kernel)
    assert [record["lambda_min"], record["lambda_max"]] == pytest.approx([values[0], values[-1]], rel=1e-9)
    assert (record["n"], record["dataset"], record["classes"]) == (40, "digits", [3, 8])
    _, text, _ = run(capsys, "complexity", "--n-train", 40, "--classes", 3, 8)
    assert f"complexity {expected:.4f}" in text


def test_complexity_records_groups_of_classes(capsys):
    _, shown, _ = run(capsys, "complexity", "--n-train", 30, "--classes", "even", "1,3", "--json")
    assert json.loads(shown)["classes"] == [[0, 2, 4, 6, 8], [1, 3]]


def test_data_list(capsys):
    code, shown, _ = run(capsys, "data", "list")
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()] == ["digits", "mnist", "fashion-mnist", "cifar10"]
    assert "scikit-learn" in shown.splitlines()[0]
    _, shown, _ = run(capsys, "data", "list", "--json")
    assert json.loads(shown)["datasets"][0]["name"] == "digits"


def test_durations_are_in_the_largest_unit_that_fits():
    durations = {0.25: "0.25 seconds", 119.0: "119 seconds", 240.0: "4 minutes", 7200.0: "2 hours", 4e5: "4.6 days"}
    assert {seconds: in_words(seconds) for seconds in durations} == durations


@pytest.mark.slow
def test_a_stored_run_is_verified_and_drawn_again(capsys, tmp_path):
    out = tmp_path / "run"
    flags = "--n-train 16 --n-test 6 --widths 8 16 --seeds 2 --steps 3 --activation relu tanh"
    _, shown, _ = run(capsys, "sweep", *flags.split(), "--out", out)
    verdict, _ = shown.split("\nWritten to ")
    assert run(capsys, "verify", out) == (0, verdict.rstrip("\n") + "\n", "")
    assert run(capsys, "verify", out / "result.nc") == (0, verdict.rstrip("\n") + "\n", "")
    _, shown, _ = run(capsys, "verify", out, "--tolerance", 0.5, "--json")
    assert json.loads(shown)["verdict"]["points"][0]["tolerance"] == 0.5
    figures = sorted(path.name for path in (out / "figures").iterdir())
    code, shown, _ = run(capsys, "plot", out, "--out", tmp_path / "new")
    assert code == 0
    assert sorted(shown.split()) == [str(tmp_path / "new" / "figures" / name) for name in figures]
    assert all((tmp_path / "new" / "figures" / name).read_bytes()[:4] == b"\x89PNG" for name in figures)
    code, _, errors = run(capsys, "verify", tmp_path)
    assert code == 2
    assert errors.startswith(f"lazynet: '{tmp_path}' does not contain the result of a finished study")


COMMANDS = ("sweep", "width", "verify", "plot", "merge", "status", "infinite-width", "complexity", "reproduce", "data")


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), ["data", "list"], ["data", "fetch"]])
def test_help_of_a_command_begins_with_its_usage(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: lazynet {' '.join(command)} ")


def test_help_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    assert f"{{{','.join(COMMANDS)}}}" in capsys.readouterr().out


def test_help_names_all_activations(capsys):
    assert cli.main(["sweep", "--help"]) == 0
    text = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"--activation{{{','.join(ACTIVATIONS)}}}...Activation;" in text


@pytest.mark.slow
def test_the_module_is_a_program():
    command = [sys.executable, "-m", "lazynet", "complexity", "--n-train", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["n"] == 20


def test_complexity_of_more_than_can_be_factored():
    data = lz.load_dataset("digits", n_train=200, n_test=0)
    factored, multiplied = (complexity_record(data, most) for most in (200, 199))
    assert multiplied["complexity"] == pytest.approx(factored["complexity"], rel=1e-5)
    assert multiplied["complexity"] != factored["complexity"]
    assert multiplied["lambda_max"] == pytest.approx(factored["lambda_max"], rel=1e-9)
    assert factored["lambda_min"] <= multiplied["lambda_min"] * (1 + 1e-9)
    assert multiplied["lambda_min"] <= 1.2 * factored["lambda_min"]
