"""Test that the claims of Arora et al. 2019 hold at the smallest size and fail on data that contradict them."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet import cli
from lazynet.papers import Claim, Reproduction, arora2019, du2018
from lazynet.papers import arora2019_functions as functions
from lazynet.papers.arora2019_sizes import SIZES, jobs
from lazynet.papers.work import Work
from lazynet.studies.sweep import population_bounds, speed_gap
from lazynet.theory import unseen_share

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def paper(reproduced):
    return reproduced("arora2019")


@pytest.fixture(scope="module")
def data():
    return arora2019.labeled(arora2019.images("digits", TINY.speed.n))


@pytest.fixture(scope="module")
def sweeps(paper):
    return {kind: paper.part(f"speed-digits-{kind}") for kind in arora2019.LABELS}


@pytest.fixture(scope="module")
def scales(paper):
    return paper.part("scales-digits-true")


@pytest.fixture(scope="module")
def norms(paper):
    return functions.norms_of(paper.work, TINY.functions)


def broken(claims):
    return [f"{claim.name}: {claim.statement}" for claim in claims if not claim.holds]


@pytest.mark.slow
def test_labels_are_learned_in_their_order(paper):
    curves = {kind: paper.part(f"curves-digits-{kind}") for kind in arora2019.LABELS}
    assert broken(arora2019.order_of_losses("digits", curves)) == []
    exchanged = curves | {"true": curves["random"], "random": curves["true"]}
    assert broken(arora2019.order_of_losses("digits", exchanged)) == [
        f"Figure 1, digits, kappa = {kappa}: fraction of snapshots at which the loss for true labels is not below that "
        "for random labels"
        for kappa in ("1", "0.01")
    ]


@pytest.mark.slow
def test_networks_follow_theorem_4_1(data, sweeps):
    assert broken(arora2019.speed("digits", sweeps)) == []
    other = {}
    for kind, labeled in data.items():
        k, result = 1.1 * arora2019.KERNEL(labeled.x_train), sweeps[kind]
        path = lz.kernel_descent(
            k, labeled.y_train, learning_rate=float(result.learning_rate[0]), steps=result.step.values
        )
        loss = 0.5 * np.sum((path.train - labeled.y_train) ** 2, axis=1)
        # Replace the sweep's kernel prediction with that of a kernel that is larger by 10%.
        other[kind] = result.assign(kernel_train_loss=("step", loss))
    assert broken(arora2019.speed("digits", other)) == [
        f"Theorem 4.1, digits, {kind} labels: exponent of the gap in the width" for kind in ("true", "random")
    ]


@pytest.mark.slow
def test_where_widths_are_too_small_the_gap_has_to_fall(scales):
    gap = speed_gap(scales)
    claim = arora2019.not_asymptotic("digits", gap.sel(init_scale=1.0), gap.sel(init_scale=0.01))
    assert claim.holds
    means = gap.sel(init_scale=0.01).mean("seed").values
    narrow, wide = TINY.scales.widths
    exponent = np.log(means[1] / means[0]) / np.log(wide / narrow)
    note = f"exponent {exponent:.2f}, not asymptotic at these widths"
    assert claim.note == f"at kappa = 0.01 it is {means[1] / means[0]:.2f}; {note}"
    growing = gap.sel(init_scale=1.0).assign_coords(width=gap.width.values[::-1]).sortby("width")
    assert not arora2019.not_asymptotic("digits", growing).holds


@pytest.mark.slow
def test_the_kernel_is_right_longer_about_wider_networks(paper):
    modes = arora2019.last_steps(paper.work, "digits", TINY.modes)
    assert modes["last_step"].shape == (2, len(TINY.modes.widths), TINY.modes.n)
    assert broken(arora2019.held("digits", modes)) == []
    assert len(broken(arora2019.held("digits", modes | {"last_step": modes["last_step"][:, ::-1]}))) == 3
    in_memory = Work("arora2019", "tiny")
    other = arora2019.last_steps(in_memory, "digits", TINY.modes, lambda x: 1.1 * arora2019.KERNEL(x))
    assert "digits, random labels: t* of the widest" in " ".join(broken(arora2019.held("digits", other)))
    # Recompute the last step for random labels, the narrowest networks and the smallest eigenvalue.
    labeled = arora2019.labeled(arora2019.images("digits", TINY.modes.n))["random"]
    k, y = arora2019.KERNEL(labeled.x_train), labeled.y_train
    values, vectors = np.linalg.eigh(k)
    steps = []
    for seed in range(TINY.modes.seeds):
        width = TINY.modes.widths[0]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), width), seed)
        run = lz.train(lz.TwoLayer(width=width), labeled, key, TINY.modes.steps)
        own = (y - run.snapshots.train_prediction.values) @ vectors[:, 0]
        kernel = (1 - values[0] / values[-1]) ** run.snapshots.step.values * (vectors[:, 0] @ y)
        wrong = abs(own - kernel) > 0.02 * max(abs(vectors[:, 0] @ y), np.linalg.norm(y) / np.sqrt(len(y)))
        until = np.argmax(wrong) if wrong.any() else len(wrong)
        steps.append(run.snapshots.step.values[until - 1])
    assert modes["last_step"][1, 0, -1] == np.median(steps)


@pytest.mark.slow
def test_movement_agrees_with_the_lemmas(data, sweeps):
    x = data["true"].x_train
    assert broken(arora2019.movement("digits", x, sweeps)) == []
    doubled = {kind: result.assign(displacement=2 * result.displacement) for kind, result in sweeps.items()}
    assert [claim.partition(",")[0] for claim in broken(arora2019.movement("digits", x, doubled))] == ["Lemma 5.3"] * 4
    halved = {kind: result.assign(displacement=result.displacement / 2) for kind, result in sweeps.items()}
    assert [claim.partition(",")[0] for claim in broken(arora2019.movement("digits", x, halved))] == ["Lemma 5.3"] * 2
    far = {
        kind: result.assign(max_neuron_displacement=1e4 * result.max_neuron_displacement)
        for kind, result in sweeps.items()
    }
    assert [claim.partition(",")[0] for claim in broken(arora2019.movement("digits", x, far))] == ["Lemma C.1"] * 2
    still = {
        kind: result.assign(
            kernel_drift=0 * result.kernel_drift + 1,
            initial_kernel_error=0 * result.initial_kernel_error + 1,
            activation_flips=0 * result.activation_flips + 1,
        )
        for kind, result in sweeps.items()
    }
    assert len(broken(arora2019.movement("digits", x, still))) == 7


@pytest.mark.slow
def test_more_signs_flip_from_smaller_initial_weights(scales):
    assert arora2019.flips_fall("digits", scales).holds
    assert not arora2019.flips_fall("digits", scales.isel(init_scale=slice(None, None, -1))).holds


FINITE = {"error": np.array([0.5]), "bound": np.array([20.0])}


@pytest.mark.slow
def test_complexity_follows_the_noise():
    data = lz.load_dataset("digits", n_train=TINY.n_kernel, n_test=TINY.n_test)
    noisy = arora2019.noise(data, TINY.draws)
    assert broken(arora2019.generalization("digits", data.n_train, noisy, FINITE)) == []
    kernel = arora2019.KERNEL
    assert noisy["complexity"][0] == pytest.approx(lz.complexity(kernel(data.x_train), data.y_train), rel=1e-9)
    # Approximate the limit of kernel descent with 10^9 steps.
    path = lz.kernel_descent(
        kernel(data.x_train),
        data.y_train,
        learning_rate=1e-2,
        steps=[10**9],
        k_test=kernel(data.x_test, data.x_train),
    )
    assert noisy["l1"][0] == pytest.approx(np.mean(np.abs(path.test[0] - data.y_test)), rel=1e-6)
    key_train, key_test = jax.random.split(jax.random.key(0))
    # With a smaller complexity, no bound is vacuous, so the bounds can be violated.
    small = noisy | {"complexity": noisy["complexity"] / 100}
    over = next(
        claim for claim in arora2019.generalization("digits", 10**6, small, FINITE) if "bound" in claim.statement
    )
    assert "vacuous for 0 of 11" in over.note
    assert not over.holds
    halves = [lz.label_noise(y, 0.5, key) for y, key in ((data.y_train, key_train), (data.y_test, key_test))]
    finite = {"error": np.array(1.0), "bound": np.array(0.9)}
    assert broken(arora2019.generalization("digits", data.n_train, noisy, finite)) == [
        "Theorem 5.1, digits, networks: test error over its bound"
    ]
    single = arora2019.noise(data, 1)
    assert single["complexity"][5] == pytest.approx(lz.complexity(kernel(data.x_train), halves[0]), rel=1e-9)
    assert single["error"][5] == pytest.approx(np.mean(np.sign(half_fit(kernel, data, halves[0])) != halves[1]))
    backwards = noisy | {"complexity": noisy["complexity"][::-1]}
    assert broken(arora2019.generalization("digits", data.n_train, backwards, FINITE)) == [
        "Figure 2, digits, kernel of 240 images: rank correlation of complexity and test error"
    ]
    worse = noisy | {"error": noisy["error"] + 10}
    assert broken(arora2019.generalization("digits", data.n_train, worse, FINITE)) == [
        "Theorem 5.1, digits: test error over its bound with constants",
    ]


def half_fit(kernel, data, y):
    return kernel(data.x_test, data.x_train) @ np.linalg.solve(kernel(data.x_train), y)


@pytest.mark.slow
def test_networks_are_trained_and_tested_on_the_same_noise(paper):
    size, half = TINY.noisy, []
    finite = arora2019.noisy_networks(paper.work, "digits", size)
    images = arora2019.images("digits", size.n, n_test=200)
    for seed in range(size.seeds):
        noisy = arora2019.with_noise(images, 0.5, seed)
        result = lz.sweep(lz.TwoLayer(width=2), noisy, size.widths, [seed], size.steps)
        bound = population_bounds(result, arora2019.DELTA)[0, 0, -1]
        half.append([result.test_error[0, 0, -1], result.complexity, result.kernel_test_error[-1], bound])
    for name, expected in zip(("error", "complexity", "kernel_error", "bound"), np.mean(half, axis=0), strict=True):
        assert finite[name][5] == pytest.approx(float(expected), rel=1e-12), name
    assert finite["error"][0] < 0.1 < 0.3 < finite["error"][-1]
    assert not arora2019.tracked("digits", finite | {"error": finite["error"][::-1]}, 0.9).holds


def test_numbers_of_the_paper_are_compared_at_its_size():
    noisy = {"complexity": np.array([0.38, *[5.0] * 4, 5.70, *[6.0] * 4, 6.59])}
    values = np.zeros(10_000)
    values[[1000, 9999]] = 0.159, 0.0156
    assert broken(arora2019.published("mnist", noisy, {"values": values})) == []
    assert len(list(arora2019.published("mnist", noisy, {"values": values}))) == 5
    off = {"complexity": 1.03 * noisy["complexity"]}
    assert len(broken(arora2019.published("mnist", off, {"values": 0.96 * values}))) == 5
    assert len(list(arora2019.published("cifar10", noisy, {"values": values}))) == 2
    # With fewer images than in the paper, no numbers are compared.
    assert list(arora2019.published("mnist", noisy, {"values": values[:2000]})) == []


@pytest.mark.slow
def test_powers_are_learned_or_not(norms):
    assert broken(functions.powers(TINY.functions, norms["powers"])) == []
    exchanged = norms["powers"][:, :, [0, 1, 3, 2, 4, 5]]
    names = " ".join(broken(functions.powers(TINY.functions, exchanged)))
    assert "p = 4: sqrt(y' H^-1 y) over its bound" in names
    assert "p = 3: exponent in n of an odd power" in names


@pytest.mark.slow
def test_sums_of_powers_are_below_the_sums_of_bounds(norms):
    assert broken(functions.sums(TINY.functions, norms["sums"])) == []
    assert len(broken(functions.sums(TINY.functions, 10 * norms["sums"]))) == len(functions.SUMS)
    x = lz.sphere(50, 0, 5, jax.random.key(1)).x_train
    series = {
        "x1 + x2^2 - x3^4 / 2": [(x[:, 0], 1.0), (x[:, 1], 1.0), (x[:, 2], -0.5)],
        "x1 x2": [((x[:, 0] + x[:, 1]) / np.sqrt(2), 0.5), ((x[:, 0] - x[:, 1]) / np.sqrt(2), -0.5)],
    }
    for name, (function, terms) in functions.SUMS.items():
        # The terms in the series of a function of one variable have alternating signs.
        start = -1.0 if name.startswith("cos") else 1.0
        parts = series.get(name, [(x[:, 0], start * (-1.0) ** i) for i in range(len(terms))])
        total = sum(np.sign(alpha) * size * z**p for (z, alpha), (size, _, p) in zip(parts, terms, strict=True))
        np.testing.assert_allclose(function(x), total, atol=1e-14)


@pytest.mark.slow
def test_networks_do_not_learn_odd_powers(paper):
    errors = {p: functions.error_of(p, TINY.functions, paper.work) for p in (1, 2, 3)}
    assert broken(functions.learned(errors)) == []
    assert errors[3] > 0.95 * unseen_share(3, functions.DIM)
    assert len(broken(functions.learned({1: errors[3], 2: errors[3], 3: errors[1]}))) == 3


@pytest.mark.slow
def test_figure_1_of_du_et_al(paper):
    result = paper.part("du2018")
    assert (result.width.values.tolist(), int(result.step[-1])) == (list(TINY.du2018.widths), du2018.EPOCHS)
    assert broken(du2018.claims(result)) == []
    backwards = result.assign_coords(width=result.width.values[::-1]).sortby("width")
    assert len(broken(du2018.claims(backwards))) == 4


def test_a_claim_without_a_number_fails():
    claim = Claim("Theorem 1", "a thing", 0.5, "<=", 1.0, "a note")
    assert claim.holds
    assert str(claim) == "holds  Theorem 1: a thing: 0.5 <= 1 (a note)"
    assert not replace(claim, measured=float("nan")).holds
    assert not replace(claim, relation=">=").holds
    assert str(replace(claim, relation=">=", note="")) == "FAILS  Theorem 1: a thing: 0.5 >= 1"


def test_jobs_of_a_size():
    networks, kernels, *_ = jobs("tiny")
    n = TINY.n_kernel
    assert kernels.flops == {"eigenvectors": 9 * n**3, "inverse": n**3 / 3}
    assert networks.flops["speed"] == 3 * 2 * 8**2 * (1024 + 16384) * 4 * 100
    assert "accelerator" in jobs("paper")[-1].name
    assert len(jobs("small")) == 3


FIGURES = {f"{name}_digits" for name in ("speed", "movement", "modes", "noise", "projections")} | {
    "functions",
    "du2018",
}


@pytest.mark.slow
def test_the_command(paper, capsys):
    out, lines = paper.out, paper.text.splitlines()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["passed"]
    assert [summary["paper"], summary["size"]] == ["arora2019", "tiny"]
    assert len(summary["claims"]) == sum(line.startswith("holds  ") for line in lines) > 40
    assert {file.stem for file in (out / "figures").iterdir()} == FIGURES
    assert cli.main(["reproduce", "arora2019", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("lazynet: --out must be a new folder")
    assert cli.main(["reproduce", "arora2019", "--size", "small", "--out", str(out), "--resume"]) == 2
    assert "size = 'tiny' instead of 'small'" in capsys.readouterr().err


def test_a_claim_that_fails_ends_the_command_with_1(capsys, monkeypatch):
    failing = [Claim("Theorem 1", "a thing", 2.0, "<=", 1.0)]
    monkeypatch.setattr(arora2019, "reproduce", lambda size, work: Reproduction(failing, {"a": np.array(np.nan)}))
    assert cli.main(["reproduce", "arora2019", "--size", "tiny", "--check", "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["passed"], summary["numbers"]) == (False, {"a": None})
    assert cli.main(["reproduce", "arora2019", "--size", "tiny"]) == 0
    assert "0 of 1 claims hold" in capsys.readouterr().out


def test_the_paper_size_prints_its_cost(capsys, monkeypatch):
    def interrupted(size, work):
        raise KeyboardInterrupt

    monkeypatch.setattr(arora2019, "reproduce", interrupted)
    assert cli.main(["reproduce", "arora2019", "--size", "paper"]) == 130
    errors = capsys.readouterr().err
    assert "minutes or more" in errors
    assert "need an accelerator" in errors
    assert "days or more" in errors
    assert cli.main(["reproduce", "arora2019", "--size", "small", "--plan"]) == 0
    assert "Kernels of 2000 images" in capsys.readouterr().out


def test_an_interrupted_reproduction_can_be_resumed(tmp_path, capsys, monkeypatch):
    def interrupted(size, work):
        work.arrays("part", lambda: {"a": np.ones(3)})
        raise KeyboardInterrupt

    monkeypatch.setattr(arora2019, "reproduce", interrupted)
    out = tmp_path / "run"
    assert cli.main(["reproduce", "arora2019", "--size", "tiny", "--out", str(out)]) == 130
    message = f"interrupted; 1 part is stored in {out} (use --resume to continue the run)"
    assert message in capsys.readouterr().err
    assert (out / "parts" / "part" / "result.nc").exists()
