"""Theory: predicted width exponents, explicit bounds, and fits with confidence intervals."""

from lazynet.theory._binomial import binomial_interval
from lazynet.theory._bounds import (
    concentration_bound,
    flips_bound,
    generalization_bound,
    neuron_movement_bound,
    population_bound,
    power_bound,
    rademacher_bound,
    unseen_share,
)
from lazynet.theory._corrections import Correction, fit_correction, seeds_needed
from lazynet.theory._crossings import Crossing, crossing, predict_crossing
from lazynet.theory._exponents import Prediction, Scaling, predicted_exponents
from lazynet.theory._fits import Fit, fit_exponent, judge

__all__ = [
    "Correction",
    "Crossing",
    "Fit",
    "Prediction",
    "Scaling",
    "binomial_interval",
    "concentration_bound",
    "crossing",
    "fit_correction",
    "fit_exponent",
    "flips_bound",
    "generalization_bound",
    "judge",
    "neuron_movement_bound",
    "population_bound",
    "power_bound",
    "predict_crossing",
    "predicted_exponents",
    "rademacher_bound",
    "seeds_needed",
    "unseen_share",
]
