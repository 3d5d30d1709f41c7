"""Verdicts formatted as text, for files, READMEs and 120-column terminals."""

import math
from collections.abc import Mapping, Sequence

from lazynet.studies.sweep._forecasts import FACTOR, ForecastRow
from lazynet.studies.sweep._inequalities import Inequality
from lazynet.studies.sweep._regime import WidthRegime, interval_text, two_digits
from lazynet.studies.sweep._rows import Row
from lazynet.theory._corrections import Correction, seeds_needed

# Status labels for rows whose predicted limit is not lazy. For such rows, "holds" could be misread, because a network
# that scales as predicted still learns features.
NOT_LAZY = {"holds": "scales as predicted", "fails": "does not", "undecided": "undecided"}
# With at most this number of seeds or widths, intervals are so wide that few predictions can be confirmed.
WEAK = 2


def regimes_text(regimes: Sequence[WidthRegime], tolerance: float) -> list[str]:
    """Return the table of regimes, with one row for each width, as lines of text."""
    if not regimes:
        return []
    predictions = list(dict.fromkeys(row.prediction for row in regimes))
    columns = [(prediction.replace("_", " "), "worst", "to step", "status") for prediction in predictions]
    table = [("width", *(cell for column in columns for cell in column))]
    for width in dict.fromkeys(row.width for row in regimes):
        rows = [row for row in regimes if row.width == width]
        table.append((str(width), *(cell for row in rows for cell in _regime_cells(row))))
    return [
        "",
        "Largest gap in % of the RMS of the targets: mean over seeds with 95% interval, worst seed, and the last step",
        f"up to which the mean is within {100 * tolerance:g}%",
        *_columns(table),
    ]


def _regime_cells(row: WidthRegime) -> tuple[str, ...]:
    until = (
        [row.until] if row.until_low is None or row.until_high is None else [row.until, row.until_low, row.until_high]
    )
    steps = [f">= {step}" if step == row.last else str(step) for step in until]
    shown = steps[0] if len(set(steps)) == 1 else f"{steps[0]} [{', '.join(steps[1:])}]"
    gap = "diverged" if math.isinf(row.supremum) else f"{two_digits(100 * row.supremum)}{interval_text(row)}"
    worst = "-" if math.isinf(row.worst) else two_digits(100 * row.worst)
    return gap, worst, shown, row.status


def exponents_text(
    rows: Sequence[Row],
    widths: Sequence[int],
    seeds: int,
    band: float,
    diverged: Sequence[tuple[int, int]],
    lazy_limit: bool,
) -> list[str]:
    """Return the table of exponents as lines of text."""
    if len(widths) < 2:
        return [
            f"Width {widths[0]}, {seeds} seeds: exponents need at least two widths",
            *_diverged_text(diverged, seeds),
        ]
    header = ("quantity", "predicted", "fitted", "95% interval", "taken at", "status", "at last step", "holds to step")
    lines = [f"Width exponents, {len(widths)} widths from {widths[0]} to {widths[-1]}, {seeds} seeds, band {band:g}"]
    few = [f"{count} {name}" for name, count in (("widths", len(widths)), ("seeds", seeds)) if count <= WEAK]
    if few:
        lines.append(f"weak evidence: only {' and '.join(few)}")
    lines += _diverged_text(diverged, len(widths) * seeds)
    if rows and not lazy_limit:
        lines.append(
            "theory predicts that these networks move at all widths: they are not lazy, even if they scale as predicted"
        )
    if rows:
        heading, *table = _columns([header, *(_row(row, lazy_limit) for row in rows)])
        lines.append(heading)
        for row, line in zip(rows, table, strict=True):
            lines += [line, f"  {row.note}"] if row.note else [line]
    else:
        lines.append(
            "no exponent is predicted: the parametrization is unknown, or theory does not cover the parametrization, "
            "the learning rate or the optimizer"
        )
    if len(rows) == 1:
        lines.append("no other exponent is predicted for this parametrization or optimizer")
    return lines


def _diverged_text(diverged: Sequence[tuple[int, int]], members: int) -> list[str]:
    if not diverged:
        return []
    named = ", ".join(f"width {width} seed {seed}" for width, seed in diverged[:6])
    more = f" and {len(diverged) - 6} more" if len(diverged) > 6 else ""
    return [
        f"{len(diverged)} of {members} members diverged: {named}{more}",
        "predictions that involve a diverged member cannot be confirmed",
    ]


def corrections_text(corrections: Mapping[str, Correction], seeds: int, band: float) -> list[str]:
    """Return the table of exponents at infinite width as lines of text, or an empty list if there are no exponents."""
    if not corrections:
        return []
    table = [_correction(name, correction, seeds, band) for name, correction in corrections.items()]
    return [
        "",
        f"Exponents at infinite width, from fits of a m^p (1 + b m^-1/2), and seeds needed for +-{band:g}",
        *_columns([("quantity", "p", "95% interval", "b", "seeds"), *table]),
    ]


def forecasts_text(forecasts: Sequence[ForecastRow], width: int) -> list[str]:
    """Return the table of forecasts as lines of text, or an empty list if there are no forecasts."""
    if not forecasts:
        return []
    table = [(row.quantity, *map(_number, (row.forecast, row.measured, row.ratio)), row.status) for row in forecasts]
    return [
        "",
        f"Forecasts from initial weights alone at width {width}; they hold if right to within a factor of {FACTOR:g}",
        *_columns([("quantity", "forecast", "measured", "ratio", "status"), *table]),
    ]


def inequalities_text(inequalities: Sequence[Inequality]) -> list[str]:
    """Return the table of inequalities as lines of text, or an empty list if there are no inequalities."""
    if not inequalities:
        return []
    table = [(i.name, _number(i.left), _number(i.right), _number(i.ratio), i.status, i.note) for i in inequalities]
    return [
        "",
        "Inequalities, where they come nearest to failing",
        *_columns([("left <= right", "left", "right", "right / left", "status", ""), *table]),
    ]


def levels_text(levels: Mapping[str, float], width: int) -> list[str]:
    """Return the table of levels at the largest width as lines of text."""
    table = [(name, _number(value)) for name, value in levels.items()]
    return ["", f"Levels at width {width} (gaps over the RMS of the targets)", *_columns(table)]


def _row(row: Row, lazy_limit: bool) -> tuple[str, ...]:
    sign = "" if row.relation == "equal" else "<= "
    held = "-" if row.last_step_held is None else str(row.last_step_held)
    # Rounding can produce a negative zero. Adding zero removes its sign.
    predicted = f"{sign}{round(row.predicted, 2) + 0.0:+.2f}"
    interval = "none" if math.isnan(row.low) else f"[{row.low:+.2f}, {row.high:+.2f}]"
    last = f"{row.by_step[-1].fitted:+.3f}" if row.by_step else "-"
    status = row.status if lazy_limit else NOT_LAZY[row.status]
    return row.quantity, predicted, f"{row.fitted:+.3f}", interval, row.reduction, status, last, held


def _correction(name: str, fit: Correction, seeds: int, band: float) -> tuple[str, ...]:
    if math.isnan(fit.low):
        return name, f"{fit.exponent:+.3f}", "none", f"{fit.correction:+.3g}", "unknown"
    if math.isinf(fit.low):
        return name, f"{fit.exponent:+.3f}", "not determined", f"{fit.correction:+.3g}", "unknown"
    interval = f"[{fit.low:+.2f}, {fit.high:+.2f}]"
    needed = str(seeds_needed(fit, seeds, band))
    return name, f"{fit.exponent:+.3f}", interval, f"{fit.correction:+.3g}", needed


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    if not table:
        return []
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _number(value: float) -> str:
    return f"{value:.3g}"
