"""The benchmarks run, compare all contenders, and write their tables and JSON."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY_NTK = ["--n", "6", "--d", "4", "--m", "16", "--rounds", "2"]
TINY_SWEEP = [
    *("--datasets", "digits", "--activations", "relu", "--widths", "16", "32"),
    *("--steps", "3", "--snapshots", "2", "--n-train", "16", "--n-test", "8"),
]


def python(*arguments):
    """Run Python in a new process: neural-tangents does not pass the strict settings of the test process."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def run_to_json(folder, *arguments):
    file = folder / "made" / "result.json"
    done = python("-m", "benchmarks", *arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert set(record["versions"]) == {"jax", "jaxlib", "flax", "optax", "neural-tangents", "lazynet"}
    assert record["name"] == arguments[0]
    assert record["dtype"] == "float32"
    assert {"device", "cpu_count", "settings", "notes", "seconds"} < set(record)
    return record, done.stdout


def test_list_has_one_line_for_each_benchmark():
    done = python("-m", "benchmarks")
    assert done.returncode == 0, done.stderr
    for name in ("empirical_ntk", "finite_vs_infinite"):
        (line,) = (line for line in done.stdout.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3
        assert len(line) <= 120


def test_unknown_name_is_refused_in_one_line():
    done = python("-m", "benchmarks", "nonesuch")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'nonesuch'" in line
    assert "empirical_ntk" in line
    assert "finite_vs_infinite" in line


def test_unknown_data_set_is_refused_in_one_line():
    done = python("-m", "benchmarks", "finite_vs_infinite", "--datasets", "nonesuch")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "nonesuch" in line
    assert "digits" in line


@pytest.mark.slow
def test_empirical_ntk_compares_all_contenders(tmp_path):
    record, table = run_to_json(tmp_path, "empirical_ntk", *TINY_NTK)
    ours, *peers = record["rows"]
    assert ours["contender"] == "lazynet"
    assert [row["contender"] for row in peers] == ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"]
    assert ours["speedup_best"] == pytest.approx(min(row["best_seconds"] for row in peers) / ours["best_seconds"])
    for row in record["rows"]:
        assert 0 < row["best_seconds"] <= row["median_seconds"] < row["first_seconds"]
        assert row["relative_difference"] < 1e-5
        assert row["rounds"] == 2
        assert row["contender"] in table
    for row in peers:
        # The peer runs in the fastest setting of its trials.
        best = min(row["trials"], key=lambda setting: setting["best_seconds"])
        assert (row["vmap_axes"], row["trace_axes"]) == (best["vmap_axes"], best["trace_axes"])


@pytest.mark.slow
def test_empirical_ntk_fails_when_the_kernels_differ():
    scale_ours = """
import sys
import lazynet as lz
right = lz.empirical_ntk
lz.empirical_ntk = lambda *arguments, **options: 1.01 * right(*arguments, **options)
from benchmarks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    done = python("-c", scale_ours, "empirical_ntk", *TINY_NTK)
    assert done.returncode == 1
    assert "differ by 9.9e-03" in done.stderr


@pytest.mark.slow
def test_finite_vs_infinite_has_a_row_for_each_width(tmp_path):
    record, table = run_to_json(tmp_path, "finite_vs_infinite", *TINY_SWEEP)
    assert [(row["dataset"], row["activation"], row["width"]) for row in record["rows"]] == [
        ("digits", "relu", 16),
        ("digits", "relu", 32),
    ]
    gaps = ("kernel_gap_train", "kernel_gap_test", "linearization_gap_train", "initial_kernel_error")
    for row in record["rows"]:
        for name in (*gaps, "relative_displacement", "compile_seconds", "run_seconds"):
            assert math.isfinite(row[name]), name
            assert row[name] > 0, name
        assert row["compile_seconds"] + row["run_seconds"] == pytest.approx(row["seconds"])
        assert row["diverged"] == 0
        assert f"{row['kernel_gap_train']:.4f}" in table


def test_finite_vs_infinite_names_the_rows_beyond_its_budget(tmp_path):
    record, table = run_to_json(tmp_path, "finite_vs_infinite", *TINY_SWEEP, "--budget", "0")
    assert record["rows"] == []
    assert "left out: digits relu 16, digits relu 32" in " ".join(table.split())


def test_an_absent_data_set_is_noted_and_not_downloaded(tmp_path, monkeypatch):
    for name in ("LAZYNET_DATA", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    record, _ = run_to_json(tmp_path, "finite_vs_infinite", "--datasets", "cifar10")
    assert record["rows"] == []
    assert any(note.startswith("cifar10 is left out") for note in record["notes"])


@pytest.mark.slow
def test_kernel_build_compares_both(tmp_path):
    record, table = run_to_json(tmp_path, "kernel_build", "--n", "40", "--d", "5", "--rounds", "2")
    ours, peer = record["rows"]
    assert [ours["contender"], peer["contender"]] == ["lazynet", "neural-tangents"]
    assert ours["share"] == pytest.approx(ours["best_seconds"] / peer["best_seconds"])
    assert ours["difference"] < 1e-3
    assert "share" in table


@pytest.mark.slow
def test_kernel_descent_compares_both(tmp_path):
    arguments = ["--n", "60", "--dataset", "digits", "--dtypes", "float32", "--extrapolate", "80"]
    record, table = run_to_json(tmp_path, "kernel_descent", *arguments)
    ours, peer, larger = record["rows"]
    assert [ours["contender"], peer["contender"], larger["n"]] == ["lazynet", "neural-tangents", 80]
    assert ours["speedup"] == pytest.approx(peer["best_seconds"] / ours["best_seconds"])
    assert ours["difference"] < 1e-4
    assert peer["difference"] < 1e-2
    assert any("by n^3" in note for note in record["notes"])
    assert "diff" in table


@pytest.mark.slow
def test_full_mnist_scales_the_time_of_the_peer(tmp_path):
    sizes = ["--n-train", "90", "--n-test", "20", "--steps", "100", "--peer-n", "45"]
    record, table = run_to_json(tmp_path, "full_mnist", "--dataset", "digits", *sizes)
    ours, measured, scaled = record["rows"]
    assert [row["contender"] for row in record["rows"]] == ["lazynet", "neural-tangents", "neural-tangents"]
    stages = sum(ours[f"{stage}_seconds"] for stage in ("kernel", "complexity", "predictions"))
    assert 0 < stages <= (1 + 1e-9) * ours["seconds"]
    assert ours["prediction_error"] < 1e-4
    assert scaled["predictions_seconds"] == pytest.approx(8 * measured["predictions_seconds"])
    assert "peak GB" in table


@pytest.mark.slow
def test_empirical_ntk_deep_compares_all_contenders(tmp_path):
    sizes = ["--n", "12", "--peer-rows", "6", "--d", "4", "--m", "8", "--layers", "3", "--k", "2"]
    record, table = run_to_json(tmp_path, "empirical_ntk_deep", *sizes, "--outputs", "all", "--rounds", "1")
    ours, *peers = record["rows"]
    assert [row["contender"] for row in peers] == ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"]
    best = min(row["best_seconds"] for row in peers)
    assert ours["speedup_squared"] == pytest.approx(4 * best / ours["best_seconds"])
    assert ours["speedup_linear"] == pytest.approx(2 * best / ours["best_seconds"])
    assert ours["difference"] < 1e-13
    for row in peers:
        assert row["difference"] < 1e-5
        assert row["best_seconds"] == min(setting["best_seconds"] for setting in row["trials"])
    assert "x by n^2" in table


@pytest.mark.slow
@pytest.mark.parametrize("what", ["training", "experiment"])
def test_sweep_throughput_trains_like_the_loops(what, tmp_path):
    flags = (
        "--n",
        "12",
        "--d",
        "5",
        "--seeds",
        "2",
        "--steps",
        "20",
        "--snapshots",
        "4",
        "--rounds",
        "1",
        "--widths",
        "16",
        "32",
    )
    record, table = run_to_json(tmp_path, "sweep_throughput", "--what", what, *flags)
    ours, loop, *others = record["rows"]
    assert (ours["contender"], loop["contender"]) == ("lazynet", "loop")
    assert ours["speedup"] == pytest.approx(loop["best_seconds"] / ours["best_seconds"])
    # The orders of sums in float32 differ.
    assert ours["difference"] < 1e-3
    assert (ours["sgemm_share"] is None) == (what == "experiment")
    assert what in table
    if what == "experiment":
        *_, ours, total = others
        assert [ours["width"], total["width"]] == ["all", "all"]
        assert total["best_seconds"] == pytest.approx(loop["best_seconds"] + others[1]["best_seconds"])
        assert ours["speedup"] == pytest.approx(total["best_seconds"] / ours["best_seconds"])
