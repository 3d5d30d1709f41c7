"""Test that papers and benchmarks import only `lazynet`, its public subpackages, and names that these export."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("lazynet/papers/*.py"), *ROOT.glob("benchmarks/*.py")])


def imports(file):
    """Yield (module, name) for each name that a file imports from lazynet, and (module, None) for each module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "lazynet")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lazynet":
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_only_public_names_are_imported(file):
    for module, name in imports(file):
        assert not any(part.startswith("_") for part in [*module.split("."), name or ""]), (module, name)
        if name is None or module.startswith("lazynet.papers"):
            continue
        room = import_module(module)
        if hasattr(room, "__all__"):
            assert name in room.__all__, f"{module} does not export {name}"
        else:
            assert getattr(getattr(room, name), "__module__", module) == module, f"{module} does not define {name}"
