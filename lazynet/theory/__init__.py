"""Theory: predicted exponents, fits with intervals, bounds, and the verdict."""

from lazynet.theory.binomial import binomial_interval
from lazynet.theory.bounds import (
    concentration_bound,
    flips_bound,
    generalization_bound,
    neuron_movement_bound,
    population_bound,
    power_bound,
    rademacher_bound,
    unseen_share,
)
from lazynet.theory.corrections import Correction, fit_correction, seeds_needed
from lazynet.theory.exponents import Prediction, Scaling, predicted_exponents
from lazynet.theory.fits import Fit, fit_exponent, judge
from lazynet.theory.generalization import population_bounds
from lazynet.theory.inequalities import Inequality, inequalities
from lazynet.theory.laziness import (
    Boundary,
    boundary_exponent,
    bracket,
    collapse_spread,
    fit_boundary,
    mean_of_most,
    sharpest_collapse,
    why_steeper,
)
from lazynet.theory.points import at_one_point, points, settings_of
from lazynet.theory.speed import speed_gap
from lazynet.theory.verdict import Row, StepFit, Verdict, quantity_of, reduce_steps, scaling_of, verdicts_json, verify

__all__ = [
    "Boundary",
    "Correction",
    "Fit",
    "Inequality",
    "Prediction",
    "Row",
    "Scaling",
    "StepFit",
    "Verdict",
    "at_one_point",
    "binomial_interval",
    "boundary_exponent",
    "bracket",
    "collapse_spread",
    "concentration_bound",
    "fit_boundary",
    "fit_correction",
    "fit_exponent",
    "flips_bound",
    "generalization_bound",
    "inequalities",
    "judge",
    "mean_of_most",
    "neuron_movement_bound",
    "points",
    "population_bound",
    "population_bounds",
    "power_bound",
    "predicted_exponents",
    "quantity_of",
    "rademacher_bound",
    "reduce_steps",
    "scaling_of",
    "seeds_needed",
    "settings_of",
    "sharpest_collapse",
    "speed_gap",
    "unseen_share",
    "verdicts_json",
    "verify",
    "why_steeper",
]
