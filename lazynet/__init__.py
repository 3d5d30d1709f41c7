"""lazynet tells, with numbers, whether an over-parameterized neural network is in the kernel (lazy) regime."""

from lazynet import losses
from lazynet.data import (
    Dataset,
    Separation,
    gaussian_mixture,
    label_noise,
    load_dataset,
    mixture,
    separation,
    sphere,
    xor,
)
from lazynet.dynamics import Ensemble, Trajectory, kernel_descent, kernel_ensemble, kernel_flow
from lazynet.kernels import (
    analytic_kernel,
    complexity,
    empirical_ntk,
    kernel_operator,
    label_projections,
    monte_carlo_kernel,
)
from lazynet.measures import Quantity, register_quantity
from lazynet.networks import (
    MLP,
    ConvNet,
    Parametrization,
    ThreeLayer,
    TwoLayer,
    from_flax,
    from_functions,
    from_nnx,
    from_stax,
    linearize,
    quadratic,
)
from lazynet.studies._dispatch import plot, verify
from lazynet.studies.infinite_width import predict
from lazynet.studies.laziness_map import laziness_map
from lazynet.studies.line_ensemble import line_ensemble
from lazynet.studies.mode_residuals import mode_residuals
from lazynet.studies.sweep import Verdict, merge, sweep
from lazynet.studies.train import Run, train
from lazynet.training import Stop

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "ConvNet",
    "Dataset",
    "Ensemble",
    "Parametrization",
    "Quantity",
    "Run",
    "Separation",
    "Stop",
    "ThreeLayer",
    "Trajectory",
    "TwoLayer",
    "Verdict",
    "analytic_kernel",
    "complexity",
    "empirical_ntk",
    "from_flax",
    "from_functions",
    "from_nnx",
    "from_stax",
    "gaussian_mixture",
    "kernel_descent",
    "kernel_ensemble",
    "kernel_flow",
    "kernel_operator",
    "label_noise",
    "label_projections",
    "laziness_map",
    "line_ensemble",
    "linearize",
    "load_dataset",
    "losses",
    "merge",
    "mixture",
    "mode_residuals",
    "monte_carlo_kernel",
    "plot",
    "predict",
    "quadratic",
    "register_quantity",
    "separation",
    "sphere",
    "sweep",
    "train",
    "verify",
    "xor",
]
