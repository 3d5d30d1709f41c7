"""Check types with beartype and jaxtyping in all functions and methods of a package, except nested functions.

Nested functions would be decorated each time they are defined, which takes over a quarter of the time of the tests.
"""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from beartype import beartype
from jaxtyping import install_import_hook
from jaxtyping._import_hook import JaxtypingTransformer

visit = JaxtypingTransformer.visit_FunctionDef
# The name of this function becomes part of the file names of compiled modules.
check_outer_functions = beartype


def _visit_outer(self, node):
    nested = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
    return node if nested else visit(self, node)


@contextmanager
def type_checks(package: str) -> Iterator[None]:
    """Check types in the modules of a package that are imported within this context."""
    with (
        patch.object(JaxtypingTransformer, "visit_FunctionDef", _visit_outer),
        install_import_hook(package, "typecheck.check_outer_functions"),
    ):
        yield
