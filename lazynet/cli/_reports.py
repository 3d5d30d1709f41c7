"""Terminal output for finished studies; the format depends on the kind of study."""

import json
import math
from pathlib import Path
from typing import Any

import lazynet as lz
from lazynet.cli._common import FAILED_CHECK, print_json
from lazynet.execution import write_figures, write_file
from lazynet.studies.required_width import width_record
from lazynet.studies.sweep import points, verdicts_json
from lazynet.typing import Result


def check_verdict(kind: str) -> None:
    """Check that --check applies to studies of the given kind.

    Raises:
        ValueError: If it does not.
    """
    if kind not in CHECKED:
        raise ValueError(
            f"check must be False for a study of kind {kind}, got True. This kind of study has nothing to check."
        )


def report(result: Result, out: Path | None, as_json: bool, check: bool = False, tolerance: float | None = None) -> int:
    """Print the result of a study, and write its figures to the study's folder.

    Args:
        result: The result.
        out: The study's folder, or None if the study has no folder.
        as_json: Whether to print one JSON object instead of tables.
        check: Whether to return exit code 1 if the verdict fails or no width was verified.
        tolerance: Largest gap at which networks count as lazy. If it is given, `check` also requires the largest width
            to be lazy.

    Returns:
        The exit code.
    """
    kind = result.attrs["kind"]
    if kind == "sweep":
        return _report_sweep(result, out, as_json, check, tolerance)
    if out is not None:
        write_plots(result, out)
    numbers, table = SUMMARIES.get(kind, (_sizes, _sizes_table))
    if as_json:
        settings = json.loads(result.attrs["settings"])
        print_json(settings=settings, **numbers(result), out=None if out is None else str(out))
    else:
        print(table(result))
        if out is not None:
            print(f"\nWritten to {out}: settings.json, result.nc, figures/{kind}.png")
    return FAILED_CHECK if check and math.isnan(float(result.required_width)) else 0


def _report_sweep(result: Result, out: Path | None, as_json: bool, check: bool, tolerance: float | None) -> int:
    """Print the verdict at each point in a sweep, store it if a tolerance is given, and return the exit code."""
    verdicts = [(labels, lz.verify(at, tolerance)) for labels, at in points(result)]
    if out is not None:
        if tolerance is not None:
            write_file(out / "verdict.json", (verdicts_json(result, tolerance) + "\n").encode())
        write_plots(result, out, tolerance)
    if as_json:
        settings, content = json.loads(result.attrs["settings"]), json.loads(verdicts_json(result, tolerance))
        print_json(settings=settings, verdict=content, out=None if out is None else str(out))
    else:
        for labels, verdict in verdicts:
            if labels:
                print(f"\n{', '.join(f'{name} = {value}' for name, value in labels.items())}")
            print(verdict)
        if out is not None:
            figures = "figures/sweep.png" if len(verdicts) == 1 else f"{len(verdicts)} figures"
            print(f"\nWritten to {out}: settings.json, result.nc, verdict.json, {figures}")
    passed = all(verdict.passed and (tolerance is None or verdict.lazy) for _, verdict in verdicts)
    return FAILED_CHECK if check and not passed else 0


def write_plots(result: Result, folder: Path, tolerance: float | None = None) -> list[Path]:
    """Draw the figures of a study and write them to its folder.

    Args:
        result: The result.
        folder: The folder.
        tolerance: Largest gap at which the networks of a sweep count as lazy.

    Returns:
        The paths of the figures.
    """
    if result.attrs["kind"] == "sweep":
        plots = {_figure_name(labels): lz.plot(at, lz.verify(at, tolerance)) for labels, at in points(result)}
    else:
        plots = {result.attrs["kind"]: lz.plot(result)}
    return write_figures(folder, plots)


def _figure_name(labels: dict[str, Any]) -> str:
    """Return the name of the figure for a point in a sweep."""
    return "_".join(["sweep", *(f"{name}={value}" for name, value in labels.items())])


def _limit_json(result: Result) -> dict[str, Any]:
    """Return the numbers that summarize an infinite-width prediction."""
    labels, last = result.labels.values.tolist(), result.isel(step=-1)
    return {
        "complexity": dict(zip(labels, result.complexity.values.tolist(), strict=True)),
        "train_loss": dict(zip(labels, last.train_loss.values.tolist(), strict=True)),
        "test_error": float(last.test_error) if "test_error" in last else None,
        "lambda_max": float(result.lambda_max),
        "prediction_error": sum(result.attrs["prediction_error"]),
        "complexity_error": sum(result.attrs["complexity_error"]),
    }


def _limit_table(result: Result) -> str:
    """Return a table of the infinite-width predictions at selected steps, followed by their error bounds."""
    n = json.loads(result.attrs["settings"])["n_train"]
    lines = [f"{'step':>8}  {'loss, true labels':>18}  {'loss, random labels':>20}  {'test error':>10}"]
    for i in sorted({round(share * (result.sizes["step"] - 1) / 10) for share in range(11)}):
        at = result.isel(step=i)
        true, random = (float(at.train_loss.sel(labels=labels)) / n for labels in ("true", "random"))
        error = f"{float(at.test_error):10.2%}" if "test_error" in at else f"{'-':>10}"
        lines.append(f"{int(at.step):>8}  {true:>18.3g}  {random:>20.3g}  {error}")
    true, random = result.complexity.values
    return "\n".join(
        [
            *lines,
            "",
            "Losses are per example. The error of the predictions is at most "
            f"{sum(result.attrs['prediction_error']):.1e} times the norm of the targets, so losses below "
            f"{result.attrs['resolved_loss'] / n:.1e} are not resolved.",
            f"complexity {true:.4f} on true labels, {random:.4f} on random labels (sqrt(2 y' K^-1 y / n), relative "
            f"error at most {sum(result.attrs['complexity_error']):.1e})",
        ]
    )


def _sizes(result: Result) -> dict[str, Any]:
    """Return the length of each dimension of a result."""
    return {"sizes": {str(name): size for name, size in result.sizes.items()}}


def _sizes_table(result: Result) -> str:
    return f"Result with dimensions {', '.join(f'{name} ({size})' for name, size in result.sizes.items())}"


def _width_table(result: Result) -> str:
    """Return the answer and the regimes of the trained widths."""
    return str(lz.verify(result))


# Functions that return a result's summary numbers and its table, keyed by the kind of study.
SUMMARIES = {"infinite_width": (_limit_json, _limit_table), "required_width": (width_record, _width_table)}
# Kinds of studies to which --check applies.
CHECKED = ("sweep", "required_width")
