"""`lz.sweep` and `lz.train` refuse wrong arguments by name, before they start any work or write any file."""

import jax
import numpy as np
import optax
import pytest
from unchecked import unchecked

import lazynet as lz
from lazynet import plan

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
THREE = lz.load_dataset("digits", classes=(0, 1, 2), n_train=16, n_test=6)
INF, NAN = float("inf"), float("nan")

# Wrong arguments, and the pattern of the message.
BAD = {
    "unknown optimizer": ({"optimizer": "sgdd"}, "^optimizer must be one of sgd, .*, got 'sgdd'"),
    "no optimizer": ({"optimizer": 3}, "^optimizer must be one of .*, got 3"),
    "unknown dtype": ({"dtype": "float16"}, "^dtype must be one of float32, float64, got 'float16'"),
    "unknown loss": ({"loss": "absolute"}, "^loss must be one of squared, .*, got 'absolute'"),
    "stepper of another optimizer": (
        {"optimizer": lz.Optimizer("adam", stepper="hidden"), "learning_rate": 0.1},
        "^stepper must be 'auto' or",
    ),
    "no width": ({"widths": []}, "^widths must contain at least one width"),
    "width zero": ({"widths": [16, 0]}, "^width must be a positive integer, got 0"),
    "negative width": ({"widths": [-2]}, "^width must be .*, got -2"),
    "broken width": ({"widths": [16.5]}, "^width must be .*, got 16.5"),
    "repeated width": ({"widths": [16, 32, 16]}, "^widths must be distinct, got 16 more than once"),
    "odd width": ({"widths": [16, 17]}, "^width .*17"),
    "no seeds": ({"seeds": 0}, "^seeds must be a positive integer, got 0"),
    "empty seeds": ({"seeds": []}, r"^seeds must be .*, got \[\]"),
    "repeated seeds": ({"seeds": [1, 1]}, r"^seeds must be .*, got \[1, 1\]"),
    "negative seed": ({"seeds": [-1]}, r"^seeds must be .*, got \[-1\]"),
    "no steps": ({"steps": 0}, "^steps must be a positive integer, got 0"),
    "broken steps": ({"steps": 2.5}, "^steps must be .*, got 2.5"),
    "no snapshots": ({"snapshots": 0}, "^snapshots must be .*, got 0"),
    **{
        f"learning rate {rate}": ({"learning_rate": rate}, "^learning_rate must be positive and finite")
        for rate in (0.0, -1.0, NAN, INF)
    },
    "learning rate at one width": ({"learning_rate": lambda m: 1.0 if m == 16 else NAN}, "^learning_rate .* got nan"),
    "no learning rate for another loss": ({"loss": "logistic"}, "^learning_rate must be given for the logistic loss"),
    **{
        f"no learning rate for {name}": (
            {"optimizer": rule},
            f"^learning_rate must be given if optimizer is {name}, got None. The default, 1 / lambda_max, is meant",
        )
        for name, rule in {
            **{repr(name): name for name in ("adam", "adamw", "lion", "rmsprop", "adagrad")},
            "a function": lambda rate: optax.adam(rate),
        }.items()
    },
    "half a batch": ({"batch_size": 2.5}, "^batch_size must be an integer from 1 to n_train = 16, got 2.5"),
    "one width": ({"widths": 64}, "^widths must be a list of positive integers, got 64"),
    "empty batch": ({"batch_size": 0}, "^batch_size must be .*, got 0"),
    "batch too large": ({"batch_size": 17}, "^batch_size must be .*, got 17"),
    "targets of another shape": ({"data": THREE}, "^network.outputs must be 3, got 1"),
    "one output for softmax": ({"loss": "softmax", "learning_rate": 0.1}, "^y_train must have at least two targets"),
    "several outputs for logistic": (
        {"loss": "logistic", "learning_rate": 0.1, "data": THREE, "network": lz.TwoLayer(width=16, outputs=3)},
        "^y_train must have one target per example for the logistic loss, got 3",
    ),
    "no stop": ({"stop": 3}, "^stop must be a lazynet.Stop or None, got 3"),
    "batches of a flow": (
        {"optimizer": "flow", "batch_size": 4, "measure": lz.Measure(predictions=False)},
        "^batch_size must be None for the optimizer 'flow', got 4",
    ),
    "sharpness of a flow": (
        {"optimizer": "flow", "measure": lz.Measure(predictions=False, sharpness=True)},
        "^measure.sharpness must be False for the optimizer 'flow', got True",
    ),
}

SWEEP_ONLY = {
    "predictions of a flow": (
        {"optimizer": "flow"},
        "^measure.predictions must be False for the optimizer 'flow', got True",
    ),
    "too much noise": ({"axes": {"label_noise": [1.5]}}, "^label_noise must be between 0 and 1, got 1.5"),
    "unknown noise": ({"axes": {"label_noise": [NAN]}}, "^label_noise must be .*, got nan"),
    "no mapping": ({"axes": ["label_noise"]}, "^axes must map names to lists of values"),
    "an unknown axis": ({"axes": {"loss": ["squared"]}}, "^axes must be chosen from activation, .*, got 'loss'"),
    "the width as an axis": ({"axes": {"width": [8]}}, "^axes must be chosen from .*, got 'width'"),
    "no list": ({"axes": {"learning_rate": 0.1}}, r"^axes\['learning_rate'\] must be a list of values, got 0.1"),
    "a word": ({"axes": {"activation": "relu"}}, r"^axes\['activation'\] must be a list of values, got 'relu'"),
    "an empty list": ({"axes": {"learning_rate": []}}, r"^axes\['learning_rate'\] must contain at least one value"),
    "a value twice": (
        {"axes": {"label_noise": [0.1, 0.2, 0.1]}},
        r"^axes\['label_noise'\] must have distinct values, got 0.1",
    ),
    "two functions of one name": (
        {"axes": {"init_scale": [lambda m: 1.0, lambda m: 2.0]}},
        r"^axes\['init_scale'\] must have distinct values, got '<lambda>'",
    ),
    "words for numbers": ({"axes": {"label_noise": ["much"]}}, r"^axes\['label_noise'\] must contain only numbers"),
    "an unknown activation": ({"axes": {"activation": ["relu", "sine"]}}, "^activation .*sine"),
    "half an example": ({"axes": {"n_train": [4, 2.5]}}, "^n_train must be a positive integer, got 2.5"),
    "too many examples": (
        {"axes": {"n_train": [4, 1000]}},
        r"^n_train must be at most the number of training examples \(16\), got 1000",
    ),
    "a batch above some n": (
        {"axes": {"n_train": [4, 8]}, "batch_size": 6},
        "^batch_size must be an integer from 1 to n_train = 4, got 6",
    ),
    "a negative rate": ({"axes": {"learning_rate": [0.1, -0.1]}}, "^learning_rate must be positive and finite"),
    "a scale of zero": ({"axes": {"output_scale": [1.0, 0.0]}}, r"^output_scale .*0\.0\."),
    "a momentum of one": (
        {"axes": {"momentum": [0.0, 1.0]}},
        "^momentum must be a nonnegative number below 1, got 1.0",
    ),
    "a momentum of a function": (
        {"axes": {"momentum": [0.0, 0.5]}, "optimizer": optax.adam},
        "^optimizer must be a name or a lazynet.Optimizer if an axis varies 'momentum'",
    ),
    "an optimizer unknown on an axis": ({"axes": {"optimizer": ["sgd", "best"]}}, "^optimizer must be one of"),
}


@pytest.fixture
def no_work(monkeypatch):
    """Let the test fail if a network is trained or a kernel is computed."""

    def refuse(*args, **options):
        raise AssertionError("work was started")

    # Patching fails if the name does not exist, so that the guard cannot be vacuous.
    for module, name in (
        ("lazynet.experiment._cell", "train_members"),
        ("lazynet.experiment._reference", "limit_of"),
        ("lazynet.experiment._reference", "analytic_kernel"),
        ("lazynet.experiment._reference", "empirical_ntk"),
        ("lazynet.experiment._predictions", "empirical_ntk"),
        ("lazynet.studies.train._api", "train_members"),
        ("lazynet.studies.train._api", "default_learning_rate"),
    ):
        monkeypatch.setattr(f"{module}.{name}", refuse)


def test_the_guard_notices_work(no_work):
    with pytest.raises(AssertionError, match="work was started"):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], 1, 5)
    with pytest.raises(AssertionError, match="work was started"):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], 1, 5, learning_rate=0.1, measure=lz.Measure(predictions=False))
    with pytest.raises(AssertionError, match="work was started"):
        lz.train(lz.TwoLayer(width=16), DATA, jax.random.key(0), 5, learning_rate=0.1)


@pytest.mark.parametrize("case", BAD | SWEEP_ONLY)
def test_sweep_refuses(case, no_work, tmp_path):
    wrong, pattern = (BAD | SWEEP_ONLY)[case]
    given = {"network": lz.TwoLayer(width=16), "data": DATA, "widths": [16, 32], "seeds": 2, "steps": 5} | wrong
    with unchecked(), pytest.raises(ValueError, match=pattern) as error:
        lz.sweep(out=tmp_path / "run", **given)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "case",
    [
        name
        for name, (wrong, _) in BAD.items()
        if not {"widths", "seeds"} & set(wrong) and name != "learning rate at one width"
    ],
)
def test_train_refuses(case, no_work):
    wrong, pattern = BAD[case]
    given = {"network": lz.TwoLayer(width=16), "data": DATA, "steps": 5} | wrong
    with unchecked(), pytest.raises(ValueError, match=pattern):
        lz.train(key=jax.random.key(0), **given)


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"name": "sgdd"}, "^name must be one of sgd, .*, got 'sgdd'"),
        ({"stepper": "fast"}, "^stepper must be one of auto, .*, got 'fast'"),
        ({"momentum": 1.0}, "^momentum must be a nonnegative number below 1, got 1.0"),
        ({"momentum": True}, "^momentum must be a nonnegative number below 1, got True"),
        ({"name": "adam", "momentum": 0.9}, "^momentum must be 0 for the optimizer 'adam', got 0.9"),
        ({"nesterov": True}, "^nesterov must be False if momentum is 0, got True"),
        ({"nesterov": 1}, "^nesterov must be True or False, got 1"),
        ({"weight_decay": -0.1}, "^weight_decay must be finite and nonnegative, got -0.1"),
        ({"weight_decay": INF}, "^weight_decay must be"),
        ({"schedule": 0.5}, "^schedule must be a function of the step, got 0.5"),
        ({"name": "flow", "weight_decay": 0.1}, "^weight_decay must be omitted for the optimizer 'flow', got 0.1"),
        ({"name": "flow", "stepper": "hidden"}, "^stepper must be 'auto' for the optimizer 'flow', got 'hidden'"),
    ],
    ids=str,
)
def test_optimizers_refuse(wrong, pattern):
    with unchecked(), pytest.raises(ValueError, match=pattern):
        lz.Optimizer(**wrong)


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"activation": "sine"}, "^activation .*relu, erf"),
        ({"train": "all"}, "^train .*hidden, readout, both"),
        ({"readout": "uniform"}, "^readout .*uniform"),
        ({"width": 0}, "^width .*0"),
        ({"width": 15}, "^width .*15.*symmetric"),
        ({"init_scale": 0.0}, "^init_scale .*0.0"),
        ({"output_scale": NAN}, "^output_scale .*nan"),
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
    message = r"^out must be a (new folder|path where a folder can be created), got '.*run"
    with pytest.raises(ValueError, match=message):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], 1, 2, out=given)
    assert (out / "old.txt" if kind == "folder" else out).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"x_train": np.diag([1, NAN, 1])}, "x_train must be finite"),
        ({"x_train": np.diag([1, INF, 1])}, "x_train must be finite"),
        ({"y_train": [1, NAN, 1]}, "y_train must be finite"),
        ({"y_train": [1, -1]}, "y_train must have one target for each of the 3 inputs"),
        ({"y_train": np.ones((3, 1))}, r"y_train must be an array of shape \(n,\)"),
        ({"y_train": np.ones((3, 2, 2))}, r"y_train must be an array of shape \(n,\)"),
    ],
    ids=["nan_x", "inf_x", "nan_y", "short_y", "column_y", "cube_y"],
)
def test_data_sets_refuse(wrong, pattern):
    with unchecked(), pytest.raises(ValueError, match=pattern):
        lz.Dataset(**{"x_train": np.eye(3), "y_train": [1.0, -1.0, 1.0]} | wrong)


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"name": "imagenet"}, "name must be 'digits', 'mnist', "),
        ({"classes": (0, 10)}, "classes must be labels from 0 to 9"),
        ({"classes": (1, 1)}, "classes must not repeat a label, got label 1 more than once"),
        ({"n_train": 10_000}, "n_train must be at most"),
        ({"n_train": 0}, "n_train must be a"),
    ],
    ids=str,
)
def test_real_data_refuse(wrong, pattern):
    with pytest.raises(ValueError, match=pattern):
        lz.load_dataset(**{"name": "digits"} | wrong)


def test_jobs_that_need_more_memory_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(plan, "available_memory", lambda: 8_000)
    with pytest.raises(ValueError, match=r"infinite-width kernel of 16 training rows .*0\.00 GB"):
        lz.sweep(lz.TwoLayer(width=16), DATA, [16], seeds=1, steps=1)
    with pytest.raises(ValueError, match=r"kernel with 20 rows"):
        lz.kernel_flow(np.eye(20), np.ones(20), times=[1.0], method="exact")
    with pytest.raises(ValueError, match=r"^A kernel of 16 x 80 entries in float64"):
        lz.analytic_kernel(lz.TwoLayer(width=2))(DATA.x_train, np.ones((80, DATA.x_train.shape[1])))
