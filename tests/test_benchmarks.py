"""The benchmarks run, compare all contenders, and write their tables and JSON."""

import io
import json
import math
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from benchmarks import empirical_ntk, own_functions, smooth_kernels
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[1]
# The warm-up call before memory is measured has four rows too, so that nothing is compiled twice.
TINY_NTK = ["--n", "4", "--d", "4", "--m", "16", "--rounds", "2"]
TINY_DEEP = ["--n", "12", "--peer-rows", "6", "--d", "4", "--m", "8", "--layers", "2", "--k", "2", "--rounds", "1"]
TINY_SWEEP = [
    *("--datasets", "digits", "--activations", "relu", "--widths", "16", "32"),
    *("--steps", "3", "--snapshots", "2", "--n-train", "16", "--n-test", "8"),
]
TINY_MEMBERS = ["--n", "12", "--d", "5", "--seeds", "2", "--steps", "20", "--snapshots", "4", "--rounds", "1"]
SLOW = {
    # This benchmark clears JAX's caches, so it runs first.
    "finite_vs_infinite": ["finite_vs_infinite", *TINY_SWEEP],
    "empirical_ntk": ["empirical_ntk", *TINY_NTK],
    "empirical_ntk_deep": ["empirical_ntk_deep", *TINY_DEEP, "--outputs", "all"],
    "kernel_build": ["kernel_build", "--n", "40", "--d", "5", "--rounds", "2"],
    "kernel_descent": [
        *("kernel_descent", "--n", "60", "--dataset", "digits", "--dtypes", "float32", "--extrapolate", "80")
    ],
    "full_mnist": [
        *("full_mnist", "--dataset", "digits", "--n-train", "90", "--n-test", "20", "--steps", "100", "--peer-n", "45")
    ],
    "training": ["sweep_throughput", "--what", "training", *TINY_MEMBERS, "--widths", "16"],
    "experiment": ["sweep_throughput", "--what", "experiment", *TINY_MEMBERS, "--widths", "16", "32"],
}
FAST = {
    "no budget": ["finite_vs_infinite", *TINY_SWEEP, "--budget", "0"],
    "no data": ["finite_vs_infinite", "--datasets", "cifar10"],
    "unknown data": ["finite_vs_infinite", "--datasets", "nonesuch"],
}
# Imports take longer than a small benchmark, so several benchmarks run in one process, and memory is measured in a
# separate process only for the first peer.
SEVERAL = """
import contextlib, importlib, io, json, pathlib, sys
from benchmarks import empirical_ntk, empirical_ntk_deep, kernel_build
from benchmarks.__main__ import main

def called_here(module, build, **arguments):
    getattr(importlib.import_module(module), build)(**arguments)()
    return 1_000_000

def first_peer_elsewhere(module, build, *, setting, measure=empirical_ntk.peak_memory, **arguments):
    peers.append(setting)
    return (measure if peers == [None, setting] else called_here)(module, build, setting=setting, **arguments)

peers = []
empirical_ntk.peak_memory = first_peer_elsewhere
empirical_ntk_deep.peak_memory = kernel_build.peak_memory = called_here
for name, arguments in json.loads(sys.argv[1]).items():
    folder = pathlib.Path(sys.argv[2]) / name
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([*arguments, "--json", str(folder / "made" / "result.json")])
    folder.mkdir(exist_ok=True)
    (folder / "shown.json").write_text(json.dumps([code, out.getvalue(), errors.getvalue()]))
"""


def python(*arguments):
    """Run Python in a new process, because neural-tangents fails under the strict settings of the test process."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def run_here(folder):
    """Run the fast benchmarks in this process, where they find only the data that come with scikit-learn."""
    for name, arguments in FAST.items():
        out, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
            for variable in ("LAZYNET_DATA", "XDG_CACHE_HOME", "HOME"):
                patch.setenv(variable, str(folder))
            code = main([*arguments, "--json", str(folder / name / "made" / "result.json")])
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "shown.json").write_text(json.dumps([code, out.getvalue(), errors.getvalue()]))


def run_elsewhere(folder):
    done = python("-c", SEVERAL, json.dumps(SLOW), str(folder))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Return a function that gives the exit code, the output, the errors and the record of a benchmark."""
    ran = {}

    def result(name):
        group = SLOW if name in SLOW else FAST
        if name not in ran:
            folder = tmp_path_factory.mktemp("benchmarks")
            (run_elsewhere if group is SLOW else run_here)(folder)
            for each in group:
                record = folder / each / "made" / "result.json"
                ran[each] = (
                    *json.loads((folder / each / "shown.json").read_text()),
                    json.loads(record.read_text()) if record.exists() else None,
                )
        return ran[name]

    return result


@pytest.fixture
def shown(several):
    """Return a function that gives the record and the output of a benchmark, which must succeed."""

    def record_and_output(name):
        code, output, errors, record = several(name)
        assert code == 0, errors
        assert set(record["versions"]) == {"jax", "jaxlib", "flax", "optax", "neural-tangents", "lazynet"}
        assert record["name"] == (SLOW | FAST)[name][0]
        assert record["dtype"] == "float32"
        assert {"device", "cpu_count", "settings", "notes", "seconds"} < set(record)
        return record, output

    return record_and_output


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


@pytest.mark.whole
def test_unknown_data_set_is_refused_in_one_line(several):
    code, _, errors, record = several("unknown data")
    assert (code, record) == (2, None)
    (line,) = errors.splitlines()
    assert "nonesuch" in line
    assert "digits" in line


@pytest.mark.whole
def test_empirical_ntk_compares_all_contenders(shown):
    record, table = shown("empirical_ntk")
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


def test_empirical_ntk_fails_when_the_kernels_differ():
    ours = np.ones((3, 3))
    assert empirical_ntk.check_agreement("peer", (1 + 1e-6) * ours, ours) == pytest.approx(1e-6)
    with pytest.raises(RuntimeError, match=r"lazynet and peer differ by 9.9e-03 of their norm"):
        empirical_ntk.check_agreement("peer", ours, 1.01 * ours)


@pytest.mark.whole
def test_own_functions_are_lowered_in_each_call():
    report = own_functions.run(n=6, width=4, steps=2, rounds=1)
    assert [row["call"] for row in report.rows] == list(own_functions.CALLS)
    for row in report.rows:
        assert row["lowerings"] > 0
        assert row["overhead_seconds"] == pytest.approx(row["own_seconds"] - row["named_seconds"])
        assert 0 < row["lowering_seconds"] < row["own_seconds"]
    own_functions.show(report)


@pytest.mark.whole
def test_smooth_kernels_are_compared_with_that_of_erf(capsys, monkeypatch):
    monkeypatch.setattr(smooth_kernels, "ACTIVATIONS", ("erf", "tanh"))
    report = smooth_kernels.run(n=20, d=(3,), rounds=1)
    assert [row["activation"] for row in report.rows] == 2 * list(smooth_kernels.ACTIVATIONS)
    for rows in (report.rows[: len(smooth_kernels.ACTIVATIONS)], report.rows[len(smooth_kernels.ACTIVATIONS) :]):
        assert rows[0]["ratio"] == 1
        for row in rows:
            assert row["ratio"] == row["median_seconds"] / rows[0]["median_seconds"] > 0
            # Which call is slower depends on what the process has already tabulated.
            assert row["first_seconds"] > 0
    smooth_kernels.show(report)
    assert "Kernels of 20 rows" in capsys.readouterr().out


@pytest.mark.whole
def test_finite_vs_infinite_has_a_row_for_each_width(shown):
    record, table = shown("finite_vs_infinite")
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


@pytest.mark.whole
def test_finite_vs_infinite_names_the_rows_beyond_its_budget(shown):
    record, table = shown("no budget")
    assert record["rows"] == []
    assert "left out: digits relu 16, digits relu 32" in " ".join(table.split())


def test_an_absent_data_set_is_noted_and_not_downloaded(shown):
    record, _ = shown("no data")
    assert record["rows"] == []
    assert any(note.startswith("cifar10 is left out") for note in record["notes"])


@pytest.mark.whole
def test_kernel_build_compares_both(shown):
    record, table = shown("kernel_build")
    ours, peer = record["rows"]
    assert [ours["contender"], peer["contender"]] == ["lazynet", "neural-tangents"]
    assert ours["share"] == pytest.approx(ours["best_seconds"] / peer["best_seconds"])
    assert ours["difference"] < 1e-3
    assert "share" in table


@pytest.mark.whole
def test_kernel_descent_compares_both(shown):
    record, table = shown("kernel_descent")
    ours, peer, larger = record["rows"]
    assert [ours["contender"], peer["contender"], larger["n"]] == ["lazynet", "neural-tangents", 80]
    assert ours["speedup"] == pytest.approx(peer["best_seconds"] / ours["best_seconds"])
    assert ours["difference"] < 1e-4
    assert peer["difference"] < 1e-2
    assert any("as n^3" in note for note in record["notes"])
    assert "diff" in table


@pytest.mark.whole
def test_full_mnist_scales_the_time_of_the_peer(shown):
    record, table = shown("full_mnist")
    ours, measured, scaled = record["rows"]
    assert [row["contender"] for row in record["rows"]] == ["lazynet", "neural-tangents", "neural-tangents"]
    stages = sum(ours[f"{stage}_seconds"] for stage in ("kernel", "complexity", "predictions"))
    assert 0 < stages <= (1 + 1e-9) * ours["seconds"]
    assert ours["prediction_error"] < 1e-4
    assert scaled["predictions_seconds"] == pytest.approx(8 * measured["predictions_seconds"])
    assert "peak GB" in table


@pytest.mark.whole
def test_empirical_ntk_deep_compares_all_contenders(shown):
    record, table = shown("empirical_ntk_deep")
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


@pytest.mark.whole
@pytest.mark.parametrize("what", ["training", "experiment"])
def test_sweep_throughput_trains_like_the_loops(what, shown):
    record, table = shown(what)
    ours, loop, *others = record["rows"]
    assert (ours["contender"], loop["contender"]) == ("lazynet", "loop")
    assert ours["speedup"] == pytest.approx(loop["best_seconds"] / ours["best_seconds"])
    # The contenders compute float32 sums in different orders.
    assert ours["difference"] < 1e-3
    assert (ours["sgemm_share"] is None) == (what == "experiment")
    assert what in table
    if what == "experiment":
        *_, ours, total = others
        assert [ours["width"], total["width"]] == ["all", "all"]
        assert total["best_seconds"] == pytest.approx(loop["best_seconds"] + others[1]["best_seconds"])
        assert ours["speedup"] == pytest.approx(total["best_seconds"] / ours["best_seconds"])
