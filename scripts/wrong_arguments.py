"""Call every public function and method with wrong arguments, and print the calls that do not end with a clear message.

In each call, one argument has one of about fifty unintended values, and all others are valid. A call may return, or
lazynet itself may raise a ValueError or TypeError that names the argument. An exception that a user's function raises
must pass through unchanged, with a note that names the argument. The functions are found by introspection, so new ones
are called too. For a parameter with a new name, add a valid value to `VALID`.
"""

import argparse
import inspect
import itertools
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lazynet as lz

SCRATCH = tempfile.TemporaryDirectory()
LIMIT = 30.0  # seconds after which a call counts as hanging
PACKAGE = str(Path(lz.__file__).parent)
# Other words that an error message may use for an argument.
ALIASES = {
    "widths": ("width",),
    "data": ("x_train", "y_train", "x_test", "y_test"),
    # If two arguments do not match, the message may name the other one.
    "x_train": ("y_train",),
    "x_test": ("y_test",),
    "k": ("y",),
    "k_test": ("start_covariance", "k_test_test"),
    "x1": ("variables",),
    "out": ("path",),
    "x": ("network",),
    "network": ("network", "Outputs", "make"),
    "kernel": ("kernel",),
    "own": ("measure.own",),
}


class Own(Exception):
    """An exception that a user's function raises."""


def raises(*args: Any, **kwargs: Any) -> Any:
    """Raise an `Own` exception for any arguments."""
    raise Own("raised by the user's function")


def returns_none(*args: Any, **kwargs: Any) -> None:
    """Return None for any arguments."""


class Tensor:
    """A stand-in for an array of another library, such as a tensor of PyTorch."""

    def __init__(self, array: np.ndarray) -> None:
        """Wrap an array."""
        self.array, self.shape, self.ndim, self.dtype = array, array.shape, array.ndim, "other.float32"

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Convert to a NumPy array."""
        return self.array if dtype is None else self.array.astype(dtype)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "text": lambda: "text",
    "empty text": lambda: "",
    "bytes": lambda: b"bytes",
    "empty list": lambda: [],
    "list": lambda: [1],
    "list of lists": lambda: [[1.0, 2.0], [3.0]],
    "list of None": lambda: [None, None],
    "list of text": lambda: ["a", "b"],
    "dictionary": lambda: {"a": 1},
    "empty dictionary": lambda: {},
    "set": lambda: {1, 2},
    "pair": lambda: (1, 2),
    "0": lambda: 0,
    "-1": lambda: -1,
    "2.5": lambda: 2.5,
    "huge integer": lambda: 10**30,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: -float("inf"),
    "complex": lambda: 1 + 2j,
    "0-d array": lambda: np.array(1.0),
    "empty array": lambda: np.array([]),
    "array of nan": lambda: np.full((4, 3), np.nan),
    "array of inf": lambda: np.full(4, np.inf),
    "array of zeros": lambda: np.zeros((4, 4)),
    "array of one row": lambda: np.ones((1, 3)),
    "3-d array": lambda: np.ones((2, 2, 2)),
    "complex array": lambda: np.ones((4, 3), complex),
    "object array": lambda: np.array([None, 1], object),
    "text array": lambda: np.array(["a", "b"]),
    "masked array": lambda: np.ma.masked_array(np.ones((4, 3)), np.eye(4, 3)),
    "dates": lambda: np.array(["2020-01-01"], "datetime64[D]"),
    "huge array": lambda: np.full((4, 3), 1e308),
    "JAX array": lambda: jnp.ones(3),
    "JAX key": lambda: jax.random.key(0),
    "two keys": lambda: jax.random.split(jax.random.key(0)),
    "object": object,
    "class": lambda: int,
    "class for an instance": lambda: lz.TwoLayer,
    "instance of another class": lambda: lz.Stop(loss=1.0),
    "generator": lambda: (i for i in range(3)),
    "tensor": lambda: Tensor(np.ones((4, 3))),
    "function that raises": lambda: raises,
    "function that returns None": lambda: returns_none,
    "function of nothing": lambda: lambda: 1.0,
    "module": lambda: np,
}

X = np.random.default_rng(0).normal(size=(4, 3))
Y = np.array([1.0, -1.0, 1.0, -1.0])
KERNEL = X @ X.T + np.eye(4)


@cache
def data() -> lz.Dataset:
    """Return four training and two test examples."""
    return lz.Dataset(X, Y, X[:2] + 0.1, Y[:2])


@cache
def network() -> Any:
    """Return a small network."""
    return lz.TwoLayer(width=2)


@cache
def variables() -> Any:
    """Return the variables of the small network."""
    return dict(network().init(jax.random.key(0), jnp.asarray(X, jnp.float32)))


@cache
def result() -> Any:
    """Return the result of a small sweep."""
    return lz.sweep(network(), data(), [2, 4], 2, 2, progress=False)


@cache
def result_of_unit_rows() -> Any:
    """Return the result of a small sweep on rows of unit norm."""
    rows = lz.data.unit_rows(X)
    return lz.sweep(network(), lz.Dataset(rows, Y, rows[:2], Y[:2]), [2, 4], 2, 2, progress=False)


def stax_layers(width: int) -> Any:
    """Return a stax network with one hidden layer."""
    from lazynet.kernels import neural_tangents

    stax = neural_tangents().stax
    return stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(1))


def linen(width: int) -> Any:
    """Return a flax network with one hidden layer."""
    from flax import linen as nn

    return nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)])


def nnx_layers(width: int, rngs: Any) -> Any:
    """Return an NNX network with one hidden layer."""
    from flax import nnx

    return nnx.Sequential(nnx.Linear(3, width, rngs=rngs), nnx.relu, nnx.Linear(width, 1, rngs=rngs))


@cache
def adapted() -> Any:
    """Return a small flax network that `from_flax` has adapted."""
    return lz.from_flax(linen, width=2)


@cache
def quantity() -> lz.Quantity:
    """Return a quantity that is not registered."""
    return lz.Quantity("largest_weight", "Largest weight", measure=lambda network, v, v0, data: jnp.max(jnp.ones(2)))


def new_folder() -> Path:
    """Return the path of a folder that does not exist yet."""
    return Path(tempfile.mkdtemp(dir=SCRATCH.name)) / "run"


@cache
def shards() -> Path:
    """Return the folder of a sweep whose shards have all finished."""
    path = new_folder()
    lz.sweep(network(), data(), [2, 4], 2, 2, out=lz.RunFolder(path, shard=(1, 1)), progress=False)
    return path


# Valid values by parameter name, or by function and parameter.
def table() -> Path:
    """Write a CSV file and return its path."""
    file = Path(SCRATCH.name, "table.csv")
    file.write_text("a,b,target\n" + "".join(f"{a / 10},{1 - a / 10},{a / 7}\n" for a in range(10)))
    return file


VALID: dict[str, Callable[[], Any]] = {
    "network": network,
    "variables": variables,
    "data": data,
    "widths": lambda: [2, 4],
    "seeds": lambda: 2,
    "seed": lambda: 0,
    "start": lambda: lambda key, width: network().clone(width=width).init(key, jnp.asarray(X, jnp.float32)),
    "steps": lambda: 2,
    "key": lambda: jax.random.key(0),
    "k": lambda: KERNEL,
    "y": lambda: Y,
    "x": lambda: X,
    "x1": lambda: X,
    "times": lambda: [1.0, 2.0],
    "learning_rate": lambda: 0.01,
    "start_covariance": lambda: KERNEL,
    "noise": lambda: 0.1,
    "batch_order.batch_size": lambda: 2,
    "kernel_posterior.k_test": lambda: KERNEL[:2],
    "k_test_test": lambda: KERNEL[:2, :2],
    "n_train": lambda: 8,
    "n_test": lambda: 4,
    "dim": lambda: 3,
    "portion": lambda: 0.5,
    "name": lambda: "digits",
    "result": result,
    "out": shards,
    "output_scales": lambda: [0.1, 10.0],
    "ends": lambda: [X[0], X[1]],
    "width": lambda: 2,
    "x_train": lambda: X,
    "y_train": lambda: Y,
    "quantity": quantity,
    "make": lambda: linen,
    "init": lambda: lambda key, x, width: {"w": jax.random.normal(key, (x.shape[1],))},
    "apply": lambda: lambda params, x: x @ params["w"],
    "meaning": lambda: "a meaning",
    "path": new_folder,
    "delta": lambda: 0.1,
    "diameter": lambda: 0.1,
    "forward": lambda: (0.0, 0.0, 0.5),
    "per_example": lambda: lambda f, y: jnp.sum((f - y) ** 2),
    "from_stax.make": lambda: stax_layers,
    "from_nnx.make": lambda: nnx_layers,
    "kernel_operator.kernel": lambda: lz.analytic_kernel(network()),
    "Parametrization.init": lambda: (0.0, 0.0, 0.0),
    "Quantity.name": lambda: "largest_weight",
    "RunFolder.check": lambda: None,
    "Separation.components": lambda: 2,
    "mixture.n_train": lambda: 20,
    "load_dataset.n_train": lambda: 16,
    "read_dataset.path": table,
    "read_dataset.n_train": lambda: 3,
    "Verdict.row.quantity": lambda: "kernel_drift",
    "Verdict.correction.quantity": lambda: "kernel_drift",
    "losses.get_loss.loss": lambda: "squared",
    "theory.fit_exponent.widths": lambda: np.array([64, 256, 1024, 4096]),
    "theory.fit_correction.widths": lambda: np.array([64, 256, 1024, 4096]),
    "theory.crossing.widths": lambda: np.array([64, 256, 1024, 4096]),
    "theory.predict_crossing.widths": lambda: np.array([64, 256, 1024, 4096]),
    "level": lambda: 0.1,
    "values": lambda: np.array([64, 256, 1024, 4096])[:, None] ** -0.5 * np.array([[0.9, 1.0, 1.1]]),
    "fit": lambda: lz.theory.Fit(-0.5, -0.6, -0.4, -0.5),
    "theory.seeds_needed.seeds": lambda: 4,
    "half_width": lambda: 0.05,
    "relation": lambda: "equal",
    "predicted": lambda: -0.5,
    "band": lambda: 0.1,
    "scaling": lambda: lz.theory.Scaling(0.0, 0.0, 0.0, True, True, "hidden"),
    "error": lambda: np.array([0.1, 0.2]),
    "n": lambda: 100,
    "residual_norm": lambda: 1.0,
    "lambda_min": lambda: 0.1,
    "radius": lambda: 0.1,
    "gram": lambda: KERNEL,
    "units": lambda: 16,
    "movement": lambda: 1.0,
    "train_loss": lambda: 0.1,
    "rademacher": lambda: 0.1,
    "power": lambda: 2,
    "terms": lambda: [(1.0, 1.0, 2)],
    "other": lambda: np.eye(4),
    "kernels": lambda: np.stack([KERNEL, 2 * KERNEL]),
    "measures.effective_rank.values": lambda: np.array([2.0, 1.0]),
    "a": lambda: X,
    "measures.leading_values.values": lambda: np.array([2.0, 1.0]),
    "measures.unregister_quantity.name": lambda: "largest_weight",
    "networks.weights.name": lambda: "hidden",
    "studies.sweep.population_bounds.result": result_of_unit_rows,
    "Adapted.apply.variables": lambda: dict(adapted().init(jax.random.key(0), jnp.asarray(X, jnp.float32))),
}
# Optional arguments that keep valid calls small or quiet.
SMALL: dict[str, dict[str, Callable[[], Any]]] = {
    "*": {"progress": lambda: False},
    "monte_carlo_kernel": {"starts": lambda: 2, "progress": lambda: None},
    "kernel_operator": {"progress": lambda: None},
    "kernel_descent": {"progress": lambda: None},
    "kernel_flow": {"progress": lambda: None},
    "infinite_width": {"steps": lambda: 10, "snapshots": lambda: 3},
    "laziness_map": {"steps": lambda: 20, "seeds": lambda: 1},
    "line_ensemble": {"seeds": lambda: 2, "steps": lambda: 2, "snapshots": lambda: 1},
    "sweep": {"out": lambda: None},
    "required_width": {"steps": lambda: 2, "seeds": lambda: 2, "pilots": lambda: [2, 4], "max_width": lambda: 8},
    "train": {},
    "forecast": {"seeds": lambda: 2, "steps": lambda: 2},
    "mode_residuals": {"seeds": lambda: 2},
}
# Functions that users, and the code for papers, call through a subpackage, as in lazynet.data.unit_rows. The other
# functions of these subpackages are called by studies.
ROOMS = {
    "data": ("list_datasets", "unit_rows"),
    "kernels": ("largest_eigenvalue", "spectrum"),
    "measures": (
        "catalog",
        "effective_rank",
        "kernel_distance",
        "kernel_velocity",
        "label_alignment",
        "leading_values",
        "reference",
        "singular_values",
        "unregister_quantity",
    ),
    "networks": ("weights",),
    "studies": ("sweep.population_bounds", "sweep.speed_gap"),
}
# Classes whose instances lazynet creates and users only read; their constructors are not called.
MADE = ("Ensemble", "Origin", "Posterior", "Run", "Separation", "Trajectory", "Verdict")


def targets() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield all public functions, constructors and methods, with their names."""
    for name in sorted(lz.__all__):
        value = getattr(lz, name)
        if inspect.isclass(value):
            if name not in MADE:
                yield name, value
        elif callable(value):
            yield name, value
    for name in lz.losses.__all__:
        value = getattr(lz.losses, name)
        if inspect.isfunction(value) or name == "Loss":
            yield f"losses.{name}", value
    for name in lz.theory.__all__:
        value = getattr(lz.theory, name)
        if inspect.isfunction(value):
            yield f"theory.{name}", value
    for room, names in ROOMS.items():
        for name in names:
            yield f"{room}.{name}", attrgetter(f"{room}.{name}")(lz)
    made: dict[str, Callable[[], Any]] = {
        "TwoLayer": network,
        "Dataset": data,
        "Optimizer": lz.Optimizer,
        "Verdict": lambda: lz.verify(result(), corrections=True),
        "RunFolder": lambda: lz.RunFolder(new_folder()),
        "Kernel": lambda: lz.analytic_kernel(network()),
        "Adapted": adapted,
    }
    own = {"TwoLayer": ("clone",), "Adapted": ("init", "apply", "clone"), "Kernel": ("__call__", "diagonal")}
    for name, make in made.items():
        instance = make()
        methods = own.get(name) or [
            member
            for member in vars(type(instance))
            if not member.startswith("_") and inspect.isfunction(vars(type(instance))[member])
        ]
        for method in methods:
            bound = instance if method == "__call__" else getattr(instance, method)
            yield f"{name}.{method}", bound


@cache
def all_targets() -> dict[str, Callable[..., Any]]:
    """Return all public functions, constructors and methods by name."""
    return dict(targets())


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function that can be passed by name."""
    found = inspect.signature(function).parameters
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        # flax adds `parent`, and parameters whose names begin with an underscore are private.
        and name != "parent"
        and not name.startswith("_")
    }


def valid_arguments(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return valid arguments for a function: all required ones, and optional ones that keep the call small.

    Raises:
        KeyError: If no valid value is known for a required parameter.
    """
    arguments = {}
    found = parameters(function)
    small = SMALL["*"] | SMALL.get(name, {})
    for parameter, details in found.items():
        make = VALID.get(f"{name}.{parameter}")
        if parameter in small:
            make = small[parameter]
        elif details.default is details.empty:
            make = make or VALID[parameter]
        else:
            make = None
        if make is not None:
            arguments[parameter] = make()
    return arguments


def cases() -> list[tuple[str, str, str]]:
    """Return all combinations of a function, a parameter and a wrong value."""
    return [
        (name, parameter, value)
        for name, function in all_targets().items()
        for parameter, value in itertools.product(parameters(function), WRONG)
    ]


def complaint(name: str, parameter: str, value: str) -> str:
    """Call a function with one wrong argument, and return what is wrong with the outcome, or an empty string."""
    function = all_targets()[name]
    arguments = valid_arguments(name, function) | {parameter: WRONG[value]()}
    # These methods take their arguments by position.
    positional = []
    if name in ("Adapted.init", "Adapted.apply", "TwoLayer.clone", "Adapted.clone"):
        positional = [arguments.pop(each) for each in parameters(function) if each in arguments]

    def too_long(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        # Use a temporary folder, because a string may be taken for the name of a folder.
        with tempfile.TemporaryDirectory() as here, chdir(here), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*positional, **arguments)
        return ""
    except Own as error:
        return "" if _noted(error, parameter) else "the user's own exception has no note that names the argument"
    except (ValueError, TypeError) as error:
        return "" if _noted(error, parameter) else _wrong_message(error, parameter)
    except TimeoutError:
        return f"no answer within {LIMIT:g} s"
    except Exception as error:
        # Exceptions that a user's network raises from its own library need a note that names the argument.
        return "" if _noted(error, parameter) else f"{type(error).__name__}: {_short(error)} ({_place(error)})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if name == "register_quantity":
            lz.measures.unregister_quantity("largest_weight") if "largest_weight" in lz.measures.catalog() else None


def _noted(error: Exception, parameter: str) -> bool:
    """Return whether an exception has a note that names the argument."""
    words = (parameter, *ALIASES.get(parameter, ()))
    return any(word in note for note in getattr(error, "__notes__", []) for word in words)


def _wrong_message(error: Exception, parameter: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    named = any(
        re.search(rf"(?<![a-z]){re.escape(word)}", str(error)) for word in (parameter, *ALIASES.get(parameter, ()))
    )
    fits = "GB of memory" in str(error)
    if frames[-1].filename.startswith(PACKAGE) and (named or fits):
        return ""
    what = "is not lazynet's own" if named else "does not name the argument"
    return f"{type(error).__name__} {what}: {_short(error)} ({_place(error)})"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:110]


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def main() -> int:
    """Run the script, and return 1 if any call did not end with a clear message."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000, help="number of calls (2000)")
    parser.add_argument("--all", action="store_true", help="make all calls")
    parser.add_argument("--seed", type=int, default=None, help="seed of the random choice of calls (random)")
    parser.add_argument("--only", default="", help="regular expression that function.parameter must match")
    arguments = parser.parse_args()
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if arguments.seed is None else arguments.seed
    chosen = [case for case in cases() if re.search(arguments.only, f"{case[0]}.{case[1]}")]
    if not arguments.all and len(chosen) > arguments.draws:
        order = np.random.default_rng(seed).permutation(len(chosen))[: arguments.draws]
        chosen = [chosen[i] for i in order]
    found = 0
    for case in chosen:
        said = complaint(*case)
        if said:
            found += 1
            print(f"{case[0]}({case[1]}={case[2]}): {said}", flush=True)
    print(f"{len(chosen)} calls, seed {seed}: {found} findings", file=sys.stderr)
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main())
