"""The rows of a verdict: predicted and fitted exponents."""

from dataclasses import dataclass

from lazynet.theory._exponents import Relation
from lazynet.theory._fits import Status


@dataclass(frozen=True)
class StepFit:
    """The fitted exponent at one snapshot, with its 95% interval and its status."""

    step: int
    fitted: float
    low: float
    high: float
    status: Status


@dataclass(frozen=True)
class Row:
    """A predicted exponent and the corresponding fitted exponent.

    Attributes:
        quantity: Name of a variable in the result, followed by a layer in brackets if the row is for a single layer.
        relation: "equal" if the exponent should equal the prediction, or "at most" if it may also be smaller.
        predicted: Width exponent, as predicted by theory.
        fitted: Exponent fitted to all widths.
        low: Lower end of the 95% interval for the fitted exponent.
        high: Upper end of the 95% interval for the fitted exponent.
        local: Exponent fitted to the two largest widths.
        band: Maximum allowed difference between the fitted and predicted exponents.
        reduction: How values are reduced over snapshots: "maximum", "last" (the last step) or "start" (step 0).
        status: "holds", "fails" or "undecided".
        last_step_held: Last step up to which the prediction holds at every snapshot, or None if there is no such step.
        by_step: The fit at each snapshot.
        bends: Whether the slope falls significantly as the width grows, so that an "at most" prediction may
            hold at larger widths.
    """

    quantity: str
    relation: Relation
    predicted: float
    fitted: float
    low: float
    high: float
    local: float
    band: float
    reduction: str
    status: Status
    last_step_held: int | None
    by_step: tuple[StepFit, ...]
    bends: bool = False

    @property
    def note(self) -> str:
        """A note if an "at most" prediction fails but the slope is falling toward it, otherwise an empty string."""
        if self.relation == "equal" or self.status != "fails" or not self.bends:
            return ""
        return f"not asymptotic at these widths (local {self.local:+.2f})"
