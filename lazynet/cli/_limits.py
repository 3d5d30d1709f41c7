"""Commands for infinitely wide networks: `lazynet infinite-width` and `lazynet complexity`."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

import lazynet as lz
from lazynet.cli._common import (
    Data,
    DType,
    Folder,
    Network,
    OptionalFloat,
    Switch,
    choices,
    print_json,
    print_plan,
    stoppable,
)
from lazynet.cli._reports import report
from lazynet.execution import run
from lazynet.experiment import infinite_width_jobs
from lazynet.hosts import together
from lazynet.kernels import FACTORED, STORAGES, complexity_and_smallest, largest_eigenvalue
from lazynet.studies.infinite_width import InfiniteWidth, check_infinite_width


@dataclass
class LimitCommand:
    """Predict how an infinitely wide network trains on a whole data set, with true labels and with random labels.

    With all 60,000 MNIST training images, the command takes about four minutes and 10 GB of memory on two cores; use
    --n-train to select fewer images.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    steps: int = 100_000
    """Number of steps of full-batch gradient descent."""
    snapshots: int = 200
    """Number of log-spaced steps at which predictions are made."""
    learning_rate: OptionalFloat = None
    """Learning rate; by default 1 / lambda_max of the kernel."""
    dtype: DType = "float32"
    """Precision of the kernel's entries. Sums are always float64."""
    storage: Annotated[str | None, choices(STORAGES)] = None
    """Where to store the kernel, or none to recompute it; by default, the fastest that fits."""
    tolerance: OptionalFloat = None
    """Maximum error in the predictions, relative to the norm of the targets; by default 1e-4, or 1e-5 for float64."""
    folder: tyro.conf.OmitArgPrefixes[Folder] = field(default_factory=Folder)
    json: Switch = False
    """Print one JSON object instead of tables."""
    plan: Switch = False
    """Print the minimum memory and number of operations that the run needs, and exit."""

    def run(self) -> int:
        """Run the prediction and return the exit code."""
        folder, data = self.folder.open(), self.data.load()
        network = self.network.at_width(2, data.outputs)
        settings = self.steps, self.snapshots, self.learning_rate, self.dtype, self.storage, self.tolerance
        kernel = check_infinite_width(network, data, *settings)
        if self.plan:
            return print_plan(infinite_width_jobs(data, self.dtype, self.storage), self.json)
        with stoppable(self.folder.out):
            result = run(InfiniteWidth(network, data, kernel, *settings), folder, progress=True)
            with together():
                return 0 if result is None else report(result, self.folder.out, self.json)


@dataclass
class Complexity:
    """Print the complexity measure sqrt(2 y' K^-1 y / n) of Arora et al. 2019 for a real data set.

    The command factors the kernel if there are at most 16,000 examples. With more examples, it uses only
    kernel-vector products. The target relative error in the complexity is then 1e-5, and the smallest eigenvalue is
    overestimated by a few percent.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    json: Switch = False
    """Print one JSON object."""

    def run(self) -> int:
        """Compute and print the complexity, and return the exit code."""
        data = self.data.load(n_test=0)
        numbers = complexity_record(data)
        if self.json:
            print_json(**numbers, dataset=data.name)
        else:
            print(f"complexity {numbers['complexity']:.4f}   (sqrt(2 y' K^-1 y / n), n = {numbers['n']})")
            print(f"eigenvalues of K from {numbers['lambda_min']:.4g} to {numbers['lambda_max']:.4g}")
        return 0


def complexity_record(data: lz.Dataset, factored: int = FACTORED) -> dict[str, Any]:
    """Return the complexity of the labels and the extreme eigenvalues of the kernel.

    Args:
        data: The data set.
        factored: Maximum number of examples for which the kernel is factored.
    """
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    large = data.n_train > factored
    k = lz.kernel_operator(kernel, data.x_train) if large else kernel(data.x_train)
    complexity, lambda_min = complexity_and_smallest(k, data.y_train)
    return {
        "complexity": complexity,
        "n": data.n_train,
        "lambda_min": lambda_min,
        "lambda_max": largest_eigenvalue(k),
        "classes": data.classes,
    }
