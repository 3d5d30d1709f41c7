"""Theorem 5.1 of Arora et al. 2019 for the networks of a sweep."""

from typing import Any

import numpy as np

from lazynet.studies.sweep._points import at_one_point, settings_of
from lazynet.theory._bounds import population_bound
from lazynet.typing import DataArray, Result

# Settings of the networks that the theorem is about.
MODEL = {"activation": "relu", "train": "hidden", "readout": "sign", "output_scale": 1.0, "outputs": 1}
# Radius for units that have not moved.
STILL = 1e-9


def population_bounds(result: Result, delta: float = 0.05) -> DataArray:
    """Bound the population loss min(1, |f - y|) of the networks of a sweep by how far their weights moved.

    The bound also holds for the 0-1 error of labels +-1. It is `lazynet.theory.population_bound` of each network, whose
    training loss min(1, |f - y|) is on average at most sqrt(2 L / n) for the loss L (Cauchy and Schwarz). Arora et al.
    2019, Theorem 5.1, for inputs of unit norm.

    Args:
        result: result of `lazynet.sweep` on the squared loss, without axes besides width and seed.
        delta: probability, for each network and step, that the bound fails.

    Returns:
        The bound over width, seed and step, float64; it is vacuous from 1 on.

    Raises:
        ValueError: if the theorem does not cover the networks or the loss, measures used only some of the training
            examples, or the result has other axes than width and seed.

    >>> import lazynet as lz
    >>> from lazynet.studies.sweep import population_bounds
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=2), data, [64, 4096], seeds=2, steps=10)
    >>> bool((population_bounds(result) > result.test_error).all())
    True
    """
    import xarray

    result, settings = at_one_point(result), settings_of(result)
    model = MODEL | {"loss": "squared"}
    other = {name: settings.get(name) for name, value in model.items() if settings.get(name) != value}
    if other:
        raise ValueError(f"result must be a sweep with the settings {model}, got {other}.")
    rows = settings["measure"]["rows"]
    if rows is not None:
        raise ValueError(f"result must have the loss of all training examples, got a sweep that measures at {rows}.")
    n = settings["n_train"]

    def bound(loss: float, movement: float, radius: float, width: Any) -> float:
        if not np.isfinite(movement):
            return np.nan
        fitted = min(1.0, float(np.sqrt(2 * loss / n)))
        # Rounding in float32 may make the norm of all units larger than sqrt(m) times the largest.
        far = max(float(radius), float(movement) / np.sqrt(width), STILL)
        scale, symmetric = settings["init_scale"], settings["symmetric"]
        return population_bound(
            fitted, n, float(movement), delta, width=int(width), radius=far, init_scale=scale, symmetric=symmetric
        )

    arguments = result.train_loss, result.displacement, result.max_neuron_displacement, result.width
    return xarray.apply_ufunc(bound, *arguments, vectorize=True).transpose("width", "seed", "step")
