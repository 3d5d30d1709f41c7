"""Synthetic data: points on the sphere, and a mixture of Gaussians on it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazynet.data._checks import check_count, check_key
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._labels import class_targets


def normal(key: jax.Array, *shape: int) -> np.ndarray:
    """Draw standard normals in float32, so that the precision setting changes nothing, as float64."""
    return np.asarray(jax.random.normal(key, shape, dtype=jnp.float32)).astype(np.float64)


def sphere(
    n_train: Any, n_test: Any, dim: Any, key: Any, targets: str | Callable[[np.ndarray], Any] = "normal"
) -> Dataset:
    """Return points drawn uniformly on the unit sphere, with random targets or those of a function.

    Args:
        n_train: number of training points, at least 1.
        n_test: number of test points, at least 0.
        dim: number of features, at least 1.
        key: a key of jax.random.
        targets: "normal" for N(0, 1), "signs" for +1 or -1 with equal chance, or a function of the float64 points
            (n, dim) that returns their targets, (n,) or (n, k).

    Returns:
        A `Dataset` named "sphere"; the training points do not depend on n_test.

    Raises:
        ValueError: a count, the key or `targets` is not as above.

    Source: Du et al. 2018, "Gradient descent provably optimizes over-parameterized neural networks", section 5
    (targets "normal").

    >>> import jax
    >>> data = sphere(20, 5, 3, jax.random.key(0), targets=lambda x: x[:, 0])
    >>> data.x_train.shape, data.y_test.shape
    ((20, 3), (5,))
    """
    n_train, n_test = check_count("n_train", n_train, 1), check_count("n_test", n_test, 0)
    dim = check_count("dim", dim, 1)
    if not callable(targets) and targets not in ("normal", "signs"):
        raise ValueError(f"targets must be 'normal', 'signs' or a function of the points, got {targets!r}")

    def part(key: jax.Array, n: int) -> tuple[np.ndarray, Any]:
        key_points, key_targets = jax.random.split(key)
        x = unit_rows(normal(key_points, n, dim))
        if callable(targets):
            return x, targets(x)
        if targets == "signs":
            return x, np.where(np.asarray(jax.random.bernoulli(key_targets, shape=(n,))), 1.0, -1.0)
        return x, normal(key_targets, n)

    key_train, key_test = jax.random.split(check_key(key))
    x_train, y_train = part(key_train, n_train)
    x_test: Any = None
    y_test: Any = None
    if n_test:  # a function of the points need not take an empty array
        x_test, y_test = part(key_test, n_test)
    return Dataset(x_train, y_train, x_test, y_test, name="sphere")


def gaussian_mixture(n_train: Any, n_test: Any, dim: Any, key: Any, components: Any = 2, spread: Any = 0.5) -> Dataset:
    """Return points around random class centers on the unit sphere.

    A point of class j is `x = u / ||u||` with `u = c_j + spread * g / sqrt(dim)`, where the center `c_j` is uniform
    on the unit sphere and `g ~ N(0, I)`, so that the noise has root mean square norm `spread` in every dimension.
    The classes are balanced, equally frequent up to one example, and in random order.

    Args:
        n_train: number of training points, at least 1.
        n_test: number of test points, at least 0.
        dim: number of features, at least 1.
        key: a key of jax.random.
        components: number of classes, at least 2.
        spread: root mean square norm of the noise next to centers of norm 1, finite and at least 0.

    Returns:
        A `Dataset` named "gaussian-mixture" with unit rows; targets +1 and -1, (n,), for two classes, one-hot minus
        1/components, (n, components), for more. Training points do not depend on n_test.

    Raises:
        ValueError: an argument is not as above.

    >>> import jax
    >>> gaussian_mixture(30, 10, 5, jax.random.key(0), components=3).y_train.shape
    (30, 3)
    """
    n_train, n_test = check_count("n_train", n_train, 1), check_count("n_test", n_test, 0)
    dim, components = check_count("dim", dim, 1), check_count("components", components, 2)
    if not isinstance(spread, int | float | np.number) or not 0 <= spread < np.inf:
        raise ValueError(f"spread must be a finite number of at least 0, got {spread!r}")
    key_centers, key_train, key_test = jax.random.split(check_key(key), 3)
    centers = unit_rows(normal(key_centers, components, dim))

    def part(key: jax.Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        key_classes, key_noise = jax.random.split(key)
        balanced = jnp.arange(n, dtype=jnp.int32) % jnp.int32(components)
        classes = np.asarray(jax.random.permutation(key_classes, balanced))
        noise = spread / np.sqrt(dim) * normal(key_noise, n, dim)
        return unit_rows(centers[classes] + noise), class_targets(classes, components)

    x_train, y_train = part(key_train, n_train)
    x_test, y_test = part(key_test, n_test)
    return Dataset(x_train, y_train, x_test, y_test, name="gaussian-mixture")
