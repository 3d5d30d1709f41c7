"""Losses and errors of predictions, and the distances between predictions."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.data import Dataset, is_labels
from lazynet.losses import Loss
from lazynet.measures import rms, zero_one_error
from lazynet.precision import host_float64
from lazynet.programs import compiled


def scores(
    predictions: dict[str, np.ndarray], data: Dataset, loss: Loss, starts_at_zero: bool
) -> dict[str, np.ndarray]:
    """Return train_loss, test_loss, train_error and test_error, each of shape (..., step).

    Predictions have shape (..., step, n) or (..., step, n, k).
    """
    table: dict[str, np.ndarray] = {}
    for part, y in (("train", data.y_train), ("test", data.y_test)):
        f = predictions[f"{part}_prediction"]
        lead = f.shape[: f.ndim - y.ndim]
        if not len(y):
            table |= {f"{part}_loss": np.full(lead, np.nan), f"{part}_error": np.full(lead, np.nan)}
            continue
        flat = f.reshape(-1, *y.shape)
        with host_float64():
            table[f"{part}_loss"] = np.asarray(_losses(loss, jnp.asarray(flat), jnp.asarray(y))).reshape(lead)
        errors = np.asarray(zero_one_error(f, y)) if is_labels(data.y_train) else np.full(lead, np.nan)
        if starts_at_zero and is_labels(data.y_train):
            # The initial outputs are zero up to rounding, so their error is set to that of random guessing.
            errors[..., 0] = 1 - 1 / max(2, data.outputs)
        table[f"{part}_error"] = errors
    return table


@compiled(static_argnames="loss")
def _losses(loss: Loss, f: Array, y: Array) -> Array:
    """Return the loss of each prediction as an array of shape (predictions,)."""
    return jax.vmap(lambda f: loss(f, y))(f)


def gaps_between(name: str, a: dict[str, np.ndarray], b: dict[str, np.ndarray], data: Dataset) -> dict[str, np.ndarray]:
    """Return the RMS differences between two sets of predictions, as arrays of shape (members, step).

    The mean is taken over examples and outputs.
    """
    parts = {"train": data.y_train, "test": data.y_test}
    return {
        f"{name}_{part}": np.asarray(rms(a[f"{part}_prediction"] - b[f"{part}_prediction"], y.ndim))
        for part, y in parts.items()
        if len(y)
    }
