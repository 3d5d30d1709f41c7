"""Calls without type checks, as users make them, in which lazynet itself must refuse wrong arguments."""

from contextlib import contextmanager

import jaxtyping


@contextmanager
def unchecked():
    """Turn off the checks of jaxtyping and beartype that `conftest.py` turns on."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
