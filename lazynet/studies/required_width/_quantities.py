"""The quantities in a result of `lazynet.required_width`."""

from lazynet.measures import Quantity, catalog
from lazynet.measures._catalog import add

# Measurements of each network, which are the same as in a sweep.
MEASURED = tuple(name for name, quantity in catalog().items() if {"width", "seed"} <= set(quantity.dims))
COORDINATES = tuple(name for name, quantity in catalog().items() if quantity.coordinate)

add(
    "required_width",
    *(catalog()[name] for name in dict.fromkeys((*MEASURED, *COORDINATES))),
    Quantity(
        "pilot",
        "1 if the width is a pilot, 0 if it was trained after the prediction",
        dims=("width",),
    ),
    Quantity(
        "required_width",
        "smallest trained width such that it and all larger trained widths are lazy, or NaN if no width was verified",
        "",
        dims=(),
    ),
    Quantity("predicted_width", "width at which the mean gap was predicted to equal the tolerance", "", dims=()),
    Quantity("predicted_width_low", "lower end of the 95% interval of the predicted width", "", dims=()),
    Quantity("predicted_width_high", "upper end of the 95% interval of the predicted width", "", dims=()),
    Quantity(
        "crossing", "width at which the mean gap equals the tolerance, measured between trained widths", "", dims=()
    ),
    Quantity("crossing_low", "lower end of the 95% interval of the crossing", "", dims=()),
    Quantity("crossing_high", "upper end of the 95% interval of the crossing", "", dims=()),
)
