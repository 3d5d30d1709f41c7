"""neural-tangents, with which tests compare, where it is installed."""

import importlib.util

import pytest

from lazynet import kernels

INSTALLED = importlib.util.find_spec("neural_tangents") is not None
ABSENT = "neural-tangents is not installed"


def neural_tangents():
    """Return the module, or skip the test if it is not installed."""
    if not INSTALLED:
        pytest.skip(ABSENT)
    return kernels.neural_tangents()
