"""Networks: flax modules that follow the protocol `width, outputs, clone, init, apply`."""

from lazynet.networks._activations import ACTIVATIONS, Activation, value_and_slope
from lazynet.networks._adapters import Adapted, from_flax, from_functions, from_nnx, from_stax
from lazynet.networks._centered import Centered
from lazynet.networks._conv import ConvNet, patches
from lazynet.networks._deep import MLP, ThreeLayer
from lazynet.networks._expansions import Expansion, Linearized, Quadratic, linearize, quadratic
from lazynet.networks._parametrization import PARAMETRIZATIONS, Parametrization, get_parametrization
from lazynet.networks._protocol import (
    check_members_differ,
    check_network,
    described,
    forward_cost,
    layer_names,
    learning_rate_exponent,
    parameter_bytes,
    preactivations,
    starts_at_zero,
)
from lazynet.networks._two_layer import Scale, SingleHidden, TwoLayer, at_width, output_factor, weights

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "PARAMETRIZATIONS",
    "Activation",
    "Adapted",
    "Centered",
    "ConvNet",
    "Expansion",
    "Linearized",
    "Parametrization",
    "Quadratic",
    "Scale",
    "SingleHidden",
    "ThreeLayer",
    "TwoLayer",
    "at_width",
    "check_members_differ",
    "check_network",
    "described",
    "forward_cost",
    "from_flax",
    "from_functions",
    "from_nnx",
    "from_stax",
    "get_parametrization",
    "layer_names",
    "learning_rate_exponent",
    "linearize",
    "output_factor",
    "parameter_bytes",
    "patches",
    "preactivations",
    "quadratic",
    "starts_at_zero",
    "value_and_slope",
    "weights",
]
