"""Shapes of arrays, written once: `n` examples, `d` features, `k` outputs, `m` width, `s` times or snapshots."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float

AnyArray = Array | np.ndarray
Inputs = Float[AnyArray, "n d"]
TestInputs = Float[AnyArray, "n_test d"]
Targets = Float[AnyArray, " n"] | Float[AnyArray, "n k"]
Predictions = Targets
Kernel = Float[AnyArray, "n1 n2"]
SquareKernel = Float[AnyArray, "n n"]
Variables = dict[str, Any]
