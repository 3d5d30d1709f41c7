"""Cases of a parametrized test of which only some are in the fast set."""

import pytest


def slow_unless(is_fast, cases):
    """Return the cases, with those marked as slow for which `is_fast` does not hold."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if is_fast(case) else pytest.mark.slow))
    return marked
