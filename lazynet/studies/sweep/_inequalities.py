"""Inequalities from theory: measured values, their bounds, and the ratios of bounds to values."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lazynet.studies.sweep._points import is_plain, settings_of, while_training
from lazynet.theory._fits import Status
from lazynet.typing import Result, Variable

# The linearized network's displacement bounds the network's displacement only up to terms that vanish as the width
# grows. The inequality therefore includes DISPLACEMENT_FACTOR and is checked only at widths of at least SMALLEST_WIDTH.
DISPLACEMENT_FACTOR = 1.05
SMALLEST_WIDTH = 256
# A bound that exceeds the measured value by more than this factor is vacuous.
VACUOUS = 100
# Relative tolerance for float32 rounding errors in the displacement. Without it, the path bound could fail for a single
# training example, for which the bound is an equality.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Inequality:
    """An inequality left <= right, evaluated at the point in the sweep where right / left is smallest.

    Attributes:
        name: The inequality as text.
        left: The measured value.
        right: The bound.
        ratio: The ratio right / left.
        status: "holds", "fails", or "undecided" if either side cannot be computed.
    """

    name: str
    left: float
    right: float
    ratio: float
    status: Status

    @property
    def note(self) -> str:
        """The word "vacuous" if the bound is more than 100 times the measured value, otherwise an empty string."""
        return "vacuous" if self.ratio > VACUOUS else ""


def inequalities(result: Result) -> Iterator[Inequality]:
    """Yield the inequalities that apply to a sweep.

    (i) At each snapshot, the displacement averaged over seeds is at most 1.05 times the exact displacement of the
        linearized network. This applies to plain full-batch gradient descent on the squared loss, at widths of at least
        256, for families whose kernels are close to their limits at these widths.
    (ii) max_r ||w_r - w_r(0)|| <= 4 sqrt(n) ||y - u(0)|| / (sqrt(m) lambda_min) (Arora et al. 2019, Lemma C.1).
    (iii) max_r ||w_r - w_r(0)|| <= (eta / sqrt(m)) ||X||_2 sum_{j<k} ||y - u(j)||, where y - u(j) is
        the network's own residual at step j.

    The bounds in (ii) and (iii) include additional factors for the activation, the output scale and the number of
    outputs.
    """
    moving = result.isel(step=result.step.values > 0)
    settings = settings_of(result)
    if "linearized_displacement" in result and settings["traits"]["near_limit"] and is_plain(settings):
        wide = moving.isel(width=result.width.values >= SMALLEST_WIDTH)
        expected = wide.linearized_displacement.variable
        expected = expected.mean("seed") if "seed" in expected.dims else expected
        yield _compare(
            f"displacement <= {DISPLACEMENT_FACTOR} linearized_displacement (widths >= {SMALLEST_WIDTH})",
            _trained(wide, "displacement").mean("seed", skipna=False),
            DISPLACEMENT_FACTOR * expected,
        )
    for bound, name in (
        ("lemma_bound", "max_neuron_displacement <= Lemma C.1 of Arora et al. 2019"),
        ("path_bound", "max_neuron_displacement <= path bound on its own residuals"),
    ):
        if bound in result:
            yield _compare(name, _trained(moving, "max_neuron_displacement"), moving[bound].variable)


def _trained(result: Result, name: str) -> Variable:
    """Return a variable without its coordinates, with NaN for members that have stopped."""
    return result[name].variable.where(while_training(result).variable)


def _compare(name: str, left: Variable, right: Variable) -> Inequality:
    """Evaluate the inequality where right / left is smallest, ignoring points at which the left side is not finite."""
    sizes = {**left.sizes, **right.sizes}
    measured, bound = (side.set_dims(sizes).values.ravel() for side in (left, right))
    finite = np.isfinite(measured)
    measured, bound = measured[finite], bound[finite]
    if not measured.size or not np.isfinite(bound).all():
        return Inequality(name, np.nan, np.nan, np.nan, "undecided")
    # If the weights do not move, every bound on their movement holds, and the ratio is infinite.
    ratio = np.divide(bound, measured, out=np.full_like(bound, np.inf), where=measured > 0)
    nearest = int(np.argmin(ratio))
    status: Status = "holds" if (measured <= (1 + ROUNDING) * bound).all() else "fails"
    return Inequality(name, float(measured[nearest]), float(bound[nearest]), float(ratio[nearest]), status)
