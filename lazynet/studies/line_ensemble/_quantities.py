"""The quantities in a result of `lazynet.line_ensemble`."""

from lazynet.measures import Quantity, catalog
from lazynet.measures._catalog import add

PLACES = ("width", "step", "place", "output")
GAP = ("width", "step")

add(
    "line_ensemble",
    *(catalog()[name] for name in ("width", "seed", "step")),
    Quantity("place", "coordinate a of the input a x_1 + (1 - a) x_2", dims=("place",), coordinate=True),
    Quantity("output", "number of the output", dims=("output",), coordinate=True),
    Quantity("prediction", "output of each network", "targets", dims=("width", "seed", *PLACES[1:])),
    Quantity("mean", "mean output of the networks", "targets", dims=PLACES),
    Quantity("deviation", "standard deviation of the output over networks", "targets", dims=PLACES),
    Quantity(
        "kernel_mean",
        "mean output of networks of infinite width",
        "targets",
        dims=PLACES,
        source="Lee et al. 2019, section 2.3.2",
    ),
    Quantity(
        "kernel_deviation",
        "standard deviation of the output over networks of infinite width",
        "targets",
        dims=PLACES[:3],
        source="Lee et al. 2019, section 2.3.2",
    ),
    Quantity(
        "gap_squared",
        "mean of (f - infinite-width prediction from the same initialization)^2 over networks, points and outputs",
        "targets^2",
        dims=GAP,
    ),
    Quantity(
        "gap_bias_squared", "squared bias, the part of gap_squared that all networks share", "targets^2", dims=GAP
    ),
    Quantity("gap_variance", "variance, the part of gap_squared that differs between networks", "targets^2", dims=GAP),
    Quantity("gap_bias_squared_error", "standard error of gap_bias_squared", "targets^2", dims=GAP),
    Quantity("gap_variance_error", "standard error of gap_variance", "targets^2", dims=GAP),
)
