"""`--network MODULE:FACTORY`: a user's own network, imported from a module."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn

import lazynet as lz
from lazynet.networks import Network


def own_network(place: str, outputs: int) -> Any:
    """Import a factory and return the network that it makes.

    The module is searched in the current folder first, and importing it runs its code.

    Args:
        place: MODULE:FACTORY. The factory is a class of flax modules with a field `width` and, if there are several
            outputs, a field `outputs`, or a function without arguments that returns a network.
        outputs: Number of outputs.

    Returns:
        The network.

    Raises:
        ValueError: If there is no such factory, or if it makes something else.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ValueError(f"--network must be MODULE:FACTORY, such as mine:make, got {place!r}.")
    with _searching_here():
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            # A module that the user's module imports may be missing too.
            raise ValueError(f"--network must name a module that can be imported, but {error}.") from error
    if isinstance(found, type) and issubclass(found, nn.Module):
        return _of_flax(place, found, outputs)
    if not callable(found):
        raise ValueError(f"--network must name a function or a class in {module}, got {name!r}, which is {found!r}.")
    if inspect.signature(found).parameters:
        raise ValueError(
            f"--network must name a function without arguments, got {place!r}, whose arguments are "
            f"{', '.join(inspect.signature(found).parameters)}."
        )
    network = found()
    if not isinstance(network, Network):
        raise ValueError(f"--network must name a function that returns a network, got {type(network).__name__}.")
    return network


def _of_flax(place: str, module: type[nn.Module], outputs: int) -> Any:
    fields = module.__dataclass_fields__
    if "width" not in fields:
        raise ValueError(f"--network must name a flax class with a field width, got {place!r}.")
    if outputs > 1 and "outputs" not in fields:
        raise ValueError(f"--network must name a flax class with a field outputs for {outputs} outputs, got {place!r}.")
    more = {"outputs": outputs} if "outputs" in fields else {}
    return lz.from_flax(lambda width: module(width=width, **more), outputs=outputs)


@contextmanager
def _searching_here() -> Iterator[None]:
    """Search modules in the current folder too, where `python -m` searches but an installed command does not."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
