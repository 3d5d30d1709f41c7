"""Functions that sample mixtures of separated components and measure the separation of any data set."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from lazynet.arguments import check_count, check_flag, check_key, check_number
from lazynet.data._checks import check_points
from lazynet.data._dataset import Dataset, unit_rows
from lazynet.data._labels import is_labels
from lazynet.data._synthetic import normal
from lazynet.programs import entry
from lazynet.typing import Real

# Function that takes a key and the center of each point, and returns the points.
PointSampler = Callable[[Array, np.ndarray], np.ndarray]

PAIRS = 2**24  # number of pairs of examples that are compared at a time
CLUSTERED = 20_000  # size of the largest class that can be clustered; clustering stores all pairwise distances


@entry
def mixture(
    n_train: int,
    n_test: int,
    dim: int,
    key: Array,
    classes: int = 10,
    components: int = 2,
    *,
    sigma: Real | None = None,
    sigma_0: Real | None = None,
    unit: bool = True,
    delta: Real | None = None,
    lambda_: Real | None = None,
) -> Dataset:
    """Sample points from several classes, each a mixture of equally weighted components.

    Each of the k classes has l components. If `delta` is None, the center mu_i of component i has coordinates drawn
    from N(0, sigma_0^2 / dim), so the distances between components are random. The points of the component are drawn
    from N(mu_i, (sigma^2 / dim) I) and, if `unit` is true, scaled to unit norm (Li and Liang 2018, section 7 and
    assumption A2).

    If `delta` is given, each component is a cap on the unit sphere with diameter lambda_ * delta, and the distance
    between any two caps is delta (assumption A1). All pairs of centers have the same inner product, and the angle
    between a point and its center is uniformly distributed.

    Args:
        n_train: Number of training points, at least classes * components.
        n_test: Number of test points, at least 0.
        dim: Number of features, at least 1, or at least classes * components + 1 if `delta` is given.
        key: JAX random key.
        classes: Number of classes, k, at least 2.
        components: Number of components per class, l, at least 1.
        sigma: Root-mean-square norm of the noise, at least 0. Defaults to 1.
        sigma_0: Root-mean-square norm of the centers, positive. Defaults to 5.
        unit: Whether to scale points to unit norm. If `delta` is given, points always have unit norm.
        delta: Distance between components, positive. Replaces `sigma` and `sigma_0`.
        lambda_: Diameter of a component divided by `delta`, at least 0. Defaults to 0. Requires `delta`.

    Returns:
        A `Dataset` named "mixture" with points in random order. Targets are one-hot rows minus 1/k, shape (n, k), even
        for two classes. Centers and training points do not depend on `n_test`, and centers do not depend on `n_train`
        or `sigma`.

    Raises:
        ValueError: If an argument is invalid, or if the diameter of the components and the distance between them would
            require centers more than 90 degrees apart.

    >>> import jax
    >>> data = mixture(40, 20, 50, jax.random.key(0), classes=3, delta=1.0, lambda_=0.1)
    >>> separation(data, components=2).holds
    False
    """
    dim, classes, components = (
        check_count(name, value, minimum)
        for name, value, minimum in (("dim", dim, 1), ("classes", classes, 2), ("components", components, 1))
    )
    check_flag("unit", unit)
    check_points(classes * components, dim)
    key_centers, key_points = jax.random.split(check_key(key))
    if delta is None:
        if lambda_ is not None:
            raise ValueError(
                f"lambda_ must be None if delta is None, got {lambda_!r}. To use lambda_, pass delta as well."
            )
        noise_norm = check_number("sigma", 1.0 if sigma is None else sigma)
        center_norm = check_number("sigma_0", 5.0 if sigma_0 is None else sigma_0, positive=True)
        centers = center_norm / np.sqrt(dim) * normal(key_centers, classes * components, dim)

        def add_noise(key: Array, center: np.ndarray) -> np.ndarray:
            points = center + noise_norm / np.sqrt(dim) * normal(key, *center.shape)
            return unit_rows(points) if unit else points

        return _sample_mixture(n_train, n_test, key_points, centers, classes, add_noise, "mixture")
    if sigma is not None or sigma_0 is not None or not unit:
        raise ValueError(
            f"delta must be None if sigma or sigma_0 is given, or if unit is False, got {delta!r}. Omit either delta "
            "or the conflicting arguments."
        )
    distance = check_number("delta", delta, positive=True)
    ratio = check_number("lambda_", 0.0 if lambda_ is None else lambda_)
    centers, radius = _simplex_centers(key_centers, classes * components, dim, distance, ratio)
    return _sample_mixture(n_train, n_test, key_points, centers, classes, _cap_sampler(radius), "mixture")


@entry
def xor(n_train: int, n_test: int, key: Array, diameter: Real = 0.1) -> Dataset:
    """Sample two classes in the plane that are not linearly separable: points around +-e_1, and points around +-e_2.

    Each of the four components is an arc of the unit circle, centered at e_1, -e_1, e_2 or -e_2, whose ends are
    `diameter` apart (Li and Liang 2018, appendix C, Figure 3, where the components are balls).

    Args:
        n_train: Number of training points, at least 4.
        n_test: Number of test points, at least 0.
        key: JAX random key.
        diameter: Diameter of each component, at least 0 and below sqrt(2). At sqrt(2), the arcs would touch.

    Returns:
        A `Dataset` named "xor". Targets are one-hot rows minus 1/2, shape (n, 2).

    Raises:
        ValueError: If an argument is invalid.

    >>> import jax
    >>> xor(20, 10, jax.random.key(0)).x_train.shape
    (20, 2)
    """
    chord = check_number("diameter", diameter)
    if chord >= np.sqrt(2):
        raise ValueError(f"diameter must be below sqrt(2) to keep the components from touching, got {diameter!r}.")
    centers = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    return _sample_mixture(n_train, n_test, check_key(key), centers, 2, _cap_sampler(np.arcsin(chord / 2)), "xor")


def _simplex_centers(key: Array, count: int, dim: int, delta: float, ratio: float) -> tuple[np.ndarray, float]:
    """Return the centers, of shape (count, dim), and the common angular radius of caps that are delta apart.

    The angle between any two centers is the same, and the centers are randomly oriented.
    """
    if dim < count + 1:
        raise ValueError(f"dim must be at least {count + 1} for {count} components that are delta apart, got {dim}.")
    diameter = ratio * delta
    # A chord of length c in the unit sphere subtends the angle 2 arcsin(c / 2). The angle between two centers is the
    # sum of the angle between the two caps and the angular radii of both caps.
    angle = 2 * np.arcsin(delta / 2) + 2 * np.arcsin(diameter / 2) if max(delta, diameter) <= 2 else np.inf
    if angle > np.pi / 2 + 1e-12:
        raise ValueError(
            "delta and lambda_ must be small enough that the centers are at most 90 degrees apart, got "
            f"delta={delta:g} and lambda_={ratio:g}."
        )
    frame, _ = np.linalg.qr(normal(key, dim, count + 1))
    common, distinct = frame[:, :1], frame[:, 1:]
    # sqrt(2) sin(angle / 2) equals sqrt(1 - cos(angle)), but does not suffer from cancellation.
    centers = np.sqrt(max(np.cos(angle), 0.0)) * common + np.sqrt(2) * np.sin(angle / 2) * distinct
    return centers.T, float(np.arcsin(diameter / 2))


def _cap_sampler(radius: float) -> PointSampler:
    """Return a function that samples points on the unit sphere around given centers.

    The angle between a point and its center is uniformly distributed between 0 and `radius`.
    """

    def sample(key: Array, center: np.ndarray) -> np.ndarray:
        key_angle, key_direction = jax.random.split(key)
        angle = radius * np.asarray(jax.random.uniform(key_angle, (len(center), 1), jnp.float32)).astype(np.float64)
        direction = normal(key_direction, *center.shape)
        direction -= np.sum(direction * center, axis=1, keepdims=True) * center
        return np.cos(angle) * center + np.sin(angle) * unit_rows(direction)

    return sample


def _sample_mixture(
    n_train: int, n_test: int, key: Array, centers: np.ndarray, classes: int, sampler: PointSampler, name: str
) -> Dataset:
    """Sample points in random order, with component sizes that differ by at most one.

    The rows of `centers` are sorted by class, with the same number of components in each class.
    """

    def points_and_targets(key: Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        key_order, key_noise = jax.random.split(key)
        balanced = jnp.arange(n, dtype=jnp.int32) % jnp.int32(len(centers))
        component = np.asarray(jax.random.permutation(key_order, balanced))
        return sampler(key_noise, centers[component]), np.eye(classes)[
            component * classes // len(centers)
        ] - 1 / classes

    # Every component needs at least one training point.
    n_train, n_test = check_count("n_train", n_train, len(centers)), check_count("n_test", n_test, 0)
    check_points(n_train + n_test, centers.shape[1])
    key_train, key_test = jax.random.split(key)
    train, test = points_and_targets(key_train, n_train), points_and_targets(key_test, n_test)
    return Dataset(*train, *test, name=name)


@dataclass(frozen=True)
class Separation:
    """Separation of the components in a data set, as defined in assumption A1 of Li and Liang 2018, section 3.

    Attributes:
        delta: Smallest distance between examples from different classes.
        diameter: Largest distance between examples in the same component.
        components: Number of components per class, l.

    >>> Separation(delta=1.0, diameter=0.05, components=2).holds
    True
    """

    delta: float
    diameter: float
    components: int

    @property
    def lambda_(self) -> float:
        """Diameter divided by delta; infinite if delta is zero."""
        return self.diameter / self.delta if self.delta else np.inf

    @property
    def holds(self) -> bool:
        """True if lambda is at most 1 / (8 l), as Theorem 4.1 of Li and Liang 2018 requires."""
        return self.lambda_ <= 1 / (8 * self.components)


def separation(data: Dataset, components: int | None = None) -> Separation:
    """Measure the distance between classes, and the diameter of their components, in the training examples.

    The measured delta is an upper bound on the delta of the distribution from which the examples are drawn, and the
    measured diameter is a lower bound on the diameter of the distribution's components. In high dimensions, the lower
    bound is loose, because two examples are rarely at opposite ends of a component.

    Args:
        data: Data set with class labels as targets. Examples are not rescaled; in Li and Liang 2018, they have unit
            norm.
        components: Number of components per class, l. The components are found by complete-linkage clustering. If None,
            every example is treated as its own component: the diameter is 0, and l is the size of the largest class.

    Returns:
        A `Separation` with the fields delta, diameter and components.

    Raises:
        ValueError: If the targets are not labels of at least two classes, or if a class is too large to be clustered.

    >>> import numpy as np
    >>> measured = separation(Dataset([[1, 0], [1, 0.1], [-1, 0]], [1, 1, -1]), components=1)
    >>> round(measured.delta, 2), round(measured.diameter, 2), measured.holds
    (2.0, 0.1, True)
    """
    if not isinstance(data, Dataset):
        raise ValueError(f"data must be a lazynet.Dataset, got {type(data).__name__}.")
    if not is_labels(data.y_train):
        raise ValueError(
            "data must have class labels as targets (+1 and -1, or one-hot rows minus 1/k), but not all targets have "
            "these values."
        )
    x, y = data.x_train.astype(np.float64, copy=False), data.y_train
    class_of_row = np.argmax(y, axis=1) if y.ndim == 2 else (y < 0).astype(int)
    rows_by_class = [x[class_of_row == label] for label in np.unique(class_of_row)]
    if len(rows_by_class) < 2:
        raise ValueError("data must have examples from at least two classes, got one class.")
    largest_class = max(map(len, rows_by_class))
    if components is None:
        return Separation(_class_distance(x, class_of_row), 0.0, largest_class)
    components = check_count("components", components, 1)
    if largest_class > CLUSTERED:
        raise ValueError(
            f"data must have at most {CLUSTERED} examples per class if components is given, got {largest_class}. Use "
            "fewer examples, or omit components."
        )
    diameter = max(_component_diameter(rows, components) for rows in rows_by_class)
    return Separation(_class_distance(x, class_of_row), diameter, components)


def _class_distance(x: Float[np.ndarray, "n d"], class_of_row: Int[np.ndarray, " n"], pairs: int = PAIRS) -> float:
    """Return the smallest distance between rows from different classes, comparing about `pairs` pairs at a time."""
    squares = np.einsum("ij,ij->i", x, x)
    step = max(1, pairs // len(x))
    smallest, pair = np.inf, (0, 0)
    for first in range(0, len(x), step):
        block = slice(first, first + step)
        distances = squares[block, None] + squares[None, first:] - 2 * x[block] @ x[first:].T
        distances[class_of_row[block, None] == class_of_row[None, first:]] = np.inf
        i, j = np.unravel_index(np.argmin(distances), distances.shape)
        if distances[i, j] < smallest:
            smallest, pair = distances[i, j], (first + int(i), first + int(j))
    # The expanded square loses digits to cancellation, so the distance is recomputed from the difference.
    return float(np.linalg.norm(x[pair[0]] - x[pair[1]]))


def _component_diameter(x: Float[np.ndarray, "n d"], components: int) -> float:
    """Return the largest diameter of the complete-linkage clusters; the diameter of a cluster is its merge height."""
    if len(x) <= components:
        return 0.0
    import scipy.cluster.hierarchy

    return float(scipy.cluster.hierarchy.linkage(x, method="complete")[len(x) - components - 1, 2])
