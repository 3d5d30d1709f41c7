"""The quantities in a result of `lazynet.laziness_map`."""

from lazynet.measures import Quantity, catalog
from lazynet.measures._catalog import add

GRID, ROUND = ("width", "output_scale", "seed"), ("width", "round")

add(
    "laziness_map",
    *(catalog()[name] for name in ("width", "seed", "step", "init_scale", "target_rms", "test_target_rms")),
    Quantity(
        "learning_rate",
        "learning rate eta, the first step size of the gradient flow",
        dims=("width", "output_scale"),
        coordinate=True,
    ),
    Quantity("output_scale", "factor alpha that multiplies the output", dims=("output_scale",), coordinate=True),
    Quantity(
        "control",
        "control parameter m^p alpha",
        dims=("width", "output_scale"),
        coordinate=True,
        source="Geiger et al. 2019",
    ),
    Quantity("status", "how the training of a network ended", "", dims=GRID),
    Quantity(
        "kernel_change",
        "norm(K_T - K_0) / norm(K_0) of the empirical kernel, for a network that fits its data",
        dims=GRID,
        source="Lee et al. 2019, Figure 1",
    ),
    Quantity("train_loss", "training loss at the end of training", "loss", dims=GRID),
    Quantity("test_loss", "test loss, for a network that fits its data", "loss", dims=GRID),
    Quantity("test_error", "fraction of misclassified test examples, for a network that fits its data", dims=GRID),
    Quantity(
        "activation_flips",
        "fraction of pre-activation signs that differ from initialization, for a network that fits its data",
        dims=GRID,
    ),
    Quantity(
        "relative_displacement",
        "norm of params - params(0), divided by the norm of params(0), for a network that fits its data",
        dims=GRID,
    ),
    Quantity("time", "time at which the gradient flow ends", dims=GRID),
    Quantity("stopped_step", "number of training steps taken", dims=GRID),
    Quantity(
        "boundary",
        "output scale at which the mean kernel change equals the attribute `change`",
        dims=("width",),
        source="Geiger et al. 2019",
    ),
    Quantity("boundary_low", "lower end of the 95% interval of the boundary", dims=("width",)),
    Quantity("boundary_high", "upper end of the 95% interval of the boundary", dims=("width",)),
    Quantity("round", "round of the bisection for the boundary", dims=("round",), coordinate=True),
    Quantity("tried_scale", "output scale tried in a round of the bisection", dims=ROUND),
    Quantity("tried_change", "kernel change at the scale tried in a round of the bisection", dims=(*ROUND, "seed")),
)
