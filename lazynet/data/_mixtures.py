"""Data of separated components, and how well the components of any data are separated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.cluster.hierarchy
from jaxtyping import Float, Int

from lazynet.data._checks import check_count, check_key
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._labels import is_labels
from lazynet.data._synthetic import normal

Noise = Callable[[jax.Array, np.ndarray], np.ndarray]

# Pairs of examples that are compared at a time, and of a class that are clustered.
PAIRS, CLUSTERED = 2**24, 20_000


def mixture(
    n_train: Any,
    n_test: Any,
    dim: Any,
    key: Any,
    classes: Any = 10,
    components: Any = 2,
    *,
    sigma: Any = None,
    sigma_0: Any = None,
    unit: bool = True,
    delta: Any = None,
    lambda_: Any = None,
) -> Dataset:
    """Return points of several classes, each of which has several components, all of them equally frequent.

    Component i of kl has the center mu_i with coordinates N(0, sigma_0^2 / dim), and its points are
    N(mu_i, (sigma^2 / dim) I), scaled to unit norm if `unit` (Li and Liang 2018, section 7 and assumption A2). Their
    components of classes are as far apart as chance has it. With `delta` they are exactly separated instead (assumption
    A1): each component is a cap of the unit sphere of diameter lambda_ * delta, and any two caps are delta apart;
    the centers have equal inner products, and points a uniform angle to theirs.

    Args:
        n_train: number of training points, at least classes * components.
        n_test: number of test points, at least 0.
        dim: number of features, at least 1; with `delta` at least classes * components + 1.
        key: a key of jax.random.
        classes: number of classes k, at least 2.
        components: number of components l of a class, at least 1.
        sigma: root mean square norm of the noise, at least 0; 1 when left out.
        sigma_0: root mean square norm of the centers, positive; 5 when left out.
        unit: whether points are scaled to unit norm; with `delta` they always have it.
        delta: distance of two components, positive; instead of sigma and sigma_0.
        lambda_: diameter of a component over delta, at least 0; 0 when left out. Only with delta.

    Returns:
        A `Dataset` named "mixture", in random order; targets (n, k) of one-hot minus 1/k, for two classes as well.
        Centers and training points do not depend on n_test, nor centers on n_train or sigma.

    Raises:
        ValueError: an argument is not as above, or so many components that far apart do not fit on the sphere at
            angles of at most 90 degrees.

    >>> import jax
    >>> data = mixture(40, 20, 50, jax.random.key(0), classes=3, delta=1.0, lambda_=0.1)
    >>> separation(data, components=2).holds
    False
    """
    dim, classes, components = (
        check_count(name, value, least)
        for name, value, least in (("dim", dim, 1), ("classes", classes, 2), ("components", components, 1))
    )
    key_centers, key_points = jax.random.split(check_key(key))
    if delta is None:
        if lambda_ is not None:
            raise ValueError(f"lambda_ is {lambda_!r}, but is a multiple of delta, which is left out: give delta too")
        spread = _number("sigma", 1.0 if sigma is None else sigma)
        size = _number("sigma_0", 5.0 if sigma_0 is None else sigma_0, positive=True)
        centers = size / np.sqrt(dim) * normal(key_centers, classes * components, dim)

        def noisy(key: jax.Array, center: np.ndarray) -> np.ndarray:
            points = center + spread / np.sqrt(dim) * normal(key, *center.shape)
            return unit_rows(points) if unit else points

        return _drawn(n_train, n_test, key_points, centers, classes, noisy, "mixture")
    if sigma is not None or sigma_0 is not None or not unit:
        raise ValueError("delta is given, and then sigma, sigma_0 and unit have no meaning: leave them out")
    apart, ratio = _number("delta", delta, positive=True), _number("lambda_", 0.0 if lambda_ is None else lambda_)
    centers, radius = _simplex(key_centers, classes * components, dim, apart, ratio)
    return _drawn(n_train, n_test, key_points, centers, classes, _in_caps(radius), "mixture")


def xor(n_train: Any, n_test: Any, key: Any, diameter: Any = 0.1) -> Dataset:
    """Return points of two classes in the plane that no line separates: those about +-e_1, and those about +-e_2.

    Each of the four components is an arc of the unit circle, with the center in its middle and so long that its ends
    are `diameter` apart (Li and Liang 2018, appendix C, Figure 3, where they are balls).

    Args:
        n_train: number of training points, at least 4.
        n_test: number of test points, at least 0.
        key: a key of jax.random.
        diameter: of a component, at least 0 and below sqrt(2), where the arcs meet.

    Returns:
        A `Dataset` named "xor"; targets (n, 2) of one-hot minus 1/2.

    Raises:
        ValueError: an argument is not as above.

    >>> import jax
    >>> xor(20, 10, jax.random.key(0)).x_train.shape
    (20, 2)
    """
    size = _number("diameter", diameter)
    if size >= np.sqrt(2):
        raise ValueError(f"diameter must be below sqrt(2), where the components meet, got {diameter!r}")
    centers = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    return _drawn(n_train, n_test, check_key(key), centers, 2, _in_caps(np.arcsin(size / 2)), "xor")


def _number(name: str, value: Any, positive: bool = False) -> float:
    allowed = isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= value < np.inf
    if not allowed or (positive and value == 0):
        raise ValueError(
            f"{name} must be a finite {'positive number' if positive else 'number from 0 on'}, got {value!r}"
        )
    return float(value)


def _simplex(key: jax.Array, count: int, dim: int, delta: float, ratio: float) -> tuple[np.ndarray, float]:
    """Centers (count, dim) of caps that are delta apart, at equal angles in a random frame, and the caps' radius."""
    if dim < count + 1:
        raise ValueError(f"dim must be at least {count + 1} for {count} components delta apart, got {dim}")
    diameter = ratio * delta
    # Chords of the unit sphere: that between the caps, and twice the radius of one.
    angle = 2 * np.arcsin(delta / 2) + 2 * np.arcsin(diameter / 2) if max(delta, diameter) <= 2 else np.inf
    if angle > np.pi / 2 + 1e-12:
        raise ValueError(
            f"delta = {delta:g} and lambda_ = {ratio:g} need an angle above 90 degrees between components: take less"
        )
    frame, _ = np.linalg.qr(normal(key, dim, count + 1))
    common, own = frame[:, :1], frame[:, 1:]
    # sin(angle / 2) keeps the digits that 1 - cos(angle) loses.
    centers = np.sqrt(max(np.cos(angle), 0.0)) * common + np.sqrt(2) * np.sin(angle / 2) * own
    return centers.T, float(np.arcsin(diameter / 2))


def _in_caps(radius: float) -> Noise:
    """Points of the unit sphere at a uniform angle of at most `radius` to their centers."""

    def drawn(key: jax.Array, center: np.ndarray) -> np.ndarray:
        key_angle, key_direction = jax.random.split(key)
        angle = radius * np.asarray(jax.random.uniform(key_angle, (len(center), 1), jnp.float32)).astype(np.float64)
        toward = normal(key_direction, *center.shape)
        toward -= np.sum(toward * center, axis=1, keepdims=True) * center
        return np.cos(angle) * center + np.sin(angle) * unit_rows(toward)

    return drawn


def _drawn(
    n_train: Any, n_test: Any, key: jax.Array, centers: np.ndarray, classes: int, noise: Noise, name: str
) -> Dataset:
    """As many points of each component, but for one, in random order; components of a class stand side by side."""

    def part(key: jax.Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        key_order, key_noise = jax.random.split(key)
        balanced = jnp.arange(n, dtype=jnp.int32) % jnp.int32(len(centers))
        component = np.asarray(jax.random.permutation(key_order, balanced))
        return noise(key_noise, centers[component]), np.eye(classes)[component * classes // len(centers)] - 1 / classes

    key_train, key_test = jax.random.split(key)
    # Each component has a point at least.
    train = part(key_train, check_count("n_train", n_train, len(centers)))
    test = part(key_test, check_count("n_test", n_test, 0))
    return Dataset(*train, *test, name=name)


@dataclass(frozen=True)
class Separation:
    """How far the components of a data set are apart: assumption A1 of Li and Liang 2018, section 3.

    >>> Separation(delta=1.0, diameter=0.05, components=2).holds
    True

    Attributes:
        delta: least distance of two examples of different classes.
        diameter: largest distance of two examples of one component.
        components: components l of a class.
    """

    delta: float
    diameter: float
    components: int

    @property
    def lambda_(self) -> float:
        """The diameter over delta."""
        return self.diameter / self.delta if self.delta else np.inf

    @property
    def holds(self) -> bool:
        """Whether lambda is at most 1 / (8 l), so that their Theorem 4.1 speaks of these data."""
        return self.lambda_ <= 1 / (8 * self.components)


def separation(data: Dataset, components: Any = None) -> Separation:
    """Measure how far the training examples of different classes are apart, and how large their components are.

    Of what examples are drawn from, this delta is an upper bound and this diameter a lower one: in many dimensions no
    two of them are at opposite ends of a component.

    Args:
        data: with labels as targets; examples are measured as they are, the paper's have unit norm.
        components: components l of a class, which are found by complete linkage; left out, every example is a
            component, so that the diameter is 0 and l is the size of the largest class.

    Returns:
        `Separation`: delta, diameter, components, lambda_ and whether it holds.

    Raises:
        ValueError: the targets are no labels of at least two classes, or a class has more examples than can be
            clustered.

    >>> import numpy as np
    >>> found = separation(Dataset([[1, 0], [1, 0.1], [-1, 0]], [1, 1, -1]), components=1)
    >>> round(found.delta, 2), round(found.diameter, 2), found.holds
    (2.0, 0.1, True)
    """
    if not isinstance(data, Dataset):
        raise ValueError(f"data must be a lazynet.Dataset, got {type(data).__name__}")
    if not is_labels(data.y_train):
        raise ValueError("data must have labels as targets, +1 and -1 or rows of one-hot minus 1/k, got other values")
    y = data.y_train
    of_class = np.argmax(y, axis=1) if y.ndim == 2 else (y < 0).astype(int)
    rows = [data.x_train[of_class == label] for label in np.unique(of_class)]
    if len(rows) < 2:
        raise ValueError("data must have examples of at least two classes, got one")
    if components is None:
        return Separation(_delta(data.x_train, of_class), 0.0, max(map(len, rows)))
    components = check_count("components", components, 1)
    if max(map(len, rows)) > CLUSTERED:
        raise ValueError(
            f"a class has {max(map(len, rows))} examples, and at most {CLUSTERED} can be clustered: take fewer"
        )
    diameter = max(_diameter(of_one, components) for of_one in rows)
    return Separation(_delta(data.x_train, of_class), diameter, components)


def _delta(x: Float[np.ndarray, "n d"], of_class: Int[np.ndarray, " n"]) -> float:
    """The least distance of two rows of different classes."""
    squares = np.einsum("ij,ij->i", x, x)
    step = max(1, PAIRS // len(x))
    least, pair = np.inf, (0, 0)
    for first in range(0, len(x), step):
        here = slice(first, first + step)
        between = squares[here, None] + squares[None, first:] - 2 * x[here] @ x[first:].T
        between[of_class[here, None] == of_class[None, first:]] = np.inf
        i, j = np.unravel_index(np.argmin(between), between.shape)
        if between[i, j] < least:
            least, pair = between[i, j], (first + int(i), first + int(j))
    # The difference itself keeps the digits that its square in parts has lost.
    return float(np.linalg.norm(x[pair[0]] - x[pair[1]]))


def _diameter(x: Float[np.ndarray, "n d"], components: int) -> float:
    """The largest diameter of so many clusters by complete linkage, whose merges are named by their diameters."""
    if len(x) <= components:
        return 0.0
    return float(scipy.cluster.hierarchy.linkage(x, method="complete")[len(x) - components - 1, 2])
