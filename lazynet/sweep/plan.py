"""What sweeps and predictions take, before they start: the bytes they cannot do without, and their operations."""

from collections.abc import Sequence

from lazynet.data import Dataset
from lazynet.kernels import kernel_job
from lazynet.kernels.krylov import COLUMNS
from lazynet.kernels.storage import choose_storage
from lazynet.networks import TwoLayer
from lazynet.plan import Job, available_memory, eigenvectors_bytes, eigenvectors_flops
from lazynet.sweep.predictions import LARGEST_EIGENPROBLEM
from lazynet.sweep.settings import Training
from lazynet.training import step_flops

PRODUCTS = 60  # with the kernel of images, about, for predictions and complexity together


def sweep_jobs(network: TwoLayer, data: Dataset, widths: Sequence[int], members: int, training: Training) -> list[Job]:
    """What the limit takes, and each width with so many members.

    Bytes are those of the weights of all members at the start and at the end, the pre-activations of one of them, and
    the kernels; operations those of matrix products and eigenproblems.
    """
    n, rows, outputs = data.n_train, data.n_train + data.n_test, data.outputs
    itemsize, descends = 4 if training.dtype == "float32" else 8, training.plain and n * outputs <= LARGEST_EIGENPROBLEM
    own = n * outputs if descends else n
    kernels = 8 * own * (rows * outputs if descends else n) + (eigenvectors_bytes(own) if descends else 0)
    limit = Job(
        f"The infinite-width kernel of {n} training rows and its eigenvectors",
        {"kernel": 8 * n * rows, "eigenvectors": eigenvectors_bytes(n)},
        {"kernel": 2.0 * n * rows * data.dim, "eigenvectors": eigenvectors_flops(n)},
    )

    def of_width(width: int) -> Job:
        at_width = network.clone(width=width)
        step = step_flops(at_width, n, data.dim, training.batch_size, training.path, training.plain)
        return Job(
            f"Training {members} networks of width {width}",
            {
                "weights": 2 * members * itemsize * width * (data.dim + outputs),
                "pre-activations": itemsize * n * width,
                "kernels": kernels,
            },
            {
                "training": members * training.steps * step,
                "kernels": members * len(training.snapshot_steps) * 2.0 * n**2 * width,
                "eigenvectors": members * eigenvectors_flops(own) if descends else 0.0,
            },
        )

    return [limit, *(of_width(width) for width in widths)]


def predict_jobs(data: Dataset, dtype: str, storage: str | None) -> list[Job]:
    """What `lazynet.predict` takes: the kernel, and products with it."""
    n = data.n_train
    storage = storage or choose_storage(n, dtype, available_memory())
    kernel = kernel_job(n, data.dim, dtype, storage)
    anew = sum(kernel.flops.values()) if storage == "none" else 0.0
    vectors = {"basis": 8 * n * PRODUCTS * COLUMNS}
    products = {"products": PRODUCTS * 2.0 * n**2 * COLUMNS, "entries anew": PRODUCTS * anew}
    return [kernel, Job(f"About {PRODUCTS} products with {COLUMNS} vectors each", vectors, products)]
