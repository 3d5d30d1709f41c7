"""Convert results to named NumPy arrays that can be stored in an npz file without pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# Attributes that are not recorded: descriptions of variables, and values that differ between runs or releases.
SKIPPED_ATTRIBUTES = ("device", "devices", "environment", "git_revision", "long_name", "start_time")
SKIPPED_SUFFIX = "_version"


def of_dataset(dataset: Any) -> Arrays:
    """Return all variables and coordinates of an `xarray.Dataset`, the names of its dimensions, and its attributes."""
    arrays = {}
    for name, variable in dataset.variables.items():
        arrays[str(name)] = as_array(variable.values)
        arrays[f"dims/{name}"] = as_array(list(variable.dims))
        arrays |= prefixed(f"attrs/{name}", of_attributes(variable.attrs))
    return arrays | prefixed("attrs", of_attributes(dataset.attrs))


def of_attributes(attributes: Mapping[Any, Any]) -> Arrays:
    """Return attributes as arrays; the attribute `settings`, which is JSON, is flattened."""
    arrays: Arrays = {}
    for name, value in attributes.items():
        if name in SKIPPED_ATTRIBUTES or name.endswith(SKIPPED_SUFFIX):
            continue
        arrays |= prefixed(name, of_json(value)) if name == "settings" else {name: as_array(value)}
    return arrays


def of_tree(tree: Any) -> Arrays:
    """Return the leaves of nested dicts, lists and named tuples, keyed by their paths; None is left out."""
    if tree is None:
        return {}
    if isinstance(tree, Mapping):
        items = [(str(name), value) for name, value in tree.items()]
    elif hasattr(tree, "_asdict"):
        items = list(tree._asdict().items())
    elif isinstance(tree, list | tuple):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return {"": as_array(tree)}
    return {name: array for key, value in items for name, array in prefixed(key, of_tree(value)).items()}


def of_json(content: str | Path) -> Arrays:
    """Return the values in JSON, keyed by their paths; a list of objects with equal keys becomes one array per key."""
    return _of_json(json.loads(content.read_text() if isinstance(content, Path) else content))


def of_text(text: str) -> Arrays:
    """Return the lines of a text as an array."""
    return {"text": as_array(text.splitlines())}


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """Return the arrays with `prefix` added to their names."""
    return {f"{prefix}/{name}" if name else prefix: array for name, array in arrays.items()}


def as_array(value: Any) -> np.ndarray:
    """Return `value` as an array of numbers or of strings.

    Raises:
        TypeError: If `value` does not consist of numbers or strings.
    """
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "biufcU":
        raise TypeError(f"value must be numbers or strings, got dtype {array.dtype}.")
    return array


def _of_json(value: Any) -> Arrays:
    if isinstance(value, dict):
        return {name: array for key, item in value.items() for name, array in prefixed(key, _of_json(item)).items()}
    if not isinstance(value, list):
        return {"": as_array("null" if value is None else value)}
    if value and all(isinstance(item, dict) and item.keys() == value[0].keys() for item in value):
        return _of_json({key: [item[key] for item in value] for key in value[0]})
    if all(isinstance(item, str) for item in value):
        return {"": np.asarray(value, str)}
    if all(item is None or isinstance(item, int | float) for item in value):
        # JSON has no NaN, so null stands for NaN.
        return {"": as_array([np.nan if item is None else item for item in value])}
    return {name: array for i, item in enumerate(value) for name, array in prefixed(str(i), _of_json(item)).items()}
