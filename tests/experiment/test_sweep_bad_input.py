"""What `lz.sweep` and `lz.train` refuse: one sentence that names the argument, before any work, nothing written."""

import jax
import numpy as np
import pytest
from unchecked import unchecked

import lazynet as lz
from lazynet import plan

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
THREE = lz.load_dataset("digits", classes=(0, 1, 2), n_train=16, n_test=6)
INF, NAN = float("inf"), float("nan")

# What is wrong, and the pattern of the sentence.
BAD = {
    "unknown optimizer": ({"optimizer": "sgdd"}, "^optimizer must be"),
    "unknown dtype": ({"dtype": "float16"}, r"dtype is 'float16', but must be one of float32, float64"),
    "unknown loss": ({"loss": "absolute"}, r"loss is 'absolute', but must be one of squared, "),
    "unknown stepper": ({"stepper": "fast"}, "^stepper must be one of"),
    "stepper of another optimizer": (
        {"stepper": "hidden", "optimizer": "adam", "learning_rate": 0.1},
        "^stepper must be 'auto' or",
    ),
    "no width": ({"widths": []}, "widths is empty"),
    "width zero": ({"widths": [16, 0]}, "width is 0, but must be a whole number of at least 1"),
    "negative width": ({"widths": [-2]}, "width is -2"),
    "broken width": ({"widths": [16.5]}, "width is 16.5"),
    "repeated width": ({"widths": [16, 32, 16]}, "widths has 16 more than once"),
    "odd width": ({"widths": [16, 17]}, "width is 17, but the symmetric start needs an even one; take 18"),
    "no seeds": ({"seeds": 0}, "seeds is 0, but must be a whole number of at least 1"),
    "empty seeds": ({"seeds": []}, r"seeds is \[\]"),
    "repeated seeds": ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"),
    "negative seed": ({"seeds": [-1]}, r"seeds is \[-1\]"),
    "no steps": ({"steps": 0}, "steps is 0, but must be a whole number of at least 1"),
    "broken steps": ({"steps": 2.5}, "steps is 2.5"),
    "no snapshots": ({"snapshots": 0}, "snapshots is 0"),
    **{
        f"learning rate {rate}": ({"learning_rate": rate}, "^learning_rate must be positive and finite")
        for rate in (0.0, -1.0, NAN, INF)
    },
    "learning rate at one width": ({"learning_rate": lambda m: 1.0 if m == 16 else NAN}, "^learning_rate .* got nan"),
    "no learning rate for another loss": ({"loss": "logistic"}, "learning_rate is left out, but only the squared"),
    "half a batch": ({"batch_size": 2.5}, "batch_size is 2.5, but must be between 1 and n_train = 16"),
    "one width": ({"widths": 64}, "widths is 64, but must be a list of widths"),
    "empty batch": ({"batch_size": 0}, "batch_size is 0, but must be between 1 and n_train = 16"),
    "batch too large": ({"batch_size": 17}, "batch_size is 17"),
    "too much noise": ({"label_noise": 1.5}, "label_noise is 1.5, but must be a share from 0 to 1"),
    "unknown noise": ({"label_noise": NAN}, "label_noise is nan"),
    "targets of another shape": ({"data": THREE}, "network has 1 outputs, but y_train asks for 3; take outputs=3"),
    "one output for softmax": ({"loss": "softmax", "learning_rate": 0.1}, "softmax loss needs at least two outputs"),
}

BAD_AXES = {
    "an empty list": ({"learning_rate": []}, "learning_rate is an empty list"),
    "a value twice": ({"label_noise": [0.1, 0.2, 0.1]}, "label_noise has 0.1 more than once"),
    "a function in a list": ({"init_scale": [1.0, np.sqrt]}, "init_scale has .*; a function stands alone"),
    "no name": ({"activation": ["relu", 3]}, "activation has 3 in its list, but a list must hold names"),
    "an unknown name": ({"activation": ["relu", "sine"]}, "activation is 'sine', but must be one of"),
    "half an example": ({"n_train": [4, 2.5]}, "n_train is 2.5, but must be a whole number"),
    "too many examples": ({"n_train": [4, 1000]}, "n_train is 1000, but the data set has"),
    "a batch above some n": (
        {"n_train": [4, 8], "batch_size": 6},
        "batch_size is 6, but must be between 1 and n_train = 4",
    ),
    "a negative rate": ({"learning_rate": [0.1, -0.1]}, "^learning_rate must be positive and finite"),
    "one scale of several": ({"output_scale": [1.0, 0.0]}, "output_scale is 0.0 at width"),
}


@pytest.fixture
def no_work(monkeypatch):
    """Training, and the kernel of the limit, would be work."""

    def refuse(*args, **options):
        raise AssertionError("work was started")

    import sys

    for module, name in (
        ("_cell", "train_members"),
        ("_limits", "limit_of"),
        ("_limits", "analytic_kernel"),
        ("_reference", "analytic_kernel"),
        ("_reference", "empirical_ntk"),
    ):
        monkeypatch.setattr(sys.modules[f"lazynet.experiment.{module}"], name, refuse)
    monkeypatch.setattr(sys.modules["lazynet.studies.train._api"], "train_members", refuse)


@pytest.mark.parametrize("case", BAD | BAD_AXES)
def test_sweep_refuses(case, no_work, tmp_path):
    wrong, pattern = (BAD | BAD_AXES)[case]
    given = {"data": DATA, "widths": [16, 32], "seeds": 2, "steps": 5} | wrong
    with unchecked(), pytest.raises(ValueError, match=pattern) as error:
        lz.sweep(lz.TwoLayer(width=16), out=tmp_path / "run", **given)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [name for name, (wrong, _) in BAD.items() if not {"widths", "seeds"} & set(wrong)])
def test_train_refuses(case, no_work):
    wrong, pattern = BAD[case]
    if "noise" in case or "at one width" in case:
        return
    with unchecked(), pytest.raises(ValueError, match=pattern):
        lz.train(lz.TwoLayer(width=16), key=jax.random.key(0), **{"data": DATA, "steps": 5} | wrong)


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"activation": "sine"}, "activation is 'sine', but must be one of relu, erf"),
        ({"train": "all"}, "train is 'all', but must be one of hidden, readout, both"),
        ({"readout": "uniform"}, "readout is 'uniform'"),
        ({"width": 0}, "width is 0"),
        ({"width": 15}, "width is 15, but the symmetric start needs an even one; take 16 or symmetric=False"),
        ({"init_scale": 0.0}, "init_scale is 0.0 at width 16, but must be positive and finite"),
        ({"output_scale": NAN}, "output_scale is nan"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_networks_refuse(wrong, pattern):
    with pytest.raises(ValueError, match=pattern):
        lz.TwoLayer(**{"width": 16} | wrong)


@pytest.mark.parametrize("kind", ["folder", "file", "below a file"])
def test_a_place_that_is_taken_is_refused_and_untouched(kind, no_work, tmp_path):
    out = tmp_path / "run"
    if kind == "folder":
        out.mkdir()
        (out / "old.txt").write_text("old")
    else:
        out.write_text("old")
    given = out / "deeper" if kind == "below a file" else out
    with pytest.raises(ValueError, match=r"^out is '.*'"):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], 1, 2, out=given)
    assert (out / "old.txt" if kind == "folder" else out).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        (
            {"x_train": np.vstack([np.eye(3)[:2], np.zeros((1, 3))])},
            "x_train must have no zero row, got zeros in row 2",
        ),
        ({"x_train": np.diag([1, NAN, 1])}, "x_train must be finite"),
        ({"x_train": np.diag([1, INF, 1])}, "x_train must be finite"),
        ({"y_train": [1, NAN, 1]}, "y_train must be finite"),
        ({"y_train": [1, -1]}, "y_train must have one entry for each of the 3 rows"),
        ({"y_train": np.ones((3, 1))}, r"y_train must have shape \(n,\)"),
        ({"y_train": np.ones((3, 2, 2))}, r"y_train must have shape \(n,\)"),
    ],
    ids=["zero_row", "nan_x", "inf_x", "nan_y", "short_y", "column_y", "cube_y"],
)
def test_data_sets_refuse(wrong, pattern):
    with unchecked(), pytest.raises(ValueError, match=pattern):
        lz.Dataset(**{"x_train": np.eye(3), "y_train": [1.0, -1.0, 1.0]} | wrong)


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"name": "imagenet"}, "name must be one of digits, mnist, "),
        ({"classes": (0, 10)}, "classes must hold labels from 0 to 9"),
        ({"classes": (1, 1)}, "classes must name each label once, got 1 twice"),
        ({"n_train": 10_000}, "n_train must be at most"),
        ({"n_train": 0}, "n_train must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_real_data_refuse(wrong, pattern):
    with pytest.raises(ValueError, match=pattern):
        lz.load_dataset(**{"name": "digits"} | wrong)


def test_what_does_not_fit_in_memory_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(plan, "available_memory", lambda: 8_000)
    with pytest.raises(ValueError, match="infinite-width kernel of 16 training rows"):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], seeds=1, steps=1)
    with pytest.raises(ValueError, match="The eigendecomposition of a kernel of 20 rows"):
        lz.kernel_flow(np.eye(20), np.ones(20), times=[1.0], method="exact")
    with pytest.raises(ValueError, match="A kernel of 16 x 80 entries in float64"):
        lz.analytic_kernel(lz.TwoLayer(width=2))(DATA.x_train, np.ones((80, DATA.x_train.shape[1])))
