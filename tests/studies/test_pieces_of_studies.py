"""Test that figures stay the same if results of studies are reordered, split and joined with xarray."""

from functools import cache

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import Collection
from matplotlib.lines import Line2D
from matplotlib.text import Text

import lazynet as lz

pytestmark = pytest.mark.slow

DATA = lz.load_dataset("digits", n_train=12, n_test=4)
ENDS = DATA.x_train[:2]


@cache
def line():
    network = lz.TwoLayer(8, symmetric=False)
    return lz.line_ensemble(network, DATA, ENDS, [8, 16], seeds=3, steps=20, snapshots=[1, 5], progress=False)


STUDIES = {
    "line_ensemble": line,
    "mode_residuals": lambda: lz.mode_residuals(lz.TwoLayer(2), DATA, [8, 16], 2, 20, progress=False),
    "infinite_width": lambda: lz.infinite_width(lz.TwoLayer(2), DATA, steps=50, snapshots=6, progress=False),
    "laziness_map": lambda: lz.laziness_map(
        lz.TwoLayer(2, train="both"), DATA, [8, 16], [1.0, 3.0], seeds=2, steps=300, fitted=0.3, progress=False
    ),
}


def content(artist):
    """Return the data, the position or the text of an artist; other artists have none of these."""
    if isinstance(artist, Line2D):
        return artist.get_color(), artist.get_linestyle(), artist.get_xydata().tolist()
    if isinstance(artist, Text):
        return artist.get_text(), artist.get_position()
    if isinstance(artist, Collection):
        values = artist.get_array()
        paths = [path.vertices.tolist() for path in artist.get_paths()]
        return paths, np.asarray(artist.get_offsets()).tolist(), None if values is None else np.asarray(values).tolist()
    return None


def drawn(result):
    """Return the type and content of each artist in the figure of a result; rendering would take longer."""
    # Two values that are NaN differ, but their texts are equal.
    return [repr((type(artist).__name__, content(artist))) for artist in lz.plot(result).findobj()]


def joined(result, name, variables):
    """Return a result that was split along a dimension and joined in another order."""
    parts = [result.isel({name: slice(1, None)}), result.isel({name: slice(0, 1)})]
    return xr.concat(parts, name, data_vars=variables, coords="minimal", compat="equals")


@pytest.mark.filterwarnings("ignore:There is no boundary")
@pytest.mark.parametrize("kind", STUDIES)
def test_the_order_of_a_result_does_not_matter(kind):
    whole = STUDIES[kind]()
    right, names = drawn(whole), [name for name in whole.dims if name in whole.coords]
    assert (
        drawn(whole.isel({name: slice(None, None, -1) for name in names}).transpose(*reversed(list(whole.dims))))
        == right
    )
    assert drawn(joined(whole, names[0], "all")) == right
    assert drawn(joined(joined(whole, names[-1], "minimal"), names[-1], "minimal")) == right
    for name in names:
        with pytest.raises(ValueError, match=rf"^result must contain each {name} only once, got "):
            lz.plot(whole.isel({name: [0, 0]}))
        with pytest.raises(ValueError, match=rf"^result must have the coordinates .*, but {name} is missing"):
            lz.plot(whole.isel({name: 0}, drop=True))


def test_one_width_and_one_seed_keep_their_figure():
    result = line()
    assert drawn(result.isel(width=1)) == drawn(result.isel(width=[1]))
    with pytest.raises(ValueError, match=r"^deviation must have the dimensions "):
        lz.plot(result.assign(deviation=result.prediction))
    assert np.isfinite(result.prediction).all()
