"""Theorem 5.1 of Arora et al. 2019 for the networks of a sweep."""

from typing import Any

import numpy as np

from lazynet.studies.sweep._points import at_one_point, settings_of
from lazynet.theory._bounds import population_bound
from lazynet.typing import DataArray, Result

# Of networks that the theorem is about.
MODEL = {"activation": "relu", "train": "hidden", "readout": "sign", "output_scale": 1.0, "outputs": 1}
# Units that have not moved are as good as within this of their start.
STILL = 1e-9


def population_bounds(result: Result, delta: float = 0.05) -> DataArray:
    """A bound on the population's min(1, |f - y|), and so on the 0-1 error of labels +-1, from how far weights moved.

    `population_bound` of each network, whose training loss min(1, |f - y|) is at most sqrt(2 L / n) on average, L the
    loss (Cauchy and Schwarz). It holds for inputs of unit norm.

    Args:
        result: of `lazynet.sweep`, on the squared loss, at one point of its other axes.
        delta: the probability that the bound of a network at a step fails.

    Returns:
        The bound over width, seed and step; of 1 or more it is vacuous.

    Raises:
        ValueError: if the networks are not those of the theorem, measures looked at some of the training examples
            only, or the result has further axes.

    >>> import lazynet as lz
    >>> from lazynet.studies.sweep import population_bounds
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=2), data, [64, 4096], seeds=2, steps=10)
    >>> bool((population_bounds(result) > result.test_error).all())
    True
    """
    import xarray

    result, settings = at_one_point(result), settings_of(result)
    other = {name: settings[name] for name, value in MODEL.items() if settings[name] != value}
    if other or settings["loss"] != "squared":
        raise ValueError(
            f"The theorem is about {MODEL} and the squared loss, but the sweep has {other or settings['loss']}."
        )
    if settings["measured"] is not None:
        raise ValueError(f"The loss of all training examples is needed, but the sweep measured {settings['measured']}.")
    n = settings["n_train"]

    def bound(loss: float, movement: float, radius: float, width: Any) -> float:
        if not np.isfinite(movement):
            return np.nan
        fitted = min(1.0, float(np.sqrt(2 * loss / n)))
        # What moved in float32 may be a rounding further than its furthest unit allows.
        far = max(float(radius), float(movement) / np.sqrt(width), STILL)
        scale, symmetric = settings["init_scale"], settings["symmetric"]
        return population_bound(
            fitted, n, float(movement), delta, width=int(width), radius=far, init_scale=scale, symmetric=symmetric
        )

    moved = result.train_loss, result.displacement, result.max_neuron_displacement, result.width
    return xarray.apply_ufunc(bound, *moved, vectorize=True).transpose("width", "seed", "step")
