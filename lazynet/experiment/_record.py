"""What results and folders keep of how a sweep was made: all settings, as JSON, and what names do not tell apart."""

import hashlib
import json
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lazynet.data import Dataset
from lazynet.experiment._spec import Training, examples
from lazynet.kernels import analytic_kernel
from lazynet.networks import layer_names, traits
from lazynet.typing import Variables


def sweep_settings(network: Any, data: Dataset, training: Training, **more: Any) -> dict[str, Any]:
    """All settings of a sweep."""
    return {
        **limit_settings(network, data),
        "layers": layers(network, data),
        "steps": training.steps,
        "snapshots": training.snapshots,
        "loss": training.loss.name,
        "reduction": training.loss.reduction,
        "optimizer": training.optimizer,
        "batch_size": training.batch_size,
        "dtype": training.dtype,
        "stepper": training.stepper,
        "stop": None if training.stop is None else training.stop._asdict(),
        "measures": [name for name, _ in training.measures],
        "sharpness": training.sharpness,
        "compare": training.compare,
        "measured": training.measured,
        "quadratic": training.quadratic,
        "regression": training.regression,
        **more,
    }


def tried(training: Training, network: Any, data: Dataset) -> dict[str, list[float]]:
    """What an optimizer, a loss and measures that are functions do, to some digits: names do not tell them apart.

    Raises:
        ValueError: if the optimizer cannot be tried on two arrays.
    """
    found: dict[str, list[float]] = {}
    if traits(network).custom:
        rows = jnp.asarray(data.x_train[:4], "float32")
        outputs = np.ravel(network.apply(_moved(dict(network.init(jax.random.key(0), rows))), rows))
        found["network_tried"] = [float(f"{value:.5g}") for value in outputs.tolist()]
        kernel = analytic_kernel(network)
        if kernel is not None:
            entries = np.ravel(kernel(data.x_train[:4])).tolist()
            found["kernel_tried"] = [float(f"{value:.5g}") for value in entries]
    if callable(training.optimizer):
        optimizer = training.optimizer(0.1)
        params: Any = {"hidden": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "readout": jnp.ones((3, 1))}
        try:
            with jax.numpy_dtype_promotion("standard"):
                state = optimizer.init(params)
                for i in range(3):
                    gradient = jax.tree.map(lambda leaf, i=i: jnp.cos(leaf + i), params)
                    update, state = optimizer.update(gradient, state, params)
                    params = optax.apply_updates(params, update)
        except Exception as error:
            raise ValueError(f"optimizer cannot be tried on two arrays, which a stored sweep needs: {error}") from error
        found["optimizer_tried"] = [float(f"{value:.6g}") for leaf in jax.tree.leaves(params) for value in leaf.ravel()]
    y = jnp.cos(jnp.arange(8.0 * data.outputs)).reshape(8, *data.y_train.shape[1:])
    found["loss_tried"] = [float(f"{float(training.loss(0.3 * y + shift, y)):.6g}") for shift in (-0.5, 0.1, 2.0)]
    if training.measures:
        data = training.seen_by_measures(data)
        x, y, x_test, y_test = (
            jnp.asarray(array, "float32") for array in (data.x_train, data.y_train, data.x_test, data.y_test)
        )
        shared = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        start = dict(network.init(jax.random.key(0), x))
        for name, measure in training.measures:
            values = np.ravel(np.asarray(measure(_moved(start), start, examples(shared)), np.float64))
            # The first few, and two sums in which every one has its part.
            sums = (values @ np.cos(np.arange(len(values)) * turn) for turn in (0.5, 1.7))
            found[f"measure_{name}_tried"] = [float(f"{value:.5g}") for value in (*values[:4], *sums)]
    return found


def _moved(start: Variables) -> Variables:
    """Variables at some distance from their start."""
    return {**start, "params": jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(leaf), start["params"])}


def traits_record(network: Any) -> dict[str, Any]:
    """The facts about a network that a verdict or a figure of its result needs, as plain JSON."""
    known = traits(network)
    return {
        "title": known.title,
        "starts_at_zero": known.starts_at_zero,
        "near_limit": known.near_limit,
        "kernel_of_signs": known.kernel_of_signs,
        "scaling": None if known.scaling is None else known.scaling._asdict(),
    }


def limit_settings(network: Any, data: Dataset) -> dict[str, Any]:
    """What the network of infinite width and the data are."""
    return {
        "dataset": data.name,
        **({} if data.classes is None else {"classes": data.classes}),
        "n_train": data.n_train,
        "n_test": data.n_test,
        "dim": data.dim,
        "network": traits(network).name,
        **{name: getattr(network, name) for name in traits(network).fields},
        "traits": traits_record(network),
    }


def fingerprint(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays and their shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def layers(network: Any, data: Dataset) -> list[str]:
    """The names of its trained arrays."""
    made = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(data.x_train.shape, "float32"))
    return layer_names(made["params"])


def as_json(settings: dict[str, Any]) -> str:
    """Settings as one JSON string; a function of the width is recorded by its name."""
    return json.dumps(settings, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON can say of a NumPy number or a function."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, partial):
        return [_plain(value.func), *value.args, value.keywords]
    # The address of an object in memory says nothing.
    return getattr(value, "__name__", re.sub(r" at 0x[0-9a-f]+", "", repr(value)))
