"""The rows of a verdict: predicted exponents next to fitted ones."""

from dataclasses import dataclass

from lazynet.theory._exponents import Relation
from lazynet.theory._fits import Status


@dataclass(frozen=True)
class StepFit:
    """The fitted exponent at one snapshot."""

    step: int
    fitted: float
    low: float
    high: float
    status: Status


@dataclass(frozen=True)
class Row:
    """A predicted exponent and the fitted one.

    Attributes:
        quantity: variable of the result; for a single layer, with the layer in brackets.
        relation: "equal", or "at most" for decay at least as fast.
        predicted: exponent of the width in theory.
        fitted: exponent over all widths, with its 95% interval low to high.
        local: exponent between the two largest widths.
        band: largest allowed distance between the fitted and the predicted exponent.
        reduction: "maximum" over snapshots, "last" step, or "start".
        status: "holds", "fails" or "undecided".
        last_step_held: last snapshot up to which the row holds at every snapshot, or None.
        by_step: the same fit at every snapshot.
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

    @property
    def note(self) -> str:
        """The local exponent, for an "at most" row that fails."""
        if self.relation == "equal" or self.status != "fails":
            return ""
        return f"not asymptotic at these widths (local {self.local:+.2f})"
