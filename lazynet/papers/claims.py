"""The claims of a paper, each with the number that decides it, and the result of a reproduction."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lazynet.theory import Fit, fit_exponent
from lazynet.typing import DataArray, Figure


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, and its measurement.

    Attributes:
        name: the place in the paper, and the data.
        statement: the measured quantity.
        measured: the number that decides.
        relation: "<=" or ">=".
        limit: the number that `measured` is compared with.
        note: further numbers.
    """

    name: str
    statement: str
    measured: float
    relation: Literal["<=", ">="]
    limit: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """True if the measurement agrees with the claim; False for NaN."""
        return bool(self.measured <= self.limit if self.relation == "<=" else self.measured >= self.limit)

    def __str__(self) -> str:
        """Return the claim in one line."""
        start = f"{'holds' if self.holds else 'FAILS'}  {self.name}: {self.statement}"
        return f"{start}: {self.measured:.4g} {self.relation} {self.limit:.4g}{self.note and f' ({self.note})'}"


@dataclass
class Reproduction:
    """The result of a reproduction, to which a paper's module adds part by part.

    Attributes:
        claims: the checked claims.
        numbers: other measurements by name, of types that JSON or NumPy has.
        figures: matplotlib figures by name.
    """

    claims: list[Claim] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if every claim holds."""
        return all(claim.holds for claim in self.claims)

    def summary(self) -> dict[str, Any]:
        """Return claims and numbers for summary.json, with null for numbers that are not finite."""
        claims = [{**asdict(claim), "holds": claim.holds} for claim in self.claims]
        return as_plain({"passed": self.passed, "claims": claims, "numbers": self.numbers})


def fit_width(values: DataArray) -> Fit:
    """Fit the exponent in the width of the mean over seeds."""
    return fit_exponent(values.width.values, values.transpose("width", "seed").values)


def exponent(values: DataArray) -> float:
    """Return the fitted exponent in the width of the mean over seeds."""
    return fit_width(values).exponent


def as_plain(value: Any) -> Any:
    """Return arrays and NumPy numbers as types that JSON has."""
    if isinstance(value, dict):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
