"""Imports inside the package run downwards only, in the order of the design, and never in a circle."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "thesis_kit"

# From the top down: a room may import from its own line and from the lines below.
LAYERS = [
    {"cli"},
    {"chapters"},
    {"show"},
    {"ledger", "zookeeping"},
    {"session"},
    {"sonification", "language", "features", "inversion"},
    {"evaluation", "synthesis"},
    {"training"},
    {"attacks"},
    {"certification"},
    {"recording"},
    {"models"},
    {"data"},
    {"asking", "casting", "checks", "connection", "extras", "randomness", "files", "identity", "names", "passes",
     "progress", "similarity", "sweep"},
]
LEVEL = {room: -number for number, line in enumerate(LAYERS) for room in line}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILE_OF = {module_name(path): path for path in FILES}
NAMES = {*FILE_OF, "thesis_kit"}


def run_time(tree: ast.Module) -> ast.Module:
    """The tree without its `if TYPE_CHECKING:` blocks."""
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    return tree


@cache
def imported(path: Path, *, types_too: bool = True) -> set[str]:
    """Modules of the package that a file imports, wherever in the file it does."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if types_too else run_time(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            found |= {name if name in NAMES else origin for name in inner}
    return {name for name in found if name == "thesis_kit" or name.startswith("thesis_kit.")}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_layer():
    homeless = {room(module_name(path)) for path in FILES} - set(LEVEL)
    assert not homeless, f"say in LAYERS where {sorted(homeless)} belong"


def from_above(path: Path) -> set[str]:
    here = LEVEL[room(module_name(path))]
    upward = {name for name in imported(path) if name == "thesis_kit" or LEVEL[room(name)] > here}
    if here >= LEVEL["ledger"]:
        upward.discard("thesis_kit")  # for the version, say; what lies above everything else may use everything
    return upward


def test_imports_run_downwards():
    upward = {module_name(path): sorted(from_above(path)) for path in FILES}
    assert {module: names for module, names in upward.items() if names} == {}, "modules that import from above"


def test_no_circles():
    graph = {module_name(path): imported(path, types_too=False) - {module_name(path), "thesis_kit"} for path in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


CHAPTERS_FILES = {"arms", "figures", "networks", "packaged", "settings", "world"}  # the same part of every chapter
CHAPTERS_CLASSES = {"Made", "Measured", "World"}
SAID_TWICE = {"Clip"}  # a piece of speech, and the network: both are the field's word


def test_no_module_has_the_name_of_another():
    """But for a chapter's parts, and for commands, which are called after what they run."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        if path.name != "__init__.py" and path.parent.name != "cli" and path.stem not in CHAPTERS_FILES:
            places.setdefault(path.stem, []).append(module_name(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_class_has_the_name_of_another():
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module_name(path))
    allowed = SAID_TWICE | {
        name for name in CHAPTERS_CLASSES if all(place.startswith("thesis_kit.chapters") for place in places[name])
    }
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in allowed} == {}


def test_no_file_is_long_without_a_reason():
    """Four hundred lines, or a sentence in its head that says why it is "long:"."""
    long = [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    unsaid = [path for path in long if "long:" not in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")]
    assert [module_name(path) for path in unsaid] == []


def test_who_measures_never_draws():
    """The arms of every chapter, the runner and the zoo's making come without what draws, and without matplotlib."""
    for start in sorted(name for name in FILE_OF if name.endswith("arms") or room(name) in ("ledger", "zookeeping")):
        waiting, met = [start], set()
        while waiting:
            name = waiting.pop()
            if name in met or name not in FILE_OF:
                continue
            met.add(name)
            waiting += imported(FILE_OF[name], types_too=False) - {"thesis_kit"}
        drawing = {name for name in met if room(name) == "show" or name.endswith("figures")}
        assert not drawing, f"{start} comes to import {sorted(drawing)}"
        assert not [name for name in met if re.search(r"(import|from) matplotlib", FILE_OF[name].read_text("utf-8"))]
