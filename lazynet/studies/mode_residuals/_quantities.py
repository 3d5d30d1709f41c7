"""The quantities in a result of `lazynet.mode_residuals`."""

from lazynet.measures import Quantity, catalog
from lazynet.measures._catalog import add

MODES = ("width", "seed", "step", "mode", "output")

add(
    "mode_residuals",
    *(catalog()[name] for name in ("width", "seed", "step")),
    Quantity("output", "number of the output", dims=("output",), coordinate=True),
    Quantity("mode", "number of the mode, from the largest eigenvalue down", dims=("mode",), coordinate=True),
    Quantity(
        "residual",
        "v_i'(y - u) of the network",
        "targets",
        dims=MODES,
        source="Arora et al. 2019, Theorem 4.1",
    ),
    Quantity(
        "kernel_residual",
        "prediction of the kernel, (1 - eta lambda_i)^step v_i'(y - u(0))",
        "targets",
        dims=MODES,
        source="Arora et al. 2019, Theorem 4.1",
    ),
    Quantity(
        "gap",
        "distance between the residuals, divided by the initial residual of the mode or, if larger, its RMS over modes",
        dims=MODES[:4],
    ),
    Quantity("eigenvalue", "lambda_i of the kernel on the training set", dims=("width", "mode")),
    Quantity(
        "last_step_held", "last snapshot up to which the gap stays within the tolerance", dims=("width", "seed", "mode")
    ),
)
