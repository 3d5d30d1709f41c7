"""Forecasts in a sweep, compared with its measurements."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lazynet.measures import FORECAST, catalog
from lazynet.theory._fits import Status
from lazynet.typing import DataArray, Result

# Largest factor between a forecast and a measurement for which the forecast counts as right.
FACTOR = 2.0


@dataclass(frozen=True)
class ForecastRow:
    """A forecast made from initial weights alone, and the measurement, both averaged over seeds at the largest width.

    Attributes:
        quantity: Name of the measured variable in the result.
        forecast: Forecast value, reduced over snapshots as the catalog specifies.
        measured: Measured value, reduced in the same way.
        ratio: forecast / measured, or NaN if the measured value is 0 or a network diverged.
        status: "holds" if the ratio is between 1/2 and 2, "fails" if it is not, and "undecided" if it is NaN.
    """

    quantity: str
    forecast: float
    measured: float
    ratio: float
    status: Status


def forecast_rows(result: Result) -> Iterator[ForecastRow]:
    """Yield a row for each forecast in a result.

    Args:
        result: Result of a sweep at a single point, with its coordinates in ascending order.
    """
    for name in FORECAST:
        if name in result and f"forecast_{name}" in result:
            forecast, measured = (
                _at_largest_width(result[each], catalog()[name].reduction) for each in (f"forecast_{name}", name)
            )
            ratio = forecast / measured if measured > 0 else np.nan
            status: Status = "undecided" if np.isnan(ratio) else "holds" if 1 / FACTOR <= ratio <= FACTOR else "fails"
            yield ForecastRow(name, forecast, measured, ratio, status)


def _at_largest_width(values: DataArray, reduction: str) -> float:
    """Return the mean over seeds, with NaN if a network diverged."""
    values = values.isel(width=-1)
    reduced = values.max("step", skipna=False) if reduction == "maximum" else values.isel(step=-1)
    return float(reduced.mean("seed", skipna=False))
