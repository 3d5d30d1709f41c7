"""What a paper says, checked: claims, each with the number that decides it, and what a reproduction hands back."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lazynet.theory import Fit, fit_exponent
from lazynet.typing import DataArray, Figure


@dataclass(frozen=True)
class Claim:
    """One statement, and what was measured of it.

    Attributes:
        name: where it stands in the paper, and on which data.
        statement: what is claimed.
        measured: the number that decides.
        relation: "<=" or ">=".
        limit: what the number is compared with.
        note: what has to be said with it.
    """

    name: str
    statement: str
    measured: float
    relation: Literal["<=", ">="]
    limit: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether what was measured agrees with the claim; what is no number does not."""
        return bool(self.measured <= self.limit if self.relation == "<=" else self.measured >= self.limit)

    def __str__(self) -> str:
        """The claim in one line."""
        said = f"{'holds' if self.holds else 'FAILS'}  {self.name}: {self.statement}"
        return f"{said}: {self.measured:.4g} {self.relation} {self.limit:.4g}{self.note and f' ({self.note})'}"


@dataclass
class Reproduction:
    """What a paper's module gives, added to part by part.

    Attributes:
        claims: everything that was checked.
        numbers: what was measured beside it, by name; JSON can say it.
        figures: matplotlib figures by name.
    """

    claims: list[Claim] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    def summary(self) -> dict[str, Any]:
        """Claims and numbers, for summary.json; what is not a number is null."""
        claims = [{**asdict(claim), "holds": claim.holds} for claim in self.claims]
        return plain({"passed": self.passed, "claims": claims, "numbers": self.numbers})


def fitted(values: DataArray) -> Fit:
    """The exponent in the width of the mean over seeds, with its interval."""
    return fit_exponent(values.width.values, values.transpose("width", "seed").values)


def exponent(values: DataArray) -> float:
    """The exponent alone."""
    return fitted(values).exponent


def plain(value: Any) -> Any:
    """Arrays and NumPy numbers as JSON has them."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
