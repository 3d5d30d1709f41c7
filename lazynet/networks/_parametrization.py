"""Powers of the width in front of weights, at their start and in the learning rate."""

import math
from typing import NamedTuple

Exponents = tuple[float, float, float]


class Parametrization(NamedTuple):
    """How a network of any depth scales with its width m (Yang and Hu 2021, arXiv:2011.14522, section 3).

    Layer l multiplies by m^(-a_l) w_l, with w_l ~ N(0, m^(-2 b_l)) at the start, and descends at eta ~ m^(-c). The
    three entries of a and of b are for the first layer, for those between hidden layers, and for the readout.

    Attributes:
        forward: a_l.
        init: b_l.
        learning_rate: c, where a sweep is left to choose the learning rate and output_scale is a number; where it is a
            function of the width, learning rates fall with its square besides.

    >>> import lazynet as lz
    >>> lz.Parametrization(forward=(0.0, 0.5, 0.5), init=(0.0, 0.0, 0.0), learning_rate=0.0).forward
    (0.0, 0.5, 0.5)
    """

    forward: Exponents
    init: Exponents
    learning_rate: float


# Mean field is that of one hidden layer; deeper networks with it start from zero and learn nothing as m grows.
PARAMETRIZATIONS = {
    "ntk": Parametrization((0.0, 0.5, 0.5), (0.0, 0.0, 0.0), 0.0),
    "standard": Parametrization((0.0, 0.0, 0.0), (0.0, 0.5, 0.5), 1.0),
    "mean-field": Parametrization((0.0, 1.0, 1.0), (0.0, 0.0, 0.0), -1.0),
    "maximal-update": Parametrization((-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), 0.0),
    # Allen-Zhu, Li and Liang 2018, section 4: hidden weights N(0, 1 / m), readout N(0, 1), no factors.
    "allen-zhu": Parametrization((0.0, 0.0, 0.0), (0.5, 0.5, 0.0), 1.0),
    # Chen, Cao, Zou and Gu 2019, section 2, with output_scale m^alpha, so that learning rates go as m^(-2 alpha).
    "chen": Parametrization((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), 0.0),
}


def get_parametrization(parametrization: str | Parametrization) -> Parametrization:
    """The exponents, from their name or as given.

    Raises:
        ValueError: if there are none of this name, or they are not numbers.
    """
    if isinstance(parametrization, str):
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization is {parametrization!r}, but must be one of {', '.join(PARAMETRIZATIONS)} or a "
                "lazynet.Parametrization."
            )
        return PARAMETRIZATIONS[parametrization]
    try:
        forward, init, rate = parametrization
        found = Parametrization(tuple(map(float, forward)), tuple(map(float, init)), float(rate))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = None
    numbers = () if found is None else (*found.forward, *found.init, found.learning_rate)
    if found is None or len(found.forward) != 3 or len(found.init) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"parametrization is {parametrization!r}, but must be a name or a lazynet.Parametrization with three "
            "finite numbers in forward, three in init and one learning_rate."
        )
    return found
