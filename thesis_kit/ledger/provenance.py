"""Where a number comes from: the code that computed it and the machine it ran on.

The modules hash covers the syntax of an experiment's module and of every ``thesis_kit`` module it imports, directly or
through others. What is taken from a package that only lists names of its modules counts as taken from these: a new
attack beside an old one is none of the old one's business. Comments, docstrings, unused imports, types of arguments
and layout do not count, so that better wording never makes a result look stale; nor does code that only schedules,
compares, stores or displays (``ledger``, ``show``, ``session``, ``files``, ``progress``).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

PACKAGE = "thesis_kit"
_ROOT = Path(__file__).resolve().parents[2]
_BOOKKEEPING = tuple(
    f"{PACKAGE}.{name}"
    for name in (
        "ledger",
        "show",
        "files",
        "identity",
        "progress",
        "session",
    )
)


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it where it belongs to the package."""
    if module.split(".")[0] != PACKAGE:
        found = importlib.util.find_spec(module)
        return Path(found.origin) if found and found.origin else None
    base = _ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    """Names of package modules that ``tree`` imports."""
    names, attributes = set(), _attributes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            for alias in node.names:
                names |= _taken(base, alias.name, attributes.get(alias.asname or alias.name))
    return {name for name in names if name.split(".")[0] == PACKAGE and name != PACKAGE}


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Where an import takes its names from."""
    parent = module.split(".") if is_package else module.split(".")[:-1]
    base = parent[: len(parent) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def _taken(base: str, name: str, attributes: set[str] | None = None) -> set[str]:
    """The modules that ``from base import name`` rests on; of a module that is only used for some attributes, and only
    lists names of other modules, those that these names come from."""
    if base.split(".")[0] != PACKAGE:
        return set()
    whole = f"{base}.{name}"
    if attributes is not None and _listed(whole) is not None:
        return set().union(*(_taken(whole, attribute) for attribute in attributes))
    listed = _listed(base)
    if listed and listed.get(name, (base, name)) != (base, name):
        return _taken(*listed[name])
    return ({base} if listed is None else set()) | ({whole} if _source(whole) is not None else {base})


def _attributes(tree: ast.Module) -> dict[str, set[str]]:
    """For each name that is only ever used for its attributes, these."""
    nodes = list(ast.walk(tree))
    everywhere = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    owned = [(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    only = {name for name, count in Counter(name for name, _ in owned).items() if count == everywhere[name]}
    return {name: {attr for other, attr in owned if other == name} for name in only}


def _listed(module: str) -> dict[str, tuple[str, str]] | None:
    """For a package that does nothing but list names of its modules: name → where it comes from. None for others."""
    path = _source(module) if module.startswith(f"{PACKAGE}.") else None
    if path is None or path.name != "__init__.py":
        return None
    found: dict[str, tuple[str, str]] = {}
    for node in _parse(path).body:
        if isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package=True)
            found |= {alias.asname or alias.name: (base, alias.name) for alias in node.names}
        elif not isinstance(node, ast.Expr) and not ast.unparse(node).startswith("__all__ ="):
            return None
    return found


def _shape(node: object) -> str:
    """A syntax tree as text: no positions, docstrings or empty fields, hence alike on every version of Python."""
    if isinstance(node, list):
        return "[" + ",".join(map(_shape, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = node.body[ast.get_docstring(node, clean=False) is not None :]
    return f"{type(node).__name__}({','.join(f'{name}={_shape(value)}' for name, value in fields.items())})"


def _parse(path: Path) -> ast.Module:
    """A module's syntax without imports of names that it neither uses nor lists in ``__all__``."""
    return _pruned(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=512)
def _pruned(text: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for parent in ast.walk(tree):
        for field in ("body", "orelse", "handlers", "finalbody"):
            statements = getattr(parent, field, None)
            if isinstance(statements, list):
                setattr(parent, field, [kept for node in statements if (kept := _used_part(node, used)) is not None])
    return tree


def _used_part(node: ast.AST, used: set[str]) -> ast.AST | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        node.names = [a for a in node.names if a.name == "*" or (a.asname or a.name.split(".")[0]) in used]
        return node if node.names else None
    return node


def _is_bookkeeping(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in _BOOKKEEPING)


def modules_used(module: str) -> dict[str, Path]:
    """The module and every package module it imports, transitively, with their files, in alphabetical order."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name) if name not in found and not _is_bookkeeping(name) else None
        if path is not None:
            found[name] = path
            tree = _parse(path)
            waiting += sorted(_imports(tree, name, path.name == "__init__.py"))
    return dict(sorted(found.items()))


@cache
def modules_hash(module: str) -> str:
    """SHA-256 over the syntax of all modules that ``module`` uses."""
    digest = hashlib.sha256()
    for name, path in modules_used(module).items():
        digest.update(f"{name}\n{_shape(_parse(path))}\n".encode())
    return digest.hexdigest()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: str, threads: int) -> dict[str, object]:
    """The machine as a reader would want it described; nothing that identifies its owner."""
    import torch  # heavy, and needed only where something is measured

    return {
        "processor": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
