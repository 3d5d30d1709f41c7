"""Theory: predicted exponents, fits with intervals, bounds, and the verdict."""

from lazynet.theory.exponents import Prediction, Scaling, predicted_exponents
from lazynet.theory.fits import Fit, fit_exponent, judge
from lazynet.theory.inequalities import Inequality, inequalities
from lazynet.theory.verdict import Row, StepFit, Verdict, reduce_steps, verify

__all__ = [
    "Fit",
    "Inequality",
    "Prediction",
    "Row",
    "Scaling",
    "StepFit",
    "Verdict",
    "fit_exponent",
    "inequalities",
    "judge",
    "predicted_exponents",
    "reduce_steps",
    "verify",
]
