"""Measures of how far a network is from its initialization and from theoretical predictions.

Each measure is a function that evaluates one equation. The catalog describes the variables in results.
"""

from lazynet.measures._catalog import (
    OWN,
    SCHEMA,
    Quantity,
    catalog,
    check_schema,
    label_result,
    reference,
    register_quantity,
    registered,
    reserved_names,
    settings_by_width,
    unregister_quantity,
)
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
from lazynet.measures._sweep_quantities import FORECAST

__all__ = [
    "FORECAST",
    "OWN",
    "SCHEMA",
    "Quantity",
    "activation_flips",
    "array_displacements",
    "array_norms",
    "catalog",
    "check_schema",
    "coupled_neurons",
    "current_kernel",
    "displacement",
    "effective_rank",
    "kernel_distance",
    "kernel_velocity",
    "label_alignment",
    "label_result",
    "leading_values",
    "max_neuron_displacement",
    "parameter_norm",
    "reference",
    "register_quantity",
    "registered",
    "relative_distance",
    "reserved_names",
    "residual_modes",
    "rms",
    "settings_by_width",
    "sharpness",
    "sign_changes",
    "singular_values",
    "taylor_gap",
    "unregister_quantity",
    "zero_one_error",
]
