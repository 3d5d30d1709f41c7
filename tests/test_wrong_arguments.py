"""Wrong arguments of every public function, in a random sample of the calls of scripts/wrong_arguments.py."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from unchecked import unchecked

import lazynet as lz

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import wrong_arguments as wrong

DRAWS = 75


@pytest.mark.slow
def test_every_outcome_is_a_result_or_a_sentence_that_names_the_argument():
    """The calls differ in each run; the script makes all calls with --all, or those of one seed with --seed."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    cases = wrong.cases()
    order = np.random.default_rng(seed).permutation(len(cases))[:DRAWS]
    with unchecked():
        found = {cases[i]: said for i in order if (said := wrong.complaint(*cases[i]))}
    assert not found, f"seed {seed}"


def test_every_public_function_is_called_and_its_valid_arguments_are_valid():
    functions = wrong.all_targets()
    named = {name.partition(".")[0] for name in functions}
    public = {name for name in lz.__all__ if callable(getattr(lz, name))}
    assert named >= public - set(wrong.MADE)
    assert all(wrong.valid_arguments(name, function) is not None for name, function in functions.items())
    with unchecked():
        for name in ("kernel_descent", "sphere", "Optimizer", "from_flax", "label_noise"):
            functions[name](**wrong.valid_arguments(name, functions[name]))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: [][0], "IndexError"),
        (lambda x: int("a"), "is not lazynet's own|does not name the argument"),
        (wrong.raises, "has no note"),
        (lambda x: lz.Stop("x").nothing, "AttributeError"),
    ],
)
def test_other_outcomes_are_found(function, said, monkeypatch):
    def bad(x):
        return function(x)

    monkeypatch.setattr(wrong, "all_targets", lambda: {"bad": bad})
    with unchecked():
        assert re.search(said, wrong.complaint("bad", "x", "text"))


def test_a_text_that_is_taken_for_a_folder_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with unchecked():
        assert wrong.complaint("infinite_width", "out", "text") == ""
    assert not any(tmp_path.iterdir())
