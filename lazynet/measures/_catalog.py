"""The catalog of quantities: one record for each variable in each kind of result."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
from jax import Array

from lazynet import programs
from lazynet.arguments import check_choice, check_instance
from lazynet.networks import Network
from lazynet.typing import Result

Reduction = Literal["maximum", "last", "start"]
Relation = Literal["equal", "at most"]
Panel = Literal["gaps", "movement"]
# Parts of a sweep on which a quantity can depend. Each axis of a sweep varies one of these parts.
Source = Literal["network", "inputs", "labels", "learning_rate", "training"]

MEMBER = ("width", "seed", "step")
# Names of the arrays that training records in addition to the quantities.
RECORDS = ("train_prediction", "test_prediction", "loss_root_sum")
# Version number of the result layout.
SCHEMA = 1
SYMBOLS = (
    "The symbols denote width exponents, as in `lazynet.theory.predicted_exponents`: s for the learning rate, r for "
    "the residual, g for the largest ||df/dW||, w for the smallest ||W(0)||, c for the relative change in the "
    "pre-activations, and l = s + 2 g + r for the amount learned in one step."
)


@dataclass(frozen=True)
class Quantity:
    """A variable in a result: what it means, how it is measured, and how the verdict and the figure show it.

    Attributes:
        name: Name of the variable in the result, a valid Python identifier.
        meaning: Description of the variable, stored in its `long_name` attribute.
        unit: Unit of the variable, stored in its `units` attribute: "1" if it is dimensionless, "targets" or "loss" if
            it has the units of the targets or the loss, or an empty string for text and integer codes.
        dims: All dimensions that the variable can have. A quantity that describes the infinite-width limit has
            only the dimensions on which it depends.
        depends_on: Parts of the sweep on which the quantity depends. The quantity is stored without the axes that vary
            other parts.
        reduction: How the verdict reduces the quantity over snapshots. One of "maximum", "last" (the last value) and
            "start" (the value at initialization).
        gap: Whether the quantity is a distance between two predictions, in units of the targets.
        held: Whether the last value for a network that stopped training early is repeated at all later snapshots.
        defined_with: Name of the quantity whose missing values mark the points of a sweep at which this quantity is
            undefined; it may be the quantity itself. Empty if the quantity is defined at all points.
        level: Whether the verdict reports the value at the largest width.
        predicted: Predicted width exponent, given as a pair (relation, exponent). The relation is "equal" or
            "at most". The exponent is a number or, for built-in quantities, the formula by which
            `lazynet.theory.predicted_exponents` computes it from the parametrization.
        panel: Panel of the figure, "gaps" or "movement", in which the quantity is plotted against the width, or None if
            it is not plotted.
        label: Label in the legend.
        color: Color of the curve, from the package's palette ("blue", "orange", "green", "vermilion" or "purple") or
            any Matplotlib color.
        marker: Matplotlib marker for the curve.
        exponent_drawn: Whether the figure plots the fitted exponent against the step.
        by_layer: Name of the per-layer quantity that, if the result contains it, replaces this one in the figure.
        coordinate: Whether the quantity is a coordinate of the result.
        source: Publication that defines the quantity, or from which its prediction comes, with the number of the
            equation, theorem or figure. It is stored in the variable's `references` attribute.
        measure: For user-defined quantities, a function that JAX can trace and that maps (network, variables,
            variables_0, data) to an array. Its arguments are the network, the network's current variables, its initial
            variables, and an object with the traced arrays x_train, y_train, x_test and y_test as attributes. The
            returned array has one axis for each dimension after width, seed and step.

    >>> import lazynet as lz
    >>> lz.Quantity("largest_weight", "largest absolute value of a weight", panel="movement").reduction
    'last'
    """

    name: str
    meaning: str
    unit: str = "1"
    dims: tuple[str, ...] = MEMBER
    depends_on: tuple[Source, ...] = get_args(Source)
    reduction: Reduction = "last"
    gap: bool = False
    held: bool = False
    defined_with: str = ""
    level: bool = False
    predicted: tuple[Relation, float | str] | None = None
    panel: Panel | None = None
    label: str = ""
    color: str = "black"
    marker: str = "o"
    exponent_drawn: bool = True
    by_layer: str = ""
    coordinate: bool = False
    source: str = ""
    measure: Callable[..., Array] | None = None

    def measured(self, network: Network, variables: Any, variables_0: Any, data: Any) -> Array:
        """Measure the quantity.

        Args:
            network: Network to measure.
            variables: Current variables of the network.
            variables_0: Initial variables of the network.
            data: Object with the arrays x_train, y_train, x_test and y_test as attributes.

        Returns:
            The array that `measure` returns.

        Raises:
            ValueError: If `measure` is None, or if the number of axes of the array does not match `dims`.
        """
        if self.measure is None:
            raise ValueError(f"measure must be a function, got None for the quantity {self.name!r}.")
        values = self.measure(network, variables, variables_0, data)
        if len(MEMBER) + values.ndim != len(self.dims):
            raise ValueError(
                f"measure of the quantity {self.name!r} must return a {len(self.dims) - len(MEMBER)}-dimensional array "
                f"for dims {self.dims}, got shape {values.shape}."
            )
        return values


# Value of the attribute `references` for quantities that come from no publication.
OWN = "defined by its long_name"

_kinds: dict[str, dict[str, Quantity]] = {}


def add(kind: str, *quantities: Quantity) -> None:
    """Add quantities to the catalog for one kind of result."""
    entries = _kinds.setdefault(kind, {})
    for quantity in quantities:
        if quantity.name in entries:
            raise ValueError(f"name must not already be used in results of kind {kind!r}, got {quantity.name!r}.")
        entries[quantity.name] = quantity


def catalog(kind: str = "sweep") -> Mapping[str, Quantity]:
    """Return the catalog of quantities for one kind of result.

    Args:
        kind: Kind of result, as stored in its `kind` attribute.

    Returns:
        A read-only mapping from names to quantities, in display order.

    Raises:
        ValueError: If there is no such kind of result.
    """
    return MappingProxyType(_kinds[check_choice("kind", kind, _kinds)])


def registered() -> tuple[Quantity, ...]:
    """Return the user-defined quantities.

    Returns:
        The quantities, in the order in which they were registered.
    """
    return tuple(quantity for quantity in _kinds["sweep"].values() if quantity.measure is not None)


def settings_by_width() -> tuple[str, ...]:
    """Return the names of the settings that may be functions of the width.

    Returns:
        The names, in the order of the catalog.
    """
    return tuple(name for name, quantity in catalog().items() if quantity.dims == ("width",) and name != "width")


def reserved_names() -> set[str]:
    """Return the names that user-defined quantities must not use.

    Returns:
        The names of all quantities in sweeps and of the other arrays that training records.
    """
    return {*_kinds["sweep"], *RECORDS}


def register_quantity(quantity: Quantity) -> None:
    """Add a quantity to the catalog, so that later sweeps measure it at every snapshot.

    The quantity's meaning and unit are stored as attributes of the variable in the result. The verdict has a row for
    the quantity if `predicted` is set, and reports the quantity's value at the largest width if `level` is set. The
    figure shows the quantity if `panel` is set. A run folder records only the name of the quantity, so register the
    quantity again before you resume the sweep or merge its shards.

    Args:
        quantity: Quantity whose `measure` is a function. If `predicted`, `level` or `panel` is set, the dimensions
            of the quantity must be exactly width, seed and step.

    Raises:
        ValueError: If the name is already taken or is not an identifier, if `measure` is not a function, or if any
            other field has an invalid value.

    >>> import lazynet as lz
    >>> def largest(network, variables, variables_0, data):
    ...     return abs(variables["params"]["hidden"]).max()
    >>> lz.register_quantity(lz.Quantity("largest_weight", "largest absolute value of a weight", measure=largest))
    >>> data = lz.load_dataset("digits", n_train=16, n_test=8)
    >>> lz.sweep(lz.TwoLayer(width=16), data, widths=[16], seeds=1, steps=3).largest_weight.long_name
    'largest absolute value of a weight'
    >>> lz.measures.unregister_quantity("largest_weight")
    """
    check_instance("quantity", quantity, Quantity)
    name = quantity.name
    if not isinstance(name, str) or not name.isidentifier() or name in reserved_names():
        raise ValueError(f"name must be an identifier that is not already used in results, got {name!r}.")
    if not callable(quantity.measure):
        raise ValueError(f"measure must be a function, got {quantity.measure!r} for the quantity {name!r}.")
    if quantity.dims[: len(MEMBER)] != MEMBER or len(set(quantity.dims)) < len(quantity.dims):
        raise ValueError(
            f"dims must be width, seed and step, optionally followed by other distinct names, got {quantity.dims}."
        )
    for field, allowed in (("reduction", get_args(Reduction)), ("panel", (*get_args(Panel), None))):
        if getattr(quantity, field) not in allowed:
            raise ValueError(f"{field} must be one of {allowed}, got {getattr(quantity, field)!r}.")
    if quantity.predicted is not None:
        relation, exponent = quantity.predicted
        if relation not in get_args(Relation) or isinstance(exponent, str) or not math.isfinite(exponent):
            raise ValueError(
                f"predicted must be a pair ('equal' or 'at most', finite number), got {quantity.predicted}."
            )
    shown = [field for field in ("predicted", "level", "panel") if getattr(quantity, field)]
    if shown and quantity.dims != MEMBER:
        raise ValueError(f"dims must be {MEMBER} for a quantity that sets {' and '.join(shown)}, got {quantity.dims}.")
    add("sweep", quantity)
    programs.register(quantity.measure)


def unregister_quantity(name: str) -> None:
    """Remove a registered quantity from the catalog.

    Args:
        name: Name of the quantity.

    Raises:
        ValueError: If no quantity with this name is registered.
    """
    names = [quantity.name for quantity in registered()]
    if name not in names:
        raise ValueError(f"name must be one of the registered quantities {names}, got {name!r}.")
    removed = _kinds["sweep"].pop(name)
    programs.unregister(cast(Callable[..., Array], removed.measure))


def label_result(result: Result, kind: str) -> None:
    """Set the attributes of a result and of its variables in place.

    The result gets the attributes `kind` and `schema`, and each variable in the catalog gets its long name, unit and
    references.
    If the catalog has no quantities for this kind of result, only `kind` and `schema` are set.

    Args:
        result: Result to label, an `xarray.Dataset`.
        kind: Kind of result.
    """
    result.attrs |= {"kind": kind, "schema": SCHEMA}
    if kind not in _kinds:
        return
    # Quantities that are defined for sweeps can also appear in other kinds of results.
    for name, quantity in {**catalog(), **catalog(kind)}.items():
        if name in result.variables:
            result[name].attrs["long_name"] = quantity.meaning
            result[name].attrs["references"] = quantity.source or OWN
            if quantity.unit:
                result[name].attrs["units"] = quantity.unit


def check_schema(attributes: Mapping[Any, Any]) -> None:
    """Check that this version of lazynet can read a result with the given attributes.

    Args:
        attributes: Attributes of the result.

    Raises:
        ValueError: If the schema of the result is not an integer from 1 to `SCHEMA`.
    """
    # Results that were stored before schemas were numbered have no schema attribute.
    schema = attributes.get("schema", SCHEMA)
    is_number = isinstance(schema, int | np.integer) and not isinstance(schema, bool)
    if not is_number or not 1 <= schema <= SCHEMA:
        raise ValueError(
            f"result.attrs['schema'] must be an integer from 1 to {SCHEMA}, got {schema!r}. To read a result with a "
            "newer schema, upgrade lazynet."
        )


def reference(kind: str = "sweep") -> str:
    """Return a Markdown table that describes the variables of one kind of result.

    Args:
        kind: Kind of result, as stored in its `kind` attribute.

    Returns:
        The table, with one row for each variable. If the table contains predicted exponents, a sentence below it
        explains their symbols.

    Raises:
        ValueError: If there is no such kind of result.
    """
    header = ("variable", "dimensions", "unit", "meaning", "in the verdict", "width exponent", "source")
    rows = [header, ("---",) * len(header), *(_described(quantity) for quantity in catalog(kind).values())]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{SYMBOLS}\n" if any(quantity.predicted for quantity in catalog(kind).values()) else f"{table}\n"


def _described(quantity: Quantity) -> tuple[str, ...]:
    relation, exponent = quantity.predicted or ("", "")
    judged = quantity.reduction if quantity.predicted or quantity.level else ""
    predicted = f"{'<= ' if relation == 'at most' else ''}{exponent}"
    # An unescaped vertical bar would end the table cell.
    meaning = quantity.meaning.replace("|", "\\|")
    return f"`{quantity.name}`", ", ".join(quantity.dims), quantity.unit, meaning, judged, predicted, quantity.source
