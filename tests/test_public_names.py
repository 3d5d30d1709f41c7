"""Every public name is documented, has an example and is used in a test."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lazynet as lz

TESTS = Path(__file__).parent
# Packages whose names are not part of the API: commands and reproductions of papers.
NOT_ROOMS = {"lazynet.cli", "lazynet.papers"}


def rooms():
    """Return the packages whose `__all__` is public: the subpackages of lazynet and of lazynet.studies."""
    packages = [lz, importlib.import_module("lazynet.studies")]
    names = [
        module.name
        for package in packages
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if module.ispkg and module.name not in NOT_ROOMS
    ]
    return [importlib.import_module(name) for name in names]


def exported_functions():
    """Return the functions that the packages export and the public methods of their classes, keyed by full name.

    Methods that implement a protocol are left out, because the protocol describes them.
    """
    values = {
        f"{room.__name__}.{name}": inspect.unwrap(getattr(room, name)) for room in rooms() for name in room.__all__
    }
    classes = {name: value for name, value in values.items() if inspect.isclass(value)}
    protocols = {name for name, value in classes.items() if getattr(value, "_is_protocol", False)}
    of_protocols = {method for name in protocols for method in vars(classes[name])}
    methods = {
        f"{name}.{method}": getattr(value, "__func__", value)
        for name, owner in classes.items()
        for method, value in vars(owner).items()
        if not method.startswith("_") and (name in protocols or method not in of_protocols)
    }
    return {name: value for name, value in (values | methods).items() if inspect.isfunction(value)}


def sections(function):
    """Return the lines of each section of a function's docstring, keyed by the section's title."""
    blocks = re.split(r"^(\w+):$", inspect.getdoc(function) or "", flags=re.MULTILINE)
    return dict(zip(blocks[1::2], blocks[2::2], strict=True))


EXPORTED = exported_functions()


@pytest.mark.parametrize("name", lz.__all__)
def test_is_documented_with_an_example_that_runs(name):
    """The examples themselves run as doctests."""
    assert ">>>" in inspect.getdoc(getattr(lz, name))


@pytest.mark.parametrize("name", [name for name in lz.__all__ if inspect.isfunction(getattr(lz, name))])
def test_functions_tell_of_errors_and_arguments(name):
    text = inspect.getdoc(inspect.unwrap(getattr(lz, name)))
    own = [parameter for parameter in inspect.signature(getattr(lz, name)).parameters if parameter != "network"]
    refers = "are those of `" in text
    assert refers or "Raises:" in text
    assert refers or all(f"{parameter}:" in text for parameter in own)


@pytest.mark.parametrize("name", EXPORTED)
def test_functions_of_rooms_describe_parameters_and_results(name):
    signature, text = inspect.signature(EXPORTED[name]), sections(EXPORTED[name])
    described = re.findall(r"^    \*{0,2}(\w+): \S", text.get("Args", ""), flags=re.MULTILINE)
    assert described == [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]
    returns_nothing = signature.return_annotation in (None, "None")
    assert returns_nothing or text.get("Returns", text.get("Yields", "")).strip()


def names_used(code):
    """Return the names that code imports from lazynet or one of its packages, or reads as attributes of lazynet."""
    tree = ast.parse(code)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    aliases = {
        alias.asname or alias.name
        for node in imports
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "lazynet"
    }
    imported = {
        alias.name
        for node in imports
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lazynet"
        for alias in node.names
    }
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
    }
    return imported | attributes


@pytest.fixture(scope="module")
def names_in_tests():
    here = Path(__file__).name
    return {name for path in TESTS.rglob("test_*.py") if path.name != here for name in names_used(path.read_text())}


@pytest.mark.parametrize("name", lz.__all__)
def test_is_used_in_a_test(name, names_in_tests):
    assert name in names_in_tests


def test_words_and_longer_names_are_no_use():
    code = "import lazynet as lz\nfrom lazynet.data import sphere\nlz.sweep(other.train, 'lz.plot', lz.planner)"
    assert names_used(f"{code}  # lz.verify") == {"sweep", "sphere", "planner"}


def test_a_sweep_has_few_parameters():
    parameters = inspect.signature(lz.sweep).parameters.values()
    assert len(parameters) <= 16
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)


def test_all_is_all():
    public = {name for name, value in vars(lz).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public | {"losses"} == set(lz.__all__)


@pytest.mark.slow
def test_import_is_light_and_changes_no_setting():
    code = """
import jax
before = dict(jax.config.values)
import lazynet, sys
names = "tensorflow neural_tangents xarray matplotlib sklearn tyro pandas pooch llvmlite scipy.optimize scipy.fft"
heavy = set(names.split()) & set(sys.modules)
assert not heavy, heavy
changed = {name for name, value in jax.config.values.items() if before.get(name, value) != value}
assert not changed, changed
"""
    subprocess.run([sys.executable, "-c", code], check=True)
