"""Predictions at the times asked for, on the training and on the test set, from modes or from coefficients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.dynamics._coefficients import Whole
from lazynet.dynamics._laws import Law, may_diverge, over_eigenvalue
from lazynet.dynamics._modes import modes_of
from lazynet.kernels import CrossOperator, Error, KernelOperator, Spectrum
from lazynet.kernels._spectrum import check_targets
from lazynet.typing import AnyArray, SquareKernel, Targets


class Trajectory(NamedTuple):
    """Predictions at s times, NumPy float64.

    Attributes:
        time: (s,), learning rate times step for descent.
        train: (s, n) or (s, n, k).
        test: (s, n_test) or (s, n_test, k); None where no test kernel was given.
        step: (s,) integers for descent; None for flow.
        error: of `train`, the largest over time, relative to norm(y - f0); where steps are followed one by one, to the
            largest norm(u - f0).

    >>> import numpy as np, lazynet as lz
    >>> path = lz.kernel_descent(np.eye(3), np.ones(3), learning_rate=0.5, steps=[0, 10], k_test=np.ones((2, 3)))
    >>> path.train.shape, path.test.shape, path.time
    ((2, 3), (2, 2), array([0., 5.]))
    """

    time: Float[np.ndarray, " s"]
    train: np.ndarray
    test: np.ndarray | None
    step: np.ndarray | None
    error: Error


class Start(NamedTuple):
    """Targets, predictions at the start, and the test kernel, all of shapes that fit."""

    y: np.ndarray
    f0: np.ndarray
    k_test: np.ndarray | CrossOperator | None
    f0_test: np.ndarray


def start_of(
    k: SquareKernel | Spectrum | KernelOperator,
    y: Targets,
    f0: float | AnyArray,
    k_test: AnyArray | CrossOperator | None,
    f0_test: float | AnyArray,
) -> Start:
    """What a prediction starts from.

    Raises:
        ValueError: if a shape does not fit the kernel's, or an array is not finite.
    """
    n = len(k.values) if isinstance(k, Spectrum) else k.shape[0]
    y = check_targets(y, n)
    f0 = _broadcast("f0", f0, y.shape)
    if k_test is not None and not isinstance(k_test, CrossOperator):
        k_test = np.asarray(k_test, np.float64)
        if k_test.ndim != 2 or not np.isfinite(k_test).all():
            raise ValueError(f"k_test has shape {k_test.shape}, but must be a finite matrix (n_test, {n}).")
    if k_test is not None and k_test.shape[1] != n:
        raise ValueError(f"k_test has shape {k_test.shape}, but must be a finite matrix (n_test, {n}).")
    n_test = 0 if k_test is None else k_test.shape[0]
    return Start(y, f0, k_test, _broadcast("f0_test", f0_test, (n_test, *y.shape[1:])))


def _broadcast(name: str, f0: float | AnyArray, shape: tuple[int, ...]) -> np.ndarray:
    f0 = np.asarray(f0, np.float64)
    if f0.shape not in ((), shape) or not np.isfinite(f0).all():
        raise ValueError(f"{name} has shape {f0.shape}, but must be a number or a finite array of shape {shape}.")
    return np.broadcast_to(f0, shape)


@may_diverge
def by_modes(
    k: SquareKernel | Spectrum | KernelOperator,
    start: Start,
    law: Law,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> Trajectory:
    """Predictions of every mode that the residual excites, and the error of finding them."""
    residual = (start.y - start.f0).reshape(len(start.y), -1)
    modes, error = modes_of(k, residual, law, method, tolerance, progress)
    shape, grown = (len(law.time), -1, *start.y.shape[1:]), law.growth(modes.values)
    train = start.f0 + modes.combined(grown, modes.basis).reshape(shape)
    if start.k_test is None:
        return Trajectory(law.time, train, None, law.step, error)
    learned = over_eigenvalue(grown, modes.values, law.slope())
    test = start.f0_test + modes.combined(learned, _times(start.k_test, modes.basis)).reshape(shape)
    return Trajectory(law.time, train, test, law.step, error)


@may_diverge
def by_coefficients(k: Whole, start: Start, law: Law, found: np.ndarray, truncation: float) -> Trajectory:
    """Predictions of coefficients (s, n, ...), by one product with each kernel."""

    def image(kernel: np.ndarray | CrossOperator) -> np.ndarray:
        columns = np.moveaxis(found, 0, -1)
        product = _times(kernel, columns.reshape(len(columns), -1))
        return np.moveaxis(product.reshape(len(product), *columns.shape[1:]), -1, 0)

    moved = image(k.matrix)
    test = None if start.k_test is None else start.f0_test + image(start.k_test)
    return Trajectory(law.time, start.f0 + moved, test, law.step, k.error(found, moved, truncation))


def _times(kernel: np.ndarray | CrossOperator, v: np.ndarray) -> np.ndarray:
    return kernel.product(v) if isinstance(kernel, CrossOperator) else kernel @ v
