"""Types are checked while tests run."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from lazynet.theory import fit_exponent


def test_arrays_of_other_shapes_are_refused():
    with pytest.raises(TypeCheckError):
        fit_exponent(np.array([16, 32]), np.ones((3, 1)))
