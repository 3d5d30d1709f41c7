"""The one comparison of numbers in the tests: its tolerance is a function of dtype."""

import numpy as np


def assert_close(found, expected, *, dtype=None, ulps=64.0, scale=None):
    """Assert max |found - expected| <= ulps * eps(dtype) * scale.

    `dtype` is the one that `found` was computed in, its own when left out; `scale` is the largest |expected|, or 1
    where that is smaller. `ulps` counts how many rounding errors the computation may add up.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"shape {found.shape} is not {expected.shape}"
    unit = float(np.finfo(np.dtype(dtype or found.dtype)).eps)
    found, expected = found.astype(np.longdouble), expected.astype(np.longdouble)
    scale = max(1.0, float(np.max(np.abs(expected), initial=0))) if scale is None else scale
    worst = float(np.max(np.abs(found - expected), initial=0))
    assert worst <= ulps * unit * scale, f"largest difference {worst:.3e}, allowed {ulps * unit * scale:.3e}"
