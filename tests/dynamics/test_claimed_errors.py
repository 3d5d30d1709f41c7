"""The errors that kernel dynamics claim, on a few of the many problems in scripts/claimed_errors.py."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest

import lazynet as lz
from lazynet.dynamics._modes import backward_error

SCRIPT = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "claimed_errors.py")))


@pytest.mark.filterwarnings("ignore:The predictions have an estimated error")
@pytest.mark.parametrize(
    ("problem", "kind"),
    [(2, "singular"), (32, "singular"), (17, "singular"), (10, "power law"), (12, "clustered"), (39, "clustered")],
)
def test_claims_are_above_the_errors_and_not_far_above(problem, kind):
    """In these problems, claims were too low or far too high before oscillating modes had a separate bound."""
    with mpmath.workdps(SCRIPT.DIGITS):
        found = SCRIPT.compare(np.random.default_rng([0, problem]), kind)
    assert set(found) == {f"{name}, {method}" for name in ("descent", "flow") for method in ("exact", "krylov")}
    for claimed, actual in found.values():
        assert actual <= claimed
        assert claimed <= max(1000 * actual, 1e-12)


@pytest.mark.parametrize("n", [6, 60])
def test_the_backward_error_bounds_that_of_lapack(n):
    random = np.random.default_rng(n)
    for _ in range(5):
        k = SCRIPT.power_law(random) if n < SCRIPT.N else np.cov(random.normal(size=(n, 2 * n)))
        values, vectors = np.linalg.eigh(k)
        wide = vectors.astype(np.longdouble)
        error = np.linalg.norm(((wide * values) @ wide.T - k).astype(float), 2) / values.max()
        assert 0 < error < backward_error(len(k))


def test_the_claim_of_many_steps_covers_each_of_them():
    k = np.cov(np.random.default_rng(0).normal(size=(30, 60)))
    y = np.ones(30)
    options = {"learning_rate": 1 / np.linalg.eigvalsh(k)[-1], "momentum": 0.9}
    few, many = (lz.kernel_descent(k, y, steps=steps, **options).error.total for steps in ([200], range(201)))
    assert few <= many * (1 + 1e-9)
    assert many < 100 * few + 1e-12
