"""Settings and measurements shared by the experiments that reproduce Li and Liang 2018."""

from typing import Any

import jax
import numpy as np

import lazynet as lz
from lazynet.execution import Arrays
from lazynet.measures import singular_values
from lazynet.networks import weights
from lazynet.papers.li2018_sizes import BATCH, ETA, Mixture
from lazynet.papers.work import Work
from lazynet.training import member_key
from lazynet.typing import DataArray, Result

NETWORK = lz.TwoLayer(width=2, readout="gaussian", symmetric=False)
SGD: dict[str, Any] = {"learning_rate": ETA, "loss": "softmax", "batch_size": BATCH}
# Measures of movement: their names in the paper, mapped to the corresponding variables in a result.
MOVED = {"coupling": "activation_flips", "relative distance": "relative_displacement"}
# Number of training examples on which the networks are measured.
MEASURED = 100
# Level below which the paper calls the coupling and the relative distance small.
LEVEL = 0.1
# Accuracy at or above which the data count as learned.
LEARNED = 0.99


def drawn(size: Mixture, n_train: int | None = None, **more: Any) -> lz.Dataset:
    """Return the synthetic data of Li and Liang 2018.

    Args:
        size: Parameters of the mixture, including the number n of test examples.
        n_train: Number of training examples. Defaults to n.
        more: Additional arguments for `lazynet.mixture`.
    """
    n, dim, classes, components = size
    return lz.mixture(n_train or n, n, dim, jax.random.key(0), classes, components, **more)


def evenly(steps: int, snapshots: int) -> range:
    """Return about `snapshots` equally spaced steps from 0 to `steps`."""
    return range(0, steps + 1, max(1, steps // snapshots))


def first_step(error: DataArray) -> DataArray:
    """Return the first step at which each network reaches accuracy LEARNED, or NaN if it never does."""
    learned = error <= 1 - LEARNED
    return error.step[learned.argmax("step")].where(learned.any("step")).drop_vars("step")


def steps_of(error: DataArray) -> float:
    """Return the mean number of steps needed to reach accuracy LEARNED, or NaN if any network never reaches it."""
    return float(first_step(error).mean(skipna=False))


def moved(result: Result) -> float:
    """Return the relative distance at the last step, averaged over networks."""
    return float(result.relative_displacement.isel(step=-1).mean(skipna=False))


def spectra(
    work: Work,
    name: str,
    data: lz.Dataset,
    widths: list[int],
    seeds: int,
    steps: int,
    settings: dict[str, Any] = SGD,
) -> Arrays:
    """Return the singular values of the final weights and of their update, by width, seed and index."""

    def compute(width: int, seed: int) -> Arrays:
        network = NETWORK.clone(width=width, outputs=data.outputs)
        measure = lz.Measure(kernel_drift=False, rows=BATCH)
        run = lz.train(network, data, member_key(width, seed), steps, snapshots=1, measure=measure, **settings)
        now, start = (weights(variables, "hidden") for variables in (run.variables, run.variables_0))
        return {"update": singular_values(now - start), "weights": singular_values(now)}

    return {"widths": np.array(widths), **work.arrays(name, compute, width=widths, seed=range(seeds))}
