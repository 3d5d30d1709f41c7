"""Mark some cases of a parametrized test as slow."""

import pytest


def slow_unless(is_fast, cases):
    """Return the cases, and mark those for which `is_fast` returns False as slow."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if is_fast(case) else pytest.mark.slow))
    return marked
