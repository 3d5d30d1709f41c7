"""Networks: flax modules that follow the protocol `width, outputs, clone, init, apply`."""

from lazynet.networks.activations import ACTIVATIONS, Activation, value_and_slope
from lazynet.networks.linearized import Linearized
from lazynet.networks.two_layer import Scale, TwoLayer, at_width, output_factor, weights

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Linearized",
    "Scale",
    "TwoLayer",
    "at_width",
    "output_factor",
    "value_and_slope",
    "weights",
]
