"""The verdict as text, for a terminal of 120 columns, a file or a README."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazynet.theory._corrections import Correction, seeds_needed

if TYPE_CHECKING:
    from lazynet.studies.sweep._verdict import Row, Verdict


def print_verdict(verdict: "Verdict") -> str:
    """The tables of exponents, inequalities and levels."""
    header = ("quantity", "predicted", "fitted", "95% interval", "taken at", "status", "at last step", "held to step")
    lines = [
        f"Exponents in the width, {len(verdict.widths)} widths from {verdict.widths[0]} to {verdict.widths[-1]}, "
        f"{verdict.seeds} seeds, band {verdict.band:g}"
    ]
    if verdict.diverged:
        members = len(verdict.widths) * verdict.seeds
        lines.append(f"{verdict.diverged} of {members} members diverged; rows that lost one are not said to hold")
    if verdict.rows:
        heading, *rows = _columns([header, *(_row(row) for row in verdict.rows)])
        lines.append(heading)
        for row, line in zip(verdict.rows, rows, strict=True):
            lines += [line, f"  {row.note}"] if row.note else [line]
    if not verdict.rows:
        lines.append(
            "nothing is predicted: the network does not say its parametrization, or theory knows too little of this "
            "one, its learning rate or the optimizer"
        )
    elif len(verdict.rows) == 1:
        lines.append("no other exponent is predicted for this parametrization or optimizer")
    if verdict.corrections:
        lines += ["", f"Exponents at infinite width, of a m^p (1 + b m^-1/2), and seeds for +-{verdict.band:g}"]
        table = [_correction(*each, verdict.seeds, verdict.band) for each in verdict.corrections.items()]
        lines += _columns([("quantity", "p", "95% interval", "b", "seeds"), *table])
    if verdict.inequalities:
        table = [
            (i.name, _number(i.left), _number(i.right), _number(i.ratio), i.status, i.note)
            for i in verdict.inequalities
        ]
        lines += ["", "Inequalities, where they come nearest to failing"]
        lines += _columns([("left <= right", "left", "right", "right / left", "status", ""), *table])
    levels = [(name, _number(value)) for name, value in verdict.levels.items()]
    lines += ["", f"Levels at width {verdict.widths[-1]} (gaps over the RMS of the targets)", *_columns(levels)]
    return "\n".join(lines)


def _row(row: "Row") -> tuple[str, ...]:
    sign = "" if row.relation == "equal" else "<= "
    held = "-" if row.last_step_held is None else str(row.last_step_held)
    # Adding zero takes away the sign that rounding may have left on a zero.
    predicted = f"{sign}{round(row.predicted, 2) + 0.0:+.2f}"
    interval = "none" if math.isnan(row.low) else f"[{row.low:+.2f}, {row.high:+.2f}]"
    last = f"{row.by_step[-1].fitted:+.3f}" if row.by_step else "-"
    return row.quantity, predicted, f"{row.fitted:+.3f}", interval, row.reduction, row.status, last, held


def _correction(name: str, found: Correction, seeds: int, band: float) -> tuple[str, ...]:
    if math.isnan(found.low):
        return name, f"{found.exponent:+.3f}", "none", f"{found.correction:+.3g}", "unknown"
    interval = f"[{found.low:+.2f}, {found.high:+.2f}]"
    needed = str(seeds_needed(found, seeds, band))
    return name, f"{found.exponent:+.3f}", interval, f"{found.correction:+.3g}", needed


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _number(value: float) -> str:
    return f"{value:.3g}"
