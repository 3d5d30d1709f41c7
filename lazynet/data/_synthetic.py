"""Synthetic data on the unit sphere: uniform points, and a mixture of Gaussians."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from lazynet.arguments import calls_of, check_choice, check_count, check_key, check_number
from lazynet.arrays import real_array
from lazynet.data._checks import check_points
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._labels import class_targets
from lazynet.programs import entry
from lazynet.typing import Real


def normal(key: Array, *shape: int) -> np.ndarray:
    """Draw standard normal samples in float32, regardless of JAX's x64 mode, and return them as float64."""
    return np.asarray(jax.random.normal(key, shape, dtype=jnp.float32)).astype(np.float64)


@entry
def sphere(
    n_train: int,
    n_test: int,
    dim: int,
    key: Array,
    targets: str | Callable[[np.ndarray], ArrayLike] = "normal",
) -> Dataset:
    """Sample points uniformly on the unit sphere, with random targets or targets computed from the points.

    Args:
        n_train: Number of training points, at least 1.
        n_test: Number of test points, at least 0.
        dim: Number of features, at least 1.
        key: JAX random key.
        targets: "normal" for N(0, 1), "signs" for +1 or -1 with equal probability, or a function that maps the points,
            a float64 array of shape (n, dim), to targets of shape (n,) or (n, k).

    Returns:
        A `Dataset` named "sphere". The training points do not depend on `n_test`.

    Raises:
        ValueError: If an argument is invalid.

    Source: Du et al. 2018, "Gradient descent provably optimizes over-parameterized neural networks", section 5 (for
    "normal" targets).

    >>> import jax
    >>> data = sphere(20, 5, 3, jax.random.key(0), targets=lambda x: x[:, 0])
    >>> data.x_train.shape, data.y_test.shape
    ((20, 3), (5,))
    """
    n_train, n_test = check_count("n_train", n_train, 1), check_count("n_test", n_test, 0)
    dim = check_count("dim", dim, 1)
    check_points(n_train + n_test, dim)
    if not callable(targets):
        check_choice("targets", targets, ("normal", "signs"), more=" or a function of the points")

    def points_and_targets(key: Array, n: int) -> tuple[np.ndarray, ArrayLike]:
        key_points, key_targets = jax.random.split(key)
        x = unit_rows(normal(key_points, n, dim))
        if callable(targets):
            with calls_of("targets"):
                return x, real_array("The result of targets", targets(x))
        if targets == "signs":
            return x, np.where(np.asarray(jax.random.bernoulli(key_targets, shape=(n,))), 1.0, -1.0)
        return x, normal(key_targets, n)

    key_train, key_test = jax.random.split(check_key(key))
    x_train, y_train = points_and_targets(key_train, n_train)
    if not n_test:  # a function given as `targets` is not called on an empty array
        return Dataset(x_train, y_train, name="sphere")
    x_test, y_test = points_and_targets(key_test, n_test)
    return Dataset(x_train, y_train, x_test, y_test, name="sphere")


@entry
def gaussian_mixture(
    n_train: int, n_test: int, dim: int, key: Array, components: int = 2, spread: Real = 0.5
) -> Dataset:
    """Sample points around random class centers on the unit sphere.

    A point in class j is `x = u / ||u||` with `u = c_j + spread * g / sqrt(dim)`, where the center `c_j` is uniform on
    the unit sphere and `g ~ N(0, I)`. The root-mean-square norm of the noise is `spread` for any `dim`. Points are in
    random order, and class sizes differ by at most one.

    Args:
        n_train: Number of training points, at least 1.
        n_test: Number of test points, at least 0.
        dim: Number of features, at least 1.
        key: JAX random key.
        components: Number of classes, at least 2.
        spread: Root-mean-square norm of the noise, at least 0. Centers have norm 1.

    Returns:
        A `Dataset` named "gaussian-mixture" with inputs of unit norm. Targets for two classes are +1 and -1, shape
        (n,); targets for more classes are one-hot rows minus 1/components, shape (n, components). Training points do
        not depend on `n_test`.

    Raises:
        ValueError: If an argument is invalid.

    >>> import jax
    >>> gaussian_mixture(30, 10, 5, jax.random.key(0), components=3).y_train.shape
    (30, 3)
    """
    n_train, n_test = check_count("n_train", n_train, 1), check_count("n_test", n_test, 0)
    dim, components = check_count("dim", dim, 1), check_count("components", components, 2)
    check_points(n_train + n_test + components, dim)
    noise_norm = check_number("spread", spread)
    key_centers, key_train, key_test = jax.random.split(check_key(key), 3)
    centers = unit_rows(normal(key_centers, components, dim))

    def points_and_targets(key: Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        key_classes, key_noise = jax.random.split(key)
        balanced = jnp.arange(n, dtype=jnp.int32) % jnp.int32(components)
        classes = np.asarray(jax.random.permutation(key_classes, balanced))
        noise = noise_norm / np.sqrt(dim) * normal(key_noise, n, dim)
        return unit_rows(centers[classes] + noise), class_targets(classes, components)

    train = points_and_targets(key_train, n_train)
    test = points_and_targets(key_test, n_test)
    return Dataset(*train, *test, name="gaussian-mixture")
