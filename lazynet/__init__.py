"""lazynet determines whether an over-parameterized neural network is in the kernel (lazy) regime."""

from lazynet import losses
from lazynet.data import (
    Dataset,
    Separation,
    gaussian_mixture,
    label_noise,
    load_dataset,
    mixture,
    read_dataset,
    separation,
    sphere,
    xor,
)
from lazynet.dynamics import (
    Ensemble,
    Origin,
    Posterior,
    Trajectory,
    kernel_descent,
    kernel_ensemble,
    kernel_flow,
    kernel_posterior,
)
from lazynet.execution import RunFolder
from lazynet.experiment import Measure
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
    with_start,
)
from lazynet.studies._dispatch import merge_shards, plot, verify
from lazynet.studies.forecast import forecast
from lazynet.studies.infinite_width import infinite_width
from lazynet.studies.laziness_map import laziness_map
from lazynet.studies.line_ensemble import line_ensemble
from lazynet.studies.mode_residuals import mode_residuals
from lazynet.studies.required_width import required_width
from lazynet.studies.sweep import Verdict, sweep
from lazynet.studies.train import Run, train
from lazynet.training import Optimizer, Stop, batch_order, member_key

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "ConvNet",
    "Dataset",
    "Ensemble",
    "Measure",
    "Optimizer",
    "Origin",
    "Parametrization",
    "Posterior",
    "Quantity",
    "Run",
    "RunFolder",
    "Separation",
    "Stop",
    "ThreeLayer",
    "Trajectory",
    "TwoLayer",
    "Verdict",
    "analytic_kernel",
    "batch_order",
    "complexity",
    "empirical_ntk",
    "forecast",
    "from_flax",
    "from_functions",
    "from_nnx",
    "from_stax",
    "gaussian_mixture",
    "infinite_width",
    "kernel_descent",
    "kernel_ensemble",
    "kernel_flow",
    "kernel_operator",
    "kernel_posterior",
    "label_noise",
    "label_projections",
    "laziness_map",
    "line_ensemble",
    "linearize",
    "load_dataset",
    "losses",
    "member_key",
    "merge_shards",
    "mixture",
    "mode_residuals",
    "monte_carlo_kernel",
    "plot",
    "quadratic",
    "read_dataset",
    "register_quantity",
    "required_width",
    "separation",
    "sphere",
    "sweep",
    "train",
    "verify",
    "with_start",
    "xor",
]
