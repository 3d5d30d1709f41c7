"""Restore the original order of results that were subset, joined or reordered with xarray."""

import numpy as np

from lazynet.measures import catalog
from lazynet.typing import Result


def arranged(result: Result, kind: str, dims: tuple[str, ...]) -> Result:
    """Return a result whose dimensions, coordinates and variables are in the order in which the study produces them.

    Args:
        result: Result of a study, possibly after subsetting, joining or reordering with xarray.
        kind: Kind of the result.
        dims: Names of the coordinates that the result must have.

    Raises:
        ValueError: If a coordinate is missing or has duplicate values, or if a variable varies along a dimension
            that it does not have in the results of the study itself.
    """
    quantities = {name: quantity for name, quantity in catalog(kind).items() if name in result.variables}
    for name in dims:
        if name not in result.coords:
            raise ValueError(f"result must have the coordinates {', '.join(dims)}, but {name} is missing.")
        if name not in result.dims:
            lacking = [
                variable for variable, quantity in quantities.items() if name in quantity.dims and variable != name
            ]
            result = result.drop_vars([*lacking, name]).merge(result[lacking].expand_dims(name))
        values = result[name].values
        if len(np.unique(values)) < len(values):
            raise ValueError(f"result must contain each {name} only once, got {values.tolist()}.")
        if values.dtype.kind in "iuf" and (np.diff(values) < 0).any():
            result = result.sortby(name)
    for name, quantity in quantities.items():
        variable = result[name]
        # When results are joined along a dimension, xarray repeats even the variables that do not depend on it.
        for dim in set(variable.dims) - set(quantity.dims):
            first = variable.isel({dim: 0}, drop=True)
            if not variable.equals(first.broadcast_like(variable).transpose(*variable.dims)):
                raise ValueError(f"{name} must have the dimensions {quantity.dims}, got {variable.dims}.")
            variable = first
        order = tuple(dim for dim in quantity.dims if dim in variable.dims)
        result = result.drop_vars(name).assign({name: variable.transpose(*order)})
    return result
