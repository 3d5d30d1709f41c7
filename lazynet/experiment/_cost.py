"""Estimates of how much memory and how many operations a study requires, made before the study starts."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from lazynet.arrays import input_dtype, nbytes
from lazynet.data import Dataset
from lazynet.experiment._grid import Point
from lazynet.experiment._packing import packs_of
from lazynet.experiment._predictions import LARGEST_EIGENPROBLEM
from lazynet.experiment._settings import layer_names_of
from lazynet.experiment._shared_inputs import SharedInputs, share_inputs
from lazynet.experiment._spec import Spec
from lazynet.experiment._training import Training
from lazynet.kernels import (
    COLUMNS,
    MIN_RANDOM_COLUMNS,
    RANK,
    WORKING,
    analytic_kernel,
    choose_storage,
    kernel_job,
    limit_key,
)
from lazynet.networks import Network, forward_operations, initial_shapes, kernel_operations, traits
from lazynet.plan import Job, available_memory, check_memory, eigenvectors_bytes, eigenvectors_flops
from lazynet.precision import arithmetic
from lazynet.programs import once
from lazynet.training import AutodiffStepper, Member, Stepper
from lazynet.typing import Variables

# Typical number of times that the kernel is multiplied by a block of vectors to compute both the predictions and the
# complexity for an image data set.
PRODUCTS = 60


def check_memory_of(spec: Spec) -> None:
    """Check that a study does not need more memory than is available.

    Args:
        spec: Specification of the study.

    Raises:
        ValueError: If a job does not fit in memory. The message names the job.
    """
    for job in _jobs(spec, count=False):
        job.check()


def check_memory_of_kernels(network: Network, data: Dataset, training: Training) -> None:
    """Check that the kernels needed to measure the kernel drift of a single network fit in memory.

    Args:
        network: Network, with its width set.
        data: Training and test sets.
        training: Settings used to train and measure the network.

    Raises:
        ValueError: If the kernels do not fit in memory.
    """
    if training.measure.kernel_drift:
        rows = training.measure.rows or data.n_train
        parts = _part_kernel_bytes(network, len(layer_names_of(network, data)), rows)
        check_memory(f"Measuring the kernel drift on {rows} training examples", 8 * rows**2 + parts)


def _part_kernel_bytes(network: Network, layers: int, rows: int) -> int:
    """Return the size in bytes of the initial and current kernels of all trained arrays.

    The size is 0 for a network with one hidden layer, for which only the total kernel is computed.
    """
    return 0 if traits(network).hidden_layer is not None else 2 * layers * 8 * rows**2


def sweep_jobs(spec: Spec) -> list[Job]:
    """Estimate how much memory and how many operations a sweep requires.

    Each job covers all points in the grid. The byte count of a job is its peak memory at the most demanding point. It
    includes the variables of a pack before and after training, the state kept between training steps, and the kernels.
    The operation count includes only matrix products and eigendecompositions.

    Args:
        spec: Specification of the sweep.

    Returns:
        One job for the infinite-width kernels, if they are needed, and one job for each width.
    """
    return _jobs(spec, count=True)


def _jobs(spec: Spec, count: bool) -> list[Job]:
    """Return the jobs of a sweep.

    Counting their operations is optional because it traces each network several times.
    """
    # The jobs do not depend on the learning rate or the labels, so points that differ only in these share jobs.
    keys = [(point.network, point.data.n_train, point.training) for point in spec.points]
    jobs = {key: _jobs_at(point, spec, count) for key, point in dict(zip(keys, spec.points, strict=True)).items()}
    return [_together(list(parts)) for parts in zip(*(jobs[key] for key in keys), strict=True)]


def _together(jobs: list[Job]) -> Job:
    """Combine consecutive jobs into one job, named after the job that needs the most memory."""
    largest = max(jobs, key=lambda job: sum(job.bytes.values()))
    flops = {name: sum(job.flops[name] for job in jobs) for name in largest.flops}
    if len(jobs) == 1:
        return largest
    return Job(f"{largest.name}, at each of {len(jobs)} points", largest.bytes, flops)


def _jobs_at(point: Point, spec: Spec, count: bool) -> list[Job]:
    network, data, training = point.network, point.data, point.training
    inputs = share_inputs(network, data, training)
    widths, seeds, dtype = spec.widths, spec.seeds, input_dtype(data.x_train, "float32")
    n, rows, size, members = data.n_train, data.n_train + data.n_test, data.y_train.size, len(seeds)
    seen, snapshots = training.measure.rows or n, len(training.snapshot_steps)
    scales = {limit_key(network.clone(width=width)) for width in widths}
    has_limit = training.measure.predictions and analytic_kernel(network) is not None
    limits = len(scales) * 8 * (n * rows + n**2) if has_limit else 0
    first = Job(
        f"Diagonalizing the infinite-width kernel of {n} training rows",
        {"kernels": limits, "work": eigenvectors_bytes(n) - 8 * n**2},
        {"kernels": len(scales) * 2.0 * n * rows * data.dim, "eigenvectors": len(scales) * eigenvectors_flops(n)},
    )
    descends = training.measure.predictions and training.followed and size <= LARGEST_EIGENPROBLEM
    # Without a closed form, kernel descent multiplies by the kernel at every step; otherwise, the kernel is
    # diagonalized once.
    stepwise = descends and not training.has_closed_form
    own = 8 * size * rows * data.outputs + eigenvectors_bytes(size) if descends else 8 * seen**2
    parts = _part_kernel_bytes(network, len(spec.layers), seen)

    def job(width: int) -> Job:
        at_this = network.clone(width=width)
        stepper = replace(inputs.stepper, network=at_this)
        pack = len(packs_of(seeds, at_this, training.batch_size or n, data.dim, dtype)[0])
        variables, state = _bytes(at_this, stepper, inputs, data.y_train.shape, training.dtype)
        # Weights are drawn for all features before they are projected onto the span of the inputs.
        drawn = pack * np.dtype(training.dtype).itemsize * width * data.dim
        memory = {
            "variables": max(2 * pack * variables, drawn),
            "states": pack * state,
            "kernels of networks": own + pack * parts,
            "infinite-width kernels": limits,
        }
        flops = operations(at_this, stepper) if count else {}
        return Job(f"Training {members} networks of width {width}", memory, flops)

    def operations(at_this: Network, stepper: Stepper) -> dict[str, float]:
        # The optimizer does not affect the number of operations, so this stepper uses SGD.
        linear = AutodiffStepper(at_this, training.loss, optax.sgd, training.batch_size)
        measured = members * snapshots
        return {
            "training": members * training.steps * stepper.operations(inputs.arrays),
            "predictions": measured * forward_operations(at_this, seen + data.n_test, data.dim, dtype),
            "kernels": measured * kernel_operations(at_this, seen, data.dim, dtype),
            "eigenvectors": members * eigenvectors_flops(size) if descends and not stepwise else 0.0,
            "kernel descent": 2.0 * members * training.steps * (training.batch_size or n) * data.outputs * size
            if stepwise
            else 0.0,
            # Each step evaluates both the network and its directional derivative.
            "linearized": 0.0
            if descends or not training.measure.predictions
            else 2 * members * training.steps * linear.operations(inputs.arrays),
        }

    return [*([first] if has_limit else []), *map(job, widths)]


def _bytes(
    network: Network, stepper: Stepper, inputs: SharedInputs, outputs: tuple[int, ...], dtype: str
) -> tuple[int, int]:
    """Return the sizes in bytes of a member's variables and of its training state."""
    shapes = tuple((name, array.shape, input_dtype(array, dtype)) for name, array in inputs.arrays.items())
    return _traced_bytes(network, stepper, shapes, outputs, dtype)


@once
def _traced_bytes(
    network: Network,
    stepper: Stepper,
    shapes: tuple[tuple[str, tuple[int, ...], np.dtype], ...],
    outputs: tuple[int, ...],
    dtype: str,
) -> tuple[int, int]:
    def start(variables: Variables, key: jax.Array, shared: dict[str, jax.Array]) -> Any:
        return stepper.start(Member(variables, key, None), shared)

    with arithmetic(dtype):
        shared = {name: jax.ShapeDtypeStruct(shape, kind) for name, shape, kind in shapes}
        shared |= {name: jax.ShapeDtypeStruct((), dtype) for name in ("learning_rate", "output_scale")}
        shared["y"] = jax.ShapeDtypeStruct(outputs, dtype)
        variables = initial_shapes(network, shared["x"].shape[1:], shared["x"].dtype)
        state = jax.eval_shape(start, variables, jax.random.key(0), shared)
    return nbytes(variables), nbytes(state)


def infinite_width_jobs(data: Dataset, dtype: str, storage: str | None) -> list[Job]:
    """Estimate how much memory and how many operations `lazynet.infinite_width` requires.

    Args:
        data: Training and test sets.
        dtype: Dtype of the kernel's entries, "float64" or "float32".
        storage: Storage for the kernel's entries, as in `lazynet.kernel_operator`, or None for the default.

    Returns:
        One job for computing the kernel, and one job for multiplying it by vectors.
    """
    n = data.n_train
    storage = storage or choose_storage(n, dtype, available_memory() - WORKING)
    kernel = kernel_job(n, data.dim, dtype, storage)
    # The columns are the true and random labels for every output, plus random vectors.
    columns = max(COLUMNS, 2 * data.outputs + MIN_RANDOM_COLUMNS)
    held = {"basis": 8 * n * PRODUCTS * columns, "preconditioner": 2 * 8 * n * min(RANK, n // 8)}
    anew = sum(kernel.flops.values()) if storage == "none" else 0.0
    products = {"products": PRODUCTS * 2.0 * n**2 * columns, "recomputed entries": PRODUCTS * anew}
    return [kernel, Job(f"About {PRODUCTS} products with {columns} vectors each", held, products)]
