"""Calls as a user makes them, for whom nothing checks types: what is wrong has to be refused by the library itself."""

from contextlib import contextmanager

import jaxtyping


@contextmanager
def unchecked():
    """Turn the checks of jaxtyping and beartype off, which `conftest.py` turns on."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
