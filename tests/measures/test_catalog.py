"""Test that the catalog of quantities agrees with theory and accepts quantities from outside the package."""

import json
import re
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from unchecked import unchecked

import lazynet as lz
from lazynet.measures import catalog, reference, registered, unregister_quantity
from lazynet.networks import ACTIVATIONS, get_parametrization
from lazynet.theory import Scaling, predicted_exponents

# With at least as many rows as features, networks receive the same inputs with and without user-defined measures.
DATA = lz.load_dataset("digits", n_train=50, n_test=20)
ALONE = lz.Measure(predictions=False)
NETWORK = lz.TwoLayer(width=8, output_scale=2.0, init_scale=0.5)


def root_width_times_change(network, variables, variables_0, data):
    """Return the largest change of a weight times sqrt(m) / (alpha kappa), using the network's alpha and kappa."""
    change = jnp.max(jnp.abs(variables["params"]["hidden"] - variables_0["params"]["hidden"]))
    return change * network.width**0.5 / (network.output_scale * network.init_scale)


QUANTITY = lz.Quantity(
    "scaled_change",
    "largest change of a weight times sqrt(m) / (alpha kappa)",
    reduction="maximum",
    level=True,
    predicted=("at most", 0.0),
    panel="movement",
    label="scaled change",
    color="gray",
    measure=root_width_times_change,
)


@pytest.fixture
def outside():
    lz.register_quantity(QUANTITY)
    yield QUANTITY
    unregister_quantity(QUANTITY.name)


def sweep(widths, **options):
    return lz.sweep(NETWORK, DATA, widths, 3, 10, snapshots=20, progress=False, **options)


@pytest.mark.slow
def test_a_quantity_from_outside_is_measured_judged_drawn_and_described(outside):
    before = sweep([64]).drop_vars("scaled_change")
    result = sweep([64, 256], axes={"init_scale": [0.5, 1.0]})
    assert registered() == (QUANTITY,)
    assert result.scaled_change.dims == ("width", "seed", "step", "init_scale")
    assert (result.scaled_change.long_name, result.scaled_change.units) == (QUANTITY.meaning, "1")
    point = result.sel(init_scale=0.5)
    # The quantity uses the scales of its point in the sweep and is bounded by the largest displacement of a neuron.
    bound = point.max_neuron_displacement * np.sqrt(point.width) / (2.0 * 0.5)
    assert (point.scaled_change <= bound.transpose(*point.scaled_change.dims) * 1.001).all()
    assert (point.scaled_change >= bound.transpose(*point.scaled_change.dims) / 8).all()
    verdict = lz.verify(point)
    row = verdict.row("scaled_change")
    assert (row.relation, row.predicted, row.reduction) == ("at most", 0.0, "maximum")
    worst = point.scaled_change.max("step")
    assert verdict.levels["scaled_change"] == pytest.approx(float(worst.isel(width=-1).mean("seed")))
    movement, exponents = lz.plot(point, verdict).axes[-2:]
    line = next(line for line in movement.lines if line.get_label().startswith("scaled change: "))
    np.testing.assert_allclose(line.get_ydata(), worst.mean("seed"))
    assert "scaled change" in [line.get_label() for line in exponents.lines]
    assert f"| `scaled_change` | width, seed, step | 1 | {QUANTITY.meaning} | maximum | <= 0.0 |  |" in reference()
    # Unregistering the quantity changes no other variable.
    unregister_quantity(QUANTITY.name)
    try:
        again = sweep([64])
        assert "scaled_change" not in again
        assert "scaled_change" not in reference()
        for name in again:
            np.testing.assert_array_equal(again[name], before[name])
    finally:
        lz.register_quantity(QUANTITY)


@pytest.mark.slow
def test_a_stored_sweep_is_neither_resumed_nor_merged_without_its_quantity(outside, tmp_path):
    def stored(**folder):
        out = lz.RunFolder(tmp_path / "run", **folder)
        return lz.sweep(NETWORK, DATA, [8], 1, 3, learning_rate=0.1, measure=ALONE, out=out, progress=False)

    stored(shard=(1, 1))
    unregister_quantity(QUANTITY.name)
    try:
        with pytest.raises(
            ValueError, match=r"^out must be .* registered_quantities = \['scaled_change'\] instead of None\.$"
        ):
            stored(resume=True)
        with pytest.raises(
            ValueError, match=r"^The sweep measured the quantity 'scaled_change', which is not registered"
        ):
            lz.merge_shards(tmp_path / "run")
        assert not (tmp_path / "run" / "result.nc").exists()
    finally:
        lz.register_quantity(QUANTITY)
    result = lz.merge_shards(tmp_path / "run")
    assert result.scaled_change.long_name == QUANTITY.meaning


@pytest.mark.slow
def test_the_stored_verdict_of_a_resumed_sweep_is_that_of_the_current_prediction(outside, tmp_path):
    def stored():
        folder = lz.RunFolder(tmp_path / "run", resume=True)
        lz.sweep(NETWORK, DATA, [8, 16], 2, 3, learning_rate=0.1, measure=ALONE, out=folder, progress=False)
        rows = json.loads((tmp_path / "run" / "verdict.json").read_text())["rows"]
        return {row["quantity"]: row["predicted"] for row in rows}["scaled_change"]

    assert stored() == 0.0
    unregister_quantity(QUANTITY.name)
    lz.register_quantity(replace(QUANTITY, predicted=("equal", -2.0)))
    assert stored() == -2.0


@pytest.mark.slow
def test_a_quantity_of_several_numbers_has_the_dimensions_that_it_names():
    means = lz.Quantity(
        "mean_weights",
        "mean over units of the weight of each feature",
        dims=("width", "seed", "step", "feature"),
        measure=lambda network, variables, variables_0, data: variables["params"]["hidden"].mean(axis=0),
    )
    lz.register_quantity(means)
    try:
        result = lz.sweep(lz.TwoLayer(width=8), DATA, [8], 1, 3, learning_rate=0.1, measure=ALONE, progress=False)
        assert result.mean_weights.dims == ("width", "seed", "step", "feature")
        assert result.sizes["feature"] == DATA.dim
    finally:
        unregister_quantity("mean_weights")
    lz.register_quantity(replace(means, dims=("width", "seed", "step")))
    try:
        with pytest.raises(ValueError, match=r"^measure of .* must return a 0-dimensional array"):
            lz.sweep(lz.TwoLayer(width=8), DATA, [8], 1, 3, learning_rate=0.1, measure=ALONE, progress=False)
    finally:
        unregister_quantity("mean_weights")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "kernel_drift"}, "^name must be"),
        ({"name": "loss_root_sum"}, "^name must be"),
        ({"name": "not a name"}, "^name must be"),
        ({"measure": None}, "^measure must be"),
        ({"dims": ("width", "step")}, "^dims must be width, seed and step"),
        ({"dims": ("width", "seed", "step", "unit")}, "^dims must be .* for a quantity that sets predicted"),
        ({"reduction": "mean"}, "^reduction must be"),
        ({"panel": "loss"}, "^panel must be"),
        ({"predicted": ("equal", "s + g")}, "^predicted must be"),
        ({"predicted": ("at least", 0.5)}, "^predicted must be"),
    ],
)
def test_quantities_that_cannot_be_are_refused(change, message):
    before = dict(catalog())
    with unchecked(), pytest.raises(ValueError, match=message):
        lz.register_quantity(replace(QUANTITY, **change))
    assert dict(catalog()) == before


def test_only_registered_quantities_are_removed():
    with pytest.raises(ValueError, match=r"^name must be"):
        unregister_quantity("kernel_drift")


def test_theory_predicts_the_exponents_of_exactly_the_entries_that_say_so():
    names = set()
    for activation, symmetric in ((name, start) for name in ACTIVATIONS for start in (True, False)):
        scaling = Scaling(
            0.0, 0.0, 0.0, symmetric, ACTIVATIONS[activation].homogeneous, "both", quadratic=True, layers=("hidden_1",)
        )
        assert scaling.parametrization == get_parametrization("ntk")
        for row in predicted_exponents(scaling):
            name = row.quantity.partition("[")[0]
            relation, _ = catalog()[name].predicted
            assert row.relation in (relation, "at most")
            names.add(name)
    assert names == {name for name, quantity in catalog().items() if quantity.predicted}


class Symbols(NamedTuple):
    """Width exponents of a network, derived by hand, that the formulas in the catalog refer to."""

    s: float  # exponent of the learning rate
    r: float  # exponent of the residual
    c: float  # exponent of the relative change of pre-activations
    arrays: dict[str, tuple[float, float]]  # exponents g of ||df/dW|| and w of ||W(0)|| for arrays W


ONE_LAYER = Scaling(0.0, 0.0, 0.0, symmetric=True, homogeneous=True, train="hidden", quadratic=True)
DEEP = ONE_LAYER._replace(symmetric=False, train="both", depth=3, layers=("hidden_1", "hidden_2", "hidden_3"))
# In the NTK parametrization, outputs are sums of m terms of size m^(-1/2), so the gradients of all arrays have g = 0.
# The layers have m d, m^2 and m weights of order 1, so their norms have exponents w = 1/2, 1 and 1/2.
NTK_ARRAYS = {"hidden_1": (0.0, 0.5), "hidden_2": (0.0, 1.0), "hidden_3": (0.0, 1.0), "readout": (0.0, 0.5)}
# For each family: its scaling, and the exponents that the symbols in the formulas stand for.
FAMILIES = {
    "ntk": (ONE_LAYER, Symbols(0.0, 0.0, -0.5, {"hidden_1": (0.0, 0.5)})),
    "ntk, tanh, both": (
        ONE_LAYER._replace(homogeneous=False, train="both"),
        Symbols(0.0, 0.0, -0.5, {"hidden_1": (0.0, 0.5), "readout": (0.0, 0.5)}),
    ),
    # Here alpha ~ m^(-1/4) reduces gradients by the same factor, and eta ~ m^(1/2) compensates for it.
    "between ntk and mean field": (
        ONE_LAYER._replace(output=-0.25, learning_rate=0.5, homogeneous=False),
        Symbols(0.5, 0.0, -0.25, {"hidden_1": (-0.25, 0.5)}),
    ),
    # As kappa ~ m^(1/4) scales f_0, the residual and the weights alike, relative changes still fall as m^(-1/2).
    "large start": (
        ONE_LAYER._replace(init=0.25, symmetric=False),
        Symbols(0.0, 0.25, -0.5, {"hidden_1": (0.0, 0.75)}),
    ),
    "ntk, 3 layers": (DEEP, Symbols(0.0, 0.0, -0.5, NTK_ARRAYS)),
    "ntk, 3 layers of tanh": (DEEP._replace(homogeneous=False), Symbols(0.0, 0.0, -0.5, NTK_ARRAYS)),
    # With f = (1 / m) sum_r a_r sigma(w_r.x), df/dw_r ~ 1 / m for each neuron, and eta ~ m moves it by order 1.
    "mean field": (
        ONE_LAYER._replace(parametrization=get_parametrization("mean-field"), learning_rate=1.0, homogeneous=False),
        Symbols(1.0, 0.0, 0.0, {"hidden_1": (-0.5, 0.5)}),
    ),
    # With f = sum_r a_r relu(w_r.x) and a_r ~ m^(-1/2), df/dw_r is of order a_r, df/da_r of order 1, and eta ~ 1 / m.
    "standard": (
        ONE_LAYER._replace(parametrization=get_parametrization("standard"), learning_rate=-1.0, train="both"),
        Symbols(-1.0, 0.0, -1.5, {"hidden_1": (0.0, 0.5), "readout": (0.5, 0.0)}),
    ),
    # In the maximal-update parametrization (Yang and Hu 2021), the updates of each W_l change pre-activations by
    # order 1, and weights are of order m^(-1/2).
    "maximal update, 3 layers": (
        DEEP._replace(parametrization=get_parametrization("maximal-update"), symmetric=True, homogeneous=False),
        Symbols(
            0.0,
            0.0,
            0.0,
            {"hidden_1": (0.0, 0.0), "hidden_2": (0.0, 0.5), "hidden_3": (0.0, 0.5), "readout": (0.0, 0.0)},
        ),
    ),
}


def evaluated(formula, symbols, scaling, array):
    """Return the value of a formula in the catalog, such as "s + g + r - 1/2"."""
    largest = max(g for g, _ in symbols.arrays.values())
    values = {"s": symbols.s, "r": symbols.r, "c": symbols.c, "l": symbols.s + 2 * largest + symbols.r}
    if formula.endswith(" of the array"):
        formula, (g, w) = formula.removesuffix(" of the array"), symbols.arrays[array]
    else:
        g, w = largest, min(w for _, w in symbols.arrays.values())
    homogeneous, _, otherwise = formula.partition(" for a homogeneous activation, else ")
    formula = otherwise if otherwise and not scaling.homogeneous else homogeneous
    return eval(
        re.sub(r"(\d) (?=[a-z])", r"\1 * ", formula), {"__builtins__": {}, "max": max, "g": g, "w": w, **values}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_formulas_of_the_catalog_are_the_exponents_that_theory_predicts(family):
    scaling, symbols = FAMILIES[family]
    rows = predicted_exponents(scaling)
    layers = {f"layer_relative_displacement[{name}]" for name in scaling.layers}
    names = {name for name, quantity in catalog().items() if quantity.predicted} - {"layer_relative_displacement"}
    assert {row.quantity for row in rows} == names | layers
    # The residual y - f_0 and norms over arrays with different exponents are sums of different powers of the width, for
    # which theory predicts only upper bounds.
    gradients = {g for g, _ in symbols.arrays.values()}
    sums = {"displacement": len(gradients) > 1, "relative_displacement": len(set(symbols.arrays.values())) > 1}
    for row in rows:
        name, _, array = row.quantity.partition("[")
        relation, formula = catalog()[name].predicted
        if symbols.r or sums.get(name):
            relation = "at most"
        expected = evaluated(formula, symbols, scaling, array.removesuffix("]"))
        assert (row.relation, row.exponent) == (relation, pytest.approx(expected, abs=1e-9)), row.quantity


def test_a_quantity_that_jax_cannot_trace_is_refused_before_any_work(tmp_path):
    quantity = lz.Quantity(
        "norm", "a number", measure=lambda network, variables, variables_0, data: float(data.y_train[0])
    )
    lz.register_quantity(quantity)
    try:
        with pytest.raises(ValueError, match=r"^measure of the quantity 'norm' must be a function that JAX can trace"):
            lz.sweep(NETWORK, DATA, [8], 1, 3, learning_rate=0.1, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
    finally:
        unregister_quantity("norm")
