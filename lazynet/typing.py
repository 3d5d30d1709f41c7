"""Shapes of arrays, written once: `n` examples, `d` features, `k` outputs, `m` width, `s` times or snapshots."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataArray
    from xarray import Dataset as Result
else:
    # xarray and matplotlib load on first use, so that `import lazynet` does not wait for them.
    Axes = DataArray = Figure = Result = Any

AnyArray = Array | np.ndarray
Targets = Float[AnyArray, " n"] | Float[AnyArray, "n k"]
SquareKernel = Float[AnyArray, "n n"]
Variables = dict[str, Any]

__all__ = [
    "AnyArray",
    "Axes",
    "DataArray",
    "Figure",
    "Result",
    "SquareKernel",
    "Targets",
    "Variables",
]
