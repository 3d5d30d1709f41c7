"""The result of a reproduction and the claims that it checks."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lazynet.theory import Fit, fit_exponent
from lazynet.typing import DataArray, Figure, Real


@dataclass(frozen=True)
class Claim:
    """A claim made in a paper, and the measurement that tests it.

    Attributes:
        name: Where the paper makes the claim, and for which data.
        statement: Description of the measured quantity.
        measured: Measured value.
        relation: Relation that the claim asserts between `measured` and `limit`, "<=" or ">=".
        limit: Value with which `measured` is compared.
        note: Additional numbers, as text.
    """

    name: str
    statement: str
    measured: Real
    relation: Literal["<=", ">="]
    limit: Real
    note: str = ""

    @property
    def holds(self) -> bool:
        """True if the measurement agrees with the claim, and False if it disagrees or is NaN."""
        return bool(self.measured <= self.limit if self.relation == "<=" else self.measured >= self.limit)

    def __str__(self) -> str:
        """Return the claim as one line of text."""
        start = f"{'holds' if self.holds else 'FAILS'}  {self.name}: {self.statement}"
        return f"{start}: {self.measured:.4g} {self.relation} {self.limit:.4g}{self.note and f' ({self.note})'}"


@dataclass
class Reproduction:
    """The result of a reproduction, which the paper's module builds up part by part.

    Attributes:
        claims: Claims that were checked.
        numbers: Other measurements, keyed by name, as NumPy arrays or types that JSON supports.
        figures: Matplotlib figures, keyed by name.
    """

    claims: list[Claim] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if all claims hold."""
        return all(claim.holds for claim in self.claims)

    def summary(self) -> dict[str, Any]:
        """Return the claims and numbers for summary.json, with non-finite numbers replaced by None."""
        claims = [{**asdict(claim), "holds": claim.holds} for claim in self.claims]
        return as_plain({"passed": self.passed, "claims": claims, "numbers": self.numbers})


def fit_width(values: DataArray) -> Fit:
    """Average the values over seeds, and fit a power law in the width."""
    return fit_exponent(values.width.values, values.transpose("width", "seed").values)


def exponent(values: DataArray) -> float:
    """Average the values over seeds, fit a power law in the width, and return its exponent."""
    return fit_width(values).exponent


def as_plain(value: Any) -> Any:
    """Convert arrays and NumPy scalars to JSON types, and replace non-finite numbers with None."""
    if isinstance(value, dict):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
