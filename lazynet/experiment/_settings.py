"""The settings that describe a study, as stored in JSON form in its result and its run folder."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lazynet.arrays import input_dtype, network_rows
from lazynet.data import Dataset
from lazynet.experiment._grid import Point
from lazynet.experiment._measure import examples
from lazynet.experiment._training import Training
from lazynet.kernels import analytic_kernel
from lazynet.measures import registered
from lazynet.networks import Network, initial_shapes, layer_names, traits
from lazynet.training import Optimizer, UpdateRule
from lazynet.typing import Variables


def sweep_settings(network: Network, data: Dataset, training: Training) -> dict[str, Any]:
    """Return the settings for the network, data and training.

    Args:
        network: Network of any width.
        data: Training and test sets.
        training: Settings used to train and measure every member.

    Returns:
        The settings, keyed by name. The width is not included, and functions are not converted to names.
    """
    quantities = [quantity.name for quantity in registered()]
    return {
        **limit_settings(network, data),
        "layers": layer_names_of(network, data),
        "steps": training.steps,
        "snapshots": training.snapshots,
        "loss": training.loss.name,
        "reduction": training.loss.reduction,
        **_optimizer_settings(training.optimizer),
        "batch_size": training.batch_size,
        "dtype": training.dtype,
        "stop": None if training.stop is None else training.stop._asdict(),
        "measure": {
            field.name: list(training.measure.own) if field.name == "own" else getattr(training.measure, field.name)
            for field in dataclasses.fields(training.measure)
            # Run folders of earlier versions lack this setting.
            if field.name != "forecast" or training.measure.forecast
        },
        "plain": training.plain,
        **({"registered_quantities": quantities} if quantities else {}),
    }


def limit_settings(network: Network, data: Dataset) -> dict[str, Any]:
    """Return the settings for the network and the data.

    Args:
        network: Network of any width.
        data: Training and test sets.

    Returns:
        The settings, keyed by name. The width is not included, and functions are not converted to names.
    """
    return {
        "dataset": data.name,
        **({} if data.classes is None else {"classes": data.classes}),
        "n_train": data.n_train,
        "n_test": data.n_test,
        "dim": data.dim,
        **_row_norms(data),
        "network": traits(network).name,
        **{name: getattr(network, name) for name in traits(network).fields},
        "traits": traits_record(network),
    }


def _row_norms(data: Dataset) -> dict[str, Any]:
    """Return the setting `row_norms`, the smallest and largest norm of the training rows, unless all norms are 1."""
    rows = np.reshape(data.x_train, (data.n_train, -1))
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    ends = [float(norms.min()), float(norms.max())]
    return {} if max(abs(end - 1) for end in ends) <= 1e-5 else {"row_norms": [float(f"{end:.6g}") for end in ends]}


def traits_record(network: Network) -> dict[str, Any]:
    """Return the properties of a network that verdicts and figures need, as JSON-compatible values."""
    facts = traits(network)
    return {
        "title": facts.title,
        "starts_at_zero": facts.starts_at_zero,
        "near_limit": facts.near_limit,
        "kernel_of_signs": facts.kernel_of_signs,
        "scaling": None if facts.scaling is None else facts.scaling._asdict(),
    }


def _optimizer_settings(optimizer: UpdateRule) -> dict[str, Any]:
    if not isinstance(optimizer, Optimizer):
        return {"optimizer": optimizer, "proportional": False}
    settings = {field.name: getattr(optimizer, field.name) for field in dataclasses.fields(optimizer)}
    # Without weight decay, the steps of gradient flow and of SGD, even with momentum, scale with the gradients.
    proportional = optimizer.name in ("sgd", "flow") and not optimizer.weight_decay
    if not optimizer.ridge:
        # Run folders of earlier versions lack this setting.
        del settings["ridge"]
    return {"optimizer": settings.pop("name"), **settings, "proportional": proportional}


def function_values(points: Sequence[Point], width: int, data: Dataset) -> dict[str, list[float]]:
    """Return the values of user-supplied functions at fixed inputs, to distinguish functions with the same name.

    Args:
        points: The points in the grid.
        width: The width at which to evaluate networks and user-supplied quantities.
        data: The full data set, before axes such as `n_train` and `label_noise` change it.

    Raises:
        ValueError: If the optimizer fails to update two test arrays.
    """
    values: dict[str, list[float]] = {}
    for number, point in enumerate(points):
        network, training = point.network.clone(width=width), point.training
        # Names at the first point have no suffix, just as in a study without axes.
        suffix = f"_{number}" if number else ""
        of_point = {
            **_network_values(network, data, training),
            **_optimizer_values(training.optimizer),
            **_loss_values(training, data),
            **(_measure_values(training, network, data) if not number else {}),
        }
        values |= {f"{name}{suffix}": v for name, v in of_point.items() if values.get(name) != v}
    return values


def _network_values(network: Network, data: Dataset, training: Training) -> dict[str, list[float]]:
    facts = traits(network)
    if not facts.custom and not any(callable(getattr(network, name)) for name in facts.fields):
        return {}
    rows = network_rows(data.x_train[:4], "float32")
    values = {"network_values": _rounded(network.apply(_moved(dict(network.init(jax.random.key(0), rows))), rows))}
    # The infinite-width kernel is used only for predictions.
    kernel = analytic_kernel(network) if training.measure.predictions else None
    return values if kernel is None else values | {"kernel_values": _rounded(kernel(data.x_train[:4]))}


def _optimizer_values(optimizer: UpdateRule) -> dict[str, list[float]]:
    """Return the entries of two test arrays after three optimizer steps.

    If the optimizer contains no user-supplied function, the returned dictionary is empty.
    """
    if isinstance(optimizer, Optimizer) and optimizer.schedule is None:
        return {}
    transformation = optimizer(0.1)
    params: Any = {"hidden": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "readout": jnp.ones((3, 1))}
    try:
        with jax.numpy_dtype_promotion("standard"):
            state = transformation.init(params)
            for i in range(3):
                gradient = jax.tree.map(lambda leaf, i=i: jnp.cos(leaf + i), params)
                update, state = transformation.update(gradient, state, params)
                params = optax.apply_updates(params, update)
    except Exception as error:
        raise ValueError(
            f"optimizer failed to update the two test arrays that are used to identify it in a run folder: {error}"
        ) from error
    return {"optimizer_values": [value for leaf in jax.tree.leaves(params) for value in _rounded(leaf, digits=6)]}


def _loss_values(training: Training, data: Dataset) -> dict[str, list[float]]:
    y = jnp.cos(jnp.arange(8.0 * data.outputs)).reshape(8, *data.y_train.shape[1:])
    losses = [float(training.loss(0.3 * y + shift, y)) for shift in (-0.5, 0.1, 2.0)]
    return {"loss_values": _rounded(np.array(losses), digits=6)}


def _measure_values(training: Training, network: Network, data: Dataset) -> dict[str, list[float]]:
    if not training.own_measures:
        return {}
    data = training.measured_data(data)
    arrays = {"x": data.x_train, "y": data.y_train, "x_test": data.x_test, "y_test": data.y_test}
    shared = {name: network_rows(array, "float32") for name, array in arrays.items()}
    start = dict(network.init(jax.random.key(0), shared["x"]))
    result = {}
    for name, measure in training.own_measures:
        values = np.ravel(np.asarray(measure(network, _moved(start), start, examples(shared)), np.float64))
        # Record the first four entries and two weighted sums of all entries.
        sums = [values @ np.cos(np.arange(len(values)) * turn) for turn in (0.5, 1.7)]
        result[f"measure_{name}_values"] = _rounded(np.array([*values[:4], *sums]))
    return result


def _moved(start: Variables) -> Variables:
    """Perturb the initial variables so that units with the same initial weights differ."""

    def moved(leaf: Array) -> Array:
        return leaf + 0.1 * jnp.cos(leaf + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape))

    return {**start, "params": jax.tree.map(moved, start["params"])}


def _rounded(values: Any, digits: int = 5) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in np.ravel(np.asarray(values)).tolist()]


def fingerprint(*arrays: np.ndarray) -> str:
    """Compute the SHA-256 hash of arrays, including their shapes and dtypes.

    Args:
        *arrays: Arrays of any numeric dtype.

    Returns:
        The hash in hexadecimal.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def layer_names_of(network: Network, data: Dataset) -> list[str]:
    """Return the names of the network's trained arrays."""
    shapes = initial_shapes(network, data.x_train.shape[1:], input_dtype(data.x_train, "float32"))
    return layer_names(shapes["params"])


def as_json(settings: dict[str, Any], *, canonical: bool = False) -> str:
    """Convert settings to a JSON string in which functions are replaced by their names.

    Args:
        settings: Settings for a study.
        canonical: Whether to sort the keys.

    Returns:
        The JSON string.
    """
    return json.dumps(settings, default=_plain, sort_keys=canonical)


def _plain(value: Any) -> Any:
    """Convert a NumPy number or a function to a JSON-compatible value."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, partial):
        return [_plain(value.func), *value.args, value.keywords]
    # Memory addresses differ from process to process, so they are removed.
    return getattr(value, "__name__", re.sub(r" at 0x[0-9a-f]+", "", repr(value)))
