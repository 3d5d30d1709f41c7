"""Type aliases.

In array shapes, n is the number of examples, d the number of features, k the number of outputs, m the number of units,
and s the number of time points or snapshots.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataArray, Variable
    from xarray import Dataset as Result
else:
    # xarray and matplotlib are slow to import, so `import lazynet` does not load them.
    Axes = DataArray = Figure = Result = Variable = Any

# Replaces None in the return type `Result | None` of functions that return None only in a shard or on a host other than
# the first. Type checkers then accept code that uses the result without ruling out None.
MaybeNone = Any
AnyArray = Array | np.ndarray
Integer = int | np.integer
Real = float | int | np.floating | np.integer
Targets = Float[AnyArray, " n"] | Float[AnyArray, "n k"]
SquareKernel = Float[AnyArray, "n n"]
Variables = dict[str, Any]

__all__ = [
    "AnyArray",
    "Axes",
    "DataArray",
    "Figure",
    "Integer",
    "MaybeNone",
    "Real",
    "Result",
    "SquareKernel",
    "Targets",
    "Variable",
    "Variables",
]
