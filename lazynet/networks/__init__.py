"""Flax modules that follow the `Network` protocol, adapters for user-supplied networks, and network `traits`."""

from lazynet.networks._activations import ACTIVATIONS, Activation, Function, get_activation, value_and_slope
from lazynet.networks._adapters import Adapted, from_flax, from_functions, from_nnx, from_stax
from lazynet.networks._centered import Centered
from lazynet.networks._checks import (
    check_members_differ,
    check_model,
    check_network,
    check_params,
    check_rows_alone,
    check_rows_apart,
    check_variables,
)
from lazynet.networks._conv import ConvNet, patches
from lazynet.networks._cost import (
    forward_operations,
    gradient_operations,
    kernel_operations,
    step_bytes,
    timing_network,
)
from lazynet.networks._deep import MLP, ThreeLayer
from lazynet.networks._expansions import Cubic, Expansion, Linearized, Quadratic, linearize, quadratic
from lazynet.networks._parametrization import PARAMETRIZATIONS, Parametrization, get_parametrization
from lazynet.networks._protocol import GivenNetwork, Model, Network, initial_shapes, layer_names
from lazynet.networks._started import Started, with_start
from lazynet.networks._traits import HiddenLayer, LayerScaling, Traits, hidden_layer_of, traits
from lazynet.networks._two_layer import Scale, SingleHidden, TwoLayer, at_width, check_scale, weights

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "PARAMETRIZATIONS",
    "Activation",
    "Adapted",
    "Centered",
    "ConvNet",
    "Cubic",
    "Expansion",
    "Function",
    "GivenNetwork",
    "HiddenLayer",
    "LayerScaling",
    "Linearized",
    "Model",
    "Network",
    "Parametrization",
    "Quadratic",
    "Scale",
    "SingleHidden",
    "Started",
    "ThreeLayer",
    "Traits",
    "TwoLayer",
    "at_width",
    "check_members_differ",
    "check_model",
    "check_network",
    "check_params",
    "check_rows_alone",
    "check_rows_apart",
    "check_scale",
    "check_variables",
    "forward_operations",
    "from_flax",
    "from_functions",
    "from_nnx",
    "from_stax",
    "get_activation",
    "get_parametrization",
    "gradient_operations",
    "hidden_layer_of",
    "initial_shapes",
    "kernel_operations",
    "layer_names",
    "linearize",
    "patches",
    "quadratic",
    "step_bytes",
    "timing_network",
    "traits",
    "value_and_slope",
    "weights",
    "with_start",
]
