"""Measures of the distance of a network from its start and from its predictions, one equation per function."""

from lazynet.measures._gaps import relative_distance, rms, taylor_gap, zero_one_error
from lazynet.measures._kernel import current_kernel, kernel_distance, kernel_velocity, label_alignment
from lazynet.measures._modes import residual_modes
from lazynet.measures._movement import (
    activation_flips,
    array_displacements,
    array_norms,
    coupled_neurons,
    displacement,
    max_neuron_displacement,
    parameter_norm,
    sign_changes,
)
from lazynet.measures._sharpness import sharpness
from lazynet.measures._spectrum import effective_rank, leading_values, singular_values

__all__ = [
    "activation_flips",
    "array_displacements",
    "array_norms",
    "coupled_neurons",
    "current_kernel",
    "displacement",
    "effective_rank",
    "kernel_distance",
    "kernel_velocity",
    "label_alignment",
    "leading_values",
    "max_neuron_displacement",
    "parameter_norm",
    "relative_distance",
    "residual_modes",
    "rms",
    "sharpness",
    "sign_changes",
    "singular_values",
    "taylor_gap",
    "zero_one_error",
]
