"""From a picture to its function: what a notebook's cell calls by a short name, as the module and line that draw it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LABEL = re.compile(r"Figure \d+(\.\d+)?")


def functions_of(source: str) -> dict[str, str]:
    """Label of each figure of a notebook's source ("Figure 1.2") → the function that its cell calls, in full.

    A function that the notebook itself defines, or a name that it imports from nowhere, stands as it is called.
    """
    tree, long = ast.parse(source), {"tk": "thesis_kit"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            long |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            long |= {alias.asname: alias.name for alias in node.names if alias.asname}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [*node.args[:1], *(one.value for one in node.keywords if one.arg == "label")]
            for label in (one.value for one in given if isinstance(one, ast.Constant)):
                if isinstance(label, str) and LABEL.fullmatch(label):
                    first, dot, rest = ast.unparse(node.func).partition(".")
                    found[label] = long.get(first, first) + dot + rest
    return found


@cache
def home(function: str) -> tuple[str, int] | None:
    """The file of a function of the package, relative to the checkout, and its line; None where there is no such.

    A name that a module only passes on is followed to where it comes from.
    """
    module, _, name = function.rpartition(".")
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return path.relative_to(ROOT).as_posix(), node.lineno
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            (own,) = (alias.name for alias in node.names if (alias.asname or alias.name) == name)
            return home(f"{node.module}.{own}")
    return None


def drawn_by(source: str, label: str) -> tuple[str, str, int] | None:
    """Name, file and line of the function that draws a figure of a notebook's source, where the package has it."""
    function = functions_of(source).get(label)
    where = home(function) if function else None
    return (re.sub(r".*\.", "", function), *where) if where else None
