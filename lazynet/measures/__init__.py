"""Measures: how far a network has moved from its start and from its predictions. One function, one equation."""

from lazynet.measures.gaps import relative_distance, rms, zero_one_error
from lazynet.measures.modes import residual_modes
from lazynet.measures.movement import activation_flips, displacement, max_neuron_displacement, parameter_norm
from lazynet.measures.sharpness import sharpness

__all__ = [
    "activation_flips",
    "displacement",
    "max_neuron_displacement",
    "parameter_norm",
    "relative_distance",
    "residual_modes",
    "rms",
    "sharpness",
    "zero_one_error",
]
