"""Objects that hold arrays show a few lines, and a table in a notebook."""

import html
import re

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet.kernels import label_projections, spectrum

DATA = lz.load_dataset("digits", n_train=32, n_test=8)
KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))(DATA.x_train)
OBJECTS = {
    "Dataset": lambda: DATA,
    "Run": lambda: lz.train(lz.TwoLayer(width=64), DATA, jax.random.key(0), steps=2),
    "Trajectory": lambda: lz.kernel_descent(KERNEL, DATA.y_train, learning_rate=1e-3, steps=range(50)),
    "Ensemble": lambda: lz.kernel_ensemble(KERNEL, DATA.y_train, times=[0.0, 1.0], start_covariance=KERNEL),
    "Posterior": lambda: lz.kernel_posterior(
        KERNEL, DATA.y_train, noise=0.1, k_test=KERNEL[:4], k_test_test=KERNEL[:4, :4]
    ),
    "Spectrum": lambda: spectrum(KERNEL),
    "LabelProjections": lambda: label_projections(KERNEL, DATA.y_train),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_shows_a_line_for_each_field(name):
    value = OBJECTS[name]()
    first, *lines = repr(value).splitlines()
    names = list(getattr(value, "_fields", None) or type(value).__annotations__)
    assert first == name
    assert [line.split()[0] for line in lines] == names
    assert len(lines) <= 9
    assert max(map(len, lines)) < 150
    table = value._repr_html_()
    assert re.findall(r"<th[^>]*>(\w+)</th>", table) == names
    texts = [html.unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</td>", table)]
    assert texts == [line.split(maxsplit=1)[1] for line in lines]


def test_arrays_are_shown_by_their_shapes_and_short_vectors_by_their_values():
    trajectory = lz.kernel_descent(np.eye(3), np.ones(3), learning_rate=0.5, steps=[0, 10])
    lines = dict(line.split(maxsplit=1) for line in repr(trajectory).splitlines()[1:])
    assert lines["train"] == "float64 array of shape (2, 3)"
    assert lines["step"] == "int64 array of shape (2,): 0, 10"
    assert lines["test"] == "None"


def test_trees_are_shown_by_their_first_arrays():
    lines = repr(OBJECTS["Run"]()).splitlines()
    assert lines[1].split(maxsplit=1)[1] == "4160 numbers in fixed/readout (64, 1), params/hidden (64, 64)"
    assert "xarray.Dataset with " in lines[3]


def test_markup_in_a_name_is_escaped():
    data = lz.Dataset(np.eye(2), [1, -1], name="<script>")
    assert "<script>" not in data._repr_html_()
    assert "&lt;script&gt;" in data._repr_html_()


def test_operators_show_their_shapes():
    operator = lz.kernel_operator(lz.analytic_kernel(lz.TwoLayer(width=2)), DATA.x_train)
    assert repr(operator) == "KernelOperator of shape (32, 32), float64, storage 'memory'"


def test_a_verdict_shows_its_answer():
    verdict = lz.Verdict(rows=(), inequalities=(), levels={}, band=0.1, widths=(64, 128), seeds=8)
    assert repr(verdict) == "Verdict: No answer: the result has no predictions."


def test_a_figure_is_shown_as_an_image_without_a_magic_command():
    result = lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], 2, 3, progress=False)
    figure = lz.plot(result)
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    assert repr(figure).startswith("<Figure size")
