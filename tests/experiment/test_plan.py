"""Planned memory and operations, compared with those of compiled programs and arrays."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet import cli, plan
from lazynet.experiment import check_memory_of, infinite_width_jobs, make_spec, make_training, sweep_jobs
from lazynet.losses import get_loss
from lazynet.plan import Job
from lazynet.studies.sweep import _study as study
from lazynet.training import Member, choose_stepper

DIGITS = lz.load_dataset("digits", n_train=64, n_test=36)


@pytest.mark.parametrize(
    ("stepper", "train"),
    [
        ("hidden", "hidden"),
        ("preactivation", "hidden"),
        *(("autodiff", part) for part in ("hidden", "readout", "both")),
    ],
)
def test_operations_of_a_step_are_those_that_xla_counts(stepper, train):
    n, d, width = 96, 40, 1024
    x = np.random.default_rng(0).normal(size=(n, d)).astype("float32")
    y = np.ones(n, "float32")
    network = lz.TwoLayer(width=width, train=train)
    chosen = choose_stepper(network, get_loss("squared"), lz.Optimizer(stepper=stepper), None, x)
    arrays = chosen.share(x)
    shared = {name: jnp.asarray(value) for name, value in arrays.items()} | {"y": y, "learning_rate": jnp.ones(())}
    member = Member(dict(network.init(jax.random.key(0), x)), jax.random.key(1), None)
    state = chosen.start(member, shared)
    step = jax.jit(lambda state, member, shared: chosen.step(state, member, shared, jnp.asarray(0))[:2])
    counted = step.lower(state, member, shared).compile().cost_analysis()["flops"]
    # The rest is products with the readout and elementwise work, a few operations for each of n m pre-activations.
    said = chosen.operations(arrays)
    assert said <= counted <= said + 20 * n * width


def jobs(widths, seeds=3, network=None, axes=None, **options):
    settings = {"loss": "squared", "optimizer": "sgd", "batch_size": None, "snapshots": 5, "stop": None}
    training = make_training(10, **{**settings, "measure": None, "dtype": "float32", **options})
    return sweep_jobs(make_spec(network or lz.TwoLayer(width=2), DIGITS, widths, seeds, training, 0.1, axes))


def test_bytes_and_operations_of_a_sweep():
    limit, small, large = jobs([128, 256])
    assert limit.bytes == {"kernels": 8 * 64 * 164, "work": 16 * 64**2}
    assert small.bytes == {
        # Hidden weights and readout, both initial and final.
        "variables": 2 * 3 * 4 * 128 * 65,
        # The stepper updates pre-activations; its state consists of these, the sum of their updates, slopes of one
        # byte each, and outputs.
        "states": 3 * (4 * 2 * 128 * 64 + 128 * 64 + 4 * 64),
        "kernels of networks": 8 * 64 * 100 + 24 * 64**2,
        "infinite-width kernels": 8 * 64 * 164,
    }
    assert small.flops["training"] == 3 * 10 * 128 * 2 * 64**2
    assert large.flops["training"] == 2 * small.flops["training"]
    assert large.bytes["variables"] == 2 * small.bytes["variables"]


def test_operations_at_several_points_add_up_and_bytes_are_the_most():
    few, many, both = (jobs([128], axes={"n_train": n})[1] for n in ([32], [64], [32, 64]))
    assert both.flops == {name: few.flops[name] + many.flops[name] for name in many.flops}
    assert both.bytes == many.bytes != few.bytes
    assert both.name.endswith("at each of 2 points")


def test_doubles_other_losses_and_optimizers_and_scales():
    (_, single), (_, double) = (jobs([128], dtype=dtype) for dtype in ("float32", "float64"))
    assert double.bytes["variables"] == 2 * single.bytes["variables"]
    _, logistic = jobs([128], loss="logistic")
    # No kernel is diagonalized, because kernel descent on another loss is computed step by step.
    assert logistic.flops["eigenvectors"] == logistic.flops["linearized"] == 0
    assert logistic.flops["kernel descent"] == 2 * 3 * 10 * 64**2
    assert single.flops["kernel descent"] == 0 < single.flops["eigenvectors"]
    # The state of Adam consists of the weights, their two moments and the number of steps.
    _, adam = jobs([128], optimizer="adam")
    assert adam.bytes["states"] == 3 * 4 * (3 * 128 * 64 + 1)
    # Kernel descent cannot predict Adam, so the linearized network itself is trained.
    assert adam.flops["linearized"] == 2 * adam.flops["training"] > 0
    assert adam.bytes["kernels of networks"] == 8 * 64**2
    *_, wide = jobs([128], dtype="float64")
    assert wide.bytes["states"] == 3 * (8 * 2 * 128 * 64 + 128 * 64 + 8 * 64)
    limit, *_ = jobs([128, 256], network=lz.TwoLayer(width=2, output_scale=np.sqrt))
    assert limit.bytes["kernels"] == 2 * 8 * 64 * 164


def test_a_sweep_that_does_not_fit_is_refused_before_work(monkeypatch):
    monkeypatch.setattr(plan, "available_memory", lambda: 2**31)
    monkeypatch.setattr(study, "compute_cell", lambda *_: pytest.fail("work was started"))
    with pytest.raises(ValueError, match=r"Training 2 networks of width 16777216 needs .* but only 2\.15 GB is free"):
        lz.sweep(lz.TwoLayer(width=2), DIGITS, [64, 2**24], seeds=2, steps=10)


def test_a_job_in_one_line():
    job = Job("A job", {"weights": 2_000_000_000, "nothing": 0}, {"training": 5e11})
    assert str(job) == "A job: 2 GB (weights 2), 0.5 TFLOP (training 0.5)"
    assert str(Job("Another", {}, {})) == "Another: 0 GB, 0 TFLOP"


def test_memory_and_operations_of_infinite_width():
    kernel, products = infinite_width_jobs(DIGITS, "float32", "none")
    assert kernel.bytes == {}
    assert products.flops["recomputed entries"] > 0
    kernel, products = infinite_width_jobs(DIGITS, "float32", None)
    assert kernel.bytes == {"entries": 4 * 64**2}
    assert products.flops["recomputed entries"] == 0
    assert products.bytes == {"basis": 8 * 64 * 60 * 8, "preconditioner": 2 * 8 * 64 * 8}
    assert "on disk" in str(infinite_width_jobs(DIGITS, "float32", "disk")[0])
    # Two sets of labels with ten outputs each, and four random columns.
    ten = lz.load_dataset("digits", tuple(range(10)), n_train=64)
    assert infinite_width_jobs(ten, "float32", None)[1].flops["products"] == 60 * 2 * 64**2 * 24


@pytest.mark.parametrize(
    "flags",
    [
        *(["infinite-width", *flags] for flags in (["--dtype", "half"], ["--storage", "cloud"], ["--steps", "0"])),
        *(["infinite-width", *flags] for flags in (["--tolerance", "-1"], ["--activation", "step"])),
        *(["sweep", *flags] for flags in (["--optimizer", "best"], ["--label-noise", "7"], ["--seeds", "0"])),
    ],
)
def test_a_plan_refuses_what_the_command_refuses(flags, capsys):
    assert cli.main([*flags, "--n-train", "16", "--plan"]) == 2
    assert flags[1] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sweep", "infinite-width"])
def test_the_command_line_prints_a_plan_and_does_nothing(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(lz, command.replace("-", "_"), lambda *_, **__: pytest.fail("work was started"))
    flags = [command, "--n-train", "64", "--n-test", "36", "--plan", "--out", str(tmp_path / "new")]
    assert cli.main(flags) == 0
    said = capsys.readouterr().out
    assert "GB of memory is free" in said
    assert re.search(r"^In total [\d.e-]+ TFLOP, which take at least [\d.e-]+ \w+ at ", said, re.MULTILINE)
    assert cli.main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["free_bytes"] > 0
    assert found["flops"] == sum(sum(job["flops"].values()) for job in found["jobs"]) > 0
    assert 0 < found["seconds"] < 60
    assert all(sum(job["flops"].values()) > 0 for job in found["jobs"])
    assert not (tmp_path / "new").exists()


def test_checking_the_memory_lowers_no_network():
    """A custom network is traced to choose the size of its packs, but not to count operations that are never shown."""
    calls = []

    def apply(params, x):
        calls.append(x.shape)
        return jnp.tanh(x @ params["hidden"].T) @ params["readout"]

    def init(key, x, width):
        return {"hidden": jax.random.normal(key, (width, x.shape[1])), "readout": jnp.ones(width)}

    training = make_training(
        10,
        loss="squared",
        optimizer="sgd",
        batch_size=None,
        snapshots=5,
        stop=None,
        measure=lz.Measure(predictions=False),
        dtype="float32",
    )
    spec = make_spec(lz.from_functions(init, apply), DIGITS, [8, 16], 4, training, 0.1)
    calls.clear()
    check_memory_of(spec)
    assert len(calls) == 2
