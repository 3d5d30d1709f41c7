"""Theorem 5.1 of Arora et al. 2019, applied to the networks in a sweep."""

from typing import Any

import numpy as np

from lazynet.studies.sweep._points import at_one_point, check_contains, settings_of
from lazynet.theory._bounds import population_bound
from lazynet.typing import DataArray, Result

# Settings of the networks that are covered by Theorem 5.1 of Arora et al. 2019.
MODEL = {"activation": "relu", "train": "hidden", "readout": "sign", "output_scale": 1.0, "outputs": 1}
# Minimum value of the radius (the largest displacement of any unit), used if no unit has moved.
STILL = 1e-9


def population_bounds(result: Result, delta: float = 0.05) -> DataArray:
    """Return a bound on the population loss of each network in a sweep, based on how far the network's weights moved.

    The population loss is the expectation of min(1, |f - y|). The bound comes from Theorem 5.1 of Arora et al. 2019 and
    applies to inputs of unit norm; see `lazynet.theory.population_bound`. By the Cauchy-Schwarz inequality, the mean of
    min(1, |f - y|) over the n training examples is at most sqrt(2 L / n), where L is the squared loss. The bound also
    holds for the 0-1 error if the labels are +-1.

    Args:
        result: Result of `lazynet.sweep` with the squared loss and no axes other than width and seed.
        delta: Maximum probability that the bound fails, for each network and step.

    Returns:
        The bound for each width, seed and step, as float64. A bound of 1 or more is vacuous.

    Raises:
        ValueError: If the theorem does not cover the networks, their initialization, the inputs or the loss, if a
            quantity is missing or was measured on only some of the training examples, if the result has axes other than
            width and seed, or if it contains members of another sweep.

    >>> import lazynet as lz
    >>> from lazynet.studies.sweep import population_bounds
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=2), data, [16, 32], seeds=2, steps=10)
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
        raise ValueError(f"result must contain the loss on all training examples, got the loss on only {rows} of them.")
    if settings["traits"]["scaling"] is None:
        raise ValueError(
            "result must come from networks with lazynet's own initialization, got a user-defined network or start."
        )
    if "row_norms" in settings:
        raise ValueError(
            "result must come from inputs of unit norm, got training rows with norms from "
            f"{' to '.join(f'{norm:g}' for norm in settings['row_norms'])}."
        )
    check_contains(result, "train_loss", "displacement", "max_neuron_displacement", "init_scale")
    for name in ("width", "seed"):
        others = sorted(set(result[name].values.tolist()) - set(settings[f"{name}s"]))
        if others:
            raise ValueError(f"result must contain members of one sweep only, got {name} {others[0]} of another sweep.")
    n = settings["n_train"]

    def bound(loss: float, movement: float, radius: float, scale: float, width: Any) -> float:
        if not np.isfinite(movement):
            return np.nan
        fitted = min(1.0, float(np.sqrt(2 * loss / n)))
        # Due to float32 rounding, the norm over all units can exceed sqrt(m) times the largest norm of a single unit.
        far = max(float(radius), float(movement) / np.sqrt(width), STILL)
        return population_bound(
            fitted,
            n,
            float(movement),
            delta,
            width=int(width),
            radius=far,
            init_scale=float(scale),
            symmetric=settings["symmetric"],
        )

    arguments = (
        result.train_loss,
        result.displacement,
        result.max_neuron_displacement,
        result.init_scale,
        result.width,
    )
    return xarray.apply_ufunc(bound, *arguments, vectorize=True).transpose("width", "seed", "step")
