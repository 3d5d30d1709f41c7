"""The claims of Arora et al. 2019 at the smallest size, and that each fails when it is broken on purpose."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet import cli
from lazynet.papers import Claim, arora2019

TINY = arora2019.SIZES["tiny"]


@pytest.fixture(scope="module")
def data():
    return lz.load_dataset("digits", n_train=TINY.n_train, n_test=TINY.n_test)


@pytest.fixture(scope="module")
def sweeps():
    return arora2019.sweeps_of("digits", TINY.n_train, TINY.widths, TINY)


@pytest.fixture(scope="module")
def norms():
    return arora2019.powers(TINY)


def broken(claims):
    return [f"{claim.name}: {claim.statement}" for claim in claims if not claim.holds]


def test_labels_are_learned_in_their_order(sweeps):
    assert broken(arora2019.order_of_losses("digits", sweeps)) == []
    exchanged = sweeps | {"true": sweeps["random"], "random": sweeps["true"]}
    assert broken(arora2019.order_of_losses("digits", exchanged)) == [
        "Figure 1, digits: true labels are learned before random ones"
    ]


def test_networks_follow_theorem_4_1(data, sweeps):
    assert broken(arora2019.speed("digits", sweeps)) == []
    other = {}
    for label, labelled in arora2019.labelled(data).items():
        k, result = 1.1 * arora2019.KERNEL(data.x_train), sweeps[label]
        path = lz.kernel_descent(
            k, labelled.y_train, learning_rate=float(result.learning_rate[0]), steps=result.step.values
        )
        loss = 0.5 * np.sum((path.train - labelled.y_train) ** 2, axis=1)
        # The prediction as the sweep has it, but of another kernel.
        other[label] = result.assign(kernel_train_loss=("step", loss))
    assert broken(arora2019.speed("digits", other)) == [
        f"Theorem 4.1, digits, {label} labels: exponent of the gap in the width" for label in ("true", "random")
    ]


def test_movement_is_that_of_the_lemmas(sweeps):
    assert broken(arora2019.movement("digits", sweeps)) == []
    doubled = {label: result.assign(displacement=2 * result.displacement) for label, result in sweeps.items()}
    assert [claim.partition(",")[0] for claim in broken(arora2019.movement("digits", doubled))] == ["Lemma 5.3"] * 2
    far = {
        label: result.assign(max_neuron_displacement=1e4 * result.max_neuron_displacement)
        for label, result in sweeps.items()
    }
    assert [claim.partition(",")[0] for claim in broken(arora2019.movement("digits", far))] == ["Lemma C.1"] * 2
    still = {
        label: result.assign(
            kernel_drift=0 * result.kernel_drift + 1,
            initial_kernel_error=0 * result.initial_kernel_error + 1,
            activation_flips=0 * result.activation_flips + 1,
        )
        for label, result in sweeps.items()
    }
    assert len(broken(arora2019.movement("digits", still))) == 6


def test_noise_and_the_bound_go_together():
    data = lz.load_dataset("digits", n_train=TINY.n_kernel, n_test=TINY.n_test)
    noisy = arora2019.noise(data, TINY.draws)
    assert broken(arora2019.trend("digits", noisy)) == []
    kernel = arora2019.KERNEL
    assert noisy.complexity[0] == pytest.approx(lz.complexity(kernel(data.x_train), data.y_train), rel=1e-9)
    # What descent comes to.
    path = lz.kernel_descent(
        kernel(data.x_train),
        data.y_train,
        learning_rate=1e-2,
        steps=[10**9],
        k_test=kernel(data.x_test, data.x_train),
    )
    assert noisy.l1[0] == pytest.approx(np.mean(np.abs(path.test[0] - data.y_test)), rel=1e-6)
    key_train, key_test = jax.random.split(jax.random.key(0))
    halves = [lz.label_noise(y, 0.5, key) for y, key in ((data.y_train, key_train), (data.y_test, key_test))]
    one = arora2019.noise(data, 1)
    assert one.complexity[5] == pytest.approx(lz.complexity(kernel(data.x_train), halves[0]), rel=1e-9)
    assert one.error[5] == pytest.approx(np.mean(np.sign(half_fit(kernel, data, halves[0])) != halves[1]))
    backwards = arora2019.Noise(noisy.complexity[::-1], noisy.l1, noisy.error)
    assert "Figure 2, digits: rank correlation of complexity and test error" in broken(
        arora2019.trend("digits", backwards)
    )
    worse = arora2019.Noise(noisy.complexity, noisy.l1, noisy.error + 2)
    assert "Theorem 5.1, digits: test error over its bound, true labels" in broken(arora2019.trend("digits", worse))


def half_fit(kernel, data, y):
    return kernel(data.x_test, data.x_train) @ np.linalg.solve(kernel(data.x_train), y)


def test_powers_are_learned_or_not(norms):
    assert broken(arora2019.learnable(TINY, norms)) == []
    exchanged = {(d, p): norms[d, {3: 4, 4: 3}.get(p, p)] for d, p in norms}
    names = " ".join(broken(arora2019.learnable(TINY, exchanged)))
    assert "p = 4: sqrt(y' H^-1 y) over its bound" in names
    assert "p = 3: exponent in n of an odd power" in names


def test_a_claim_that_is_no_number_fails():
    claim = Claim("Theorem 1", "a thing", 0.5, "<=", 1.0, "said beside it")
    assert claim.holds
    assert str(claim) == "holds  Theorem 1: a thing: 0.5 <= 1 (said beside it)"
    assert not replace(claim, measured=float("nan")).holds
    assert not replace(claim, relation=">=").holds
    assert str(replace(claim, relation=">=", note="")) == "FAILS  Theorem 1: a thing: 0.5 >= 1"


def test_the_command(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert cli.main(["reproduce", "arora2019", "--size", "tiny", "--check", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["passed"]
    assert [summary["paper"], summary["size"]] == ["arora2019", "tiny"]
    assert len(summary["claims"]) == sum(line.startswith("holds  ") for line in lines) > 20
    assert {file.stem for file in (out / "figures").iterdir()} == {
        "speed_digits",
        "projections_digits",
        "noise_digits",
        "powers",
    }
    assert cli.main(["reproduce", "arora2019", "--out", str(out)]) == 2
    assert "which exists already" in capsys.readouterr().err
    monkeypatch.setattr(arora2019, "reproduce", lambda size, tell: arora2019.Reproduction(failing, {"a": np.nan}, {}))
    failing = [Claim("Theorem 1", "a thing", 2.0, "<=", 1.0)]
    assert cli.main(["reproduce", "arora2019", "--size", "tiny", "--check", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["passed"], said["numbers"]) == (False, {"a": None})
