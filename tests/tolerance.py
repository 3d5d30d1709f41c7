"""Compare numbers with a tolerance that depends on their dtype."""

import numpy as np


def assert_close(found, expected, *, dtype=None, ulps=64.0, scale=None):
    """Assert max |found - expected| <= ulps * eps(dtype) * scale.

    `dtype` is the dtype in which `found` was computed, by default its own. `scale` is by default the largest
    |expected|, but at least 1. `ulps` is the number of rounding errors that the computation may accumulate.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"shape {found.shape} is not {expected.shape}"
    unit = float(np.finfo(np.dtype(dtype or found.dtype)).eps)
    found, expected = found.astype(np.longdouble), expected.astype(np.longdouble)
    scale = max(1.0, float(np.max(np.abs(expected), initial=0))) if scale is None else scale
    worst = float(np.max(np.abs(found - expected), initial=0))
    assert worst <= ulps * unit * scale, f"largest difference {worst:.3e}, allowed {ulps * unit * scale:.3e}"
