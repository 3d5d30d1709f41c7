"""Powers of the width in the forward pass, the initialization and the learning rate of a network."""

import math
from typing import NamedTuple

Exponents = tuple[float, float, float]


class Parametrization(NamedTuple):
    """Exponents of the width m in the layers of a network (Yang and Hu 2021, arXiv:2011.14522, section 3).

    Layer l multiplies its input by m^(-a_l) w_l, where w_l ~ N(0, m^(-2 b_l)) at initialization, and the learning rate
    scales as eta ~ m^(-c). The three entries of a and b apply to the first layer, the layers between hidden layers, and
    the readout.

    Attributes:
        forward: Exponents a_l.
        init: Exponents b_l.
        learning_rate: Exponent c for default learning rates. If output_scale is a function of the width, default
            learning rates are also divided by the square of output_scale.

    >>> import lazynet as lz
    >>> lz.Parametrization(forward=(0.0, 0.5, 0.5), init=(0.0, 0.0, 0.0), learning_rate=0.0).forward
    (0.0, 0.5, 0.5)
    """

    forward: Exponents
    init: Exponents
    learning_rate: float


# Parametrizations that can be specified by name.
# In the limit of large m, the initial outputs of mean-field networks with several hidden layers are zero, and training
# has no effect unless these layers have biases.
PARAMETRIZATIONS = {
    "ntk": Parametrization((0.0, 0.5, 0.5), (0.0, 0.0, 0.0), 0.0),
    "standard": Parametrization((0.0, 0.0, 0.0), (0.0, 0.5, 0.5), 1.0),
    "mean-field": Parametrization((0.0, 1.0, 1.0), (0.0, 0.0, 0.0), -1.0),
    "maximal-update": Parametrization((-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), 0.0),
    # Allen-Zhu, Li and Liang 2018, section 4: hidden weights from N(0, 1 / m) and readout from N(0, 1), with
    # no factors in the forward pass.
    "allen-zhu": Parametrization((0.0, 0.0, 0.0), (0.5, 0.5, 0.0), 1.0),
    # Chen, Cao, Zou and Gu 2019, section 2, with output_scale m^alpha, so that learning rates scale as m^(-2 alpha).
    "chen": Parametrization((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), 0.0),
}


def get_parametrization(parametrization: str | Parametrization) -> Parametrization:
    """Return the parametrization with the given name, or check and return a given parametrization.

    Args:
        parametrization: Name in `PARAMETRIZATIONS`, or a `Parametrization`.

    Returns:
        A `Parametrization` whose exponents are Python floats.

    Raises:
        ValueError: If the name is unknown, or if an exponent is missing or not finite.
    """
    if isinstance(parametrization, str):
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization must be one of {', '.join(PARAMETRIZATIONS)} or a lazynet.Parametrization, got "
                f"{parametrization!r}."
            )
        return PARAMETRIZATIONS[parametrization]
    try:
        forward, init, rate = parametrization
        exponents = Parametrization(tuple(map(float, forward)), tuple(map(float, init)), float(rate))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        exponents = None
    numbers = () if exponents is None else (*exponents.forward, *exponents.init, exponents.learning_rate)
    complete = exponents is not None and len(exponents.forward) == len(exponents.init) == 3
    if exponents is None or not complete or not all(map(math.isfinite, numbers)):
        raise ValueError(
            "parametrization must be a name or a lazynet.Parametrization with three finite numbers in forward, three "
            f"in init and one in learning_rate, got {parametrization!r}."
        )
    return exponents
