"""What the commands print and how they end, on data small enough to run in a second."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

import lazynet as lz
from lazynet import cli

SMALL = ["--n-train", "16", "--n-test", "6", "--widths", "8", "16", "--seeds", "2", "--steps", "3"]


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def settings_of(monkeypatch):
    """What `lazynet sweep` asks of `lz.sweep`, without doing it."""

    class Asked(Exception):
        pass

    def of(*arguments):
        asked = {}

        def sweep(network, data, widths, seeds, steps, **more):
            asked.update(more, network=network, data=data, widths=tuple(widths), seeds=seeds, steps=steps)
            raise Asked

        monkeypatch.setattr(lz, "sweep", sweep)
        with pytest.raises(Asked):
            cli.main(["sweep", *arguments])
        return asked

    return of


def test_the_default_is_the_demonstration(settings_of):
    asked = settings_of()
    data = asked["data"]
    assert (data.name, data.n_train, data.n_test) == ("digits", 256, 100)
    np.testing.assert_array_equal(data.y_train, lz.load_dataset("digits", (0, 1), 256, 100).y_train)
    assert asked["widths"] == (64, 128, 256, 512, 1024, 2048, 4096)
    assert (asked["seeds"], asked["steps"], asked["snapshots"]) == (8, 1000, 20)
    assert asked["learning_rate"] is None
    assert asked["batch_size"] is None
    assert (asked["optimizer"], asked["dtype"], asked["label_noise"]) == ("sgd", "float32", (0.0,))
    assert (asked["activation"], asked["init_scale"], asked["output_scale"]) == (("relu",), (1.0,), (1.0,))
    assert asked["network"].clone(width=64) == lz.TwoLayer(width=64)


def test_every_flag_reaches_the_sweep(settings_of):
    flags = """--dataset digits --classes 3,5 8 --n-train 32 --n-test 7 --widths 4 6 --seeds 3 --steps 9 --snapshots 5
        --learning-rate 0.25 --activation erf --train both --init-scale 2 --output-scale 3 --label-noise 0.1
        --batch-size 8 --optimizer adam --dtype float64"""
    asked = settings_of(*flags.split())
    expected = lz.load_dataset("digits", ((3, 5), 8), 32, 7)
    np.testing.assert_array_equal(asked["data"].x_test, expected.x_test)
    np.testing.assert_array_equal(asked["data"].y_train, expected.y_train)
    assert (asked["widths"], asked["seeds"], asked["steps"], asked["snapshots"]) == ((4, 6), 3, 9, 5)
    assert (asked["learning_rate"], asked["label_noise"], asked["batch_size"]) == ((0.25,), (0.1,), (8,))
    assert (asked["optimizer"], asked["dtype"]) == ("adam", "float64")
    assert (asked["activation"], asked["init_scale"], asked["output_scale"]) == (("erf",), (2.0,), (3.0,))
    assert asked["network"] == lz.TwoLayer(width=6, train="both")
    assert asked["n_train"] == (32,)


def test_sweep_writes_and_prints_its_verdict(capsys, tmp_path):
    out = tmp_path / "runs" / "digits"
    code, shown, errors = run(capsys, "sweep", *SMALL, "--out", out)
    assert code == 0
    assert errors == ""
    for word in ("relative_displacement", "Levels at width 16", "path bound", f"Written to {out}"):
        assert word in shown
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.suffix != ".npz")
    assert found == ["cells", "figures", "figures/sweep.png", "lock", "result.nc", "settings.json", "verdict.json"]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["classes"] == [0, 1]
    assert settings["widths"] == [8, 16]


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


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("check", [True, False])
def test_check_decides_the_exit_code(check, passes, capsys, monkeypatch):
    whole = lz.verify
    real = [lz.sweep(lz.TwoLayer(width=8), lz.load_dataset("digits", n_train=8, n_test=4), [8], 1, 1)]
    monkeypatch.setattr(lz, "sweep", lambda *args, **options: real[0].copy())
    # The bound is shrunk below what it bounds, or made larger than any measurement.
    factor = 1e6 if passes else 1e-6
    monkeypatch.setattr(lz, "verify", lambda result: whole(result.assign(path_bound=result.path_bound * factor)))
    code, shown, _ = run(capsys, "sweep", *SMALL, *["--check"] * check)
    assert code == (1 if check and not passes else 0)
    assert ("fails" in shown) != passes


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
    assert errors.startswith("lazynet: warning: learning_rate is 5 ")
    assert f"{limit:.6g}" in errors


def test_predict(capsys, tmp_path):
    small = ["predict", "--n-train", 40, "--n-test", 12, "--steps", 30]
    code, shown, errors = run(capsys, *small, "--out", tmp_path / "run")
    assert (code, errors) == (0, "")
    assert "loss, random labels" in shown
    assert "are not resolved" in shown
    found = sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.*"))
    assert found == ["figures/predict.png", "result.nc", "settings.json"]
    code, shown, _ = run(capsys, *small, "--json")
    record = json.loads(shown)
    data = lz.load_dataset("digits", n_train=40, n_test=12)
    kernel = lz.analytic_kernel(lz.TwoLayer(width=2))
    expected = lz.complexity(kernel(data.x_train), data.y_train)
    assert record["complexity"]["true"] == pytest.approx(expected, rel=1e-3)
    assert record["settings"]["classes"] == [0, 1]
    assert record["prediction_error"] <= 1e-4


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


@pytest.mark.parametrize("command", [[], ["sweep"], ["complexity"], ["data"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--help"])
    assert not stopped.value.code
    assert "lazynet" in capsys.readouterr().out


def test_the_module_is_a_program():
    command = [sys.executable, "-m", "lazynet.cli", "complexity", "--n-train", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["n"] == 20


def test_the_sweep_module_is_found_by_name():
    """`lazynet.sweep` is the function; the package of that name stays importable."""
    assert callable(lz.sweep)
    assert importlib.import_module("lazynet.studies.sweep._api").sweep is lz.sweep


def test_complexity_of_more_than_can_be_factored(capsys, monkeypatch):
    found = []
    for most in (200, 199):
        monkeypatch.setattr("lazynet.cli._limits.FACTORED", most)
        monkeypatch.setattr(sys.modules["lazynet.kernels._solve"], "FACTORED", most)
        assert cli.main(["complexity", "--n-train", "200", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
        monkeypatch.setattr("scipy.linalg.cho_factor", None)
    assert found[1]["complexity"] == pytest.approx(found[0]["complexity"], rel=1e-5)
    assert found[1]["lambda_max"] == pytest.approx(found[0]["lambda_max"], rel=1e-9)
    assert found[0]["lambda_min"] <= found[1]["lambda_min"] * (1 + 1e-9)
    assert found[1]["lambda_min"] <= 1.2 * found[0]["lambda_min"]
