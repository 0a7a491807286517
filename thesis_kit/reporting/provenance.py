"""Where a number comes from: the code that computed it and the machine it ran on.

The modules hash covers the syntax of an experiment's module and of every ``thesis_kit`` module it imports, directly
or through others. Comments, docstrings, unused imports and layout do not count, so that better wording never makes a
result look stale; nor does code that only schedules, compares, stores or displays (the runner, ``comparing`` and
``verifying``, ``reporting``, ``files``, ``progress``), nor the profile tables, whose values stand in the result itself.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
from functools import cache
from pathlib import Path

PACKAGE = "thesis_kit"
_ROOT = Path(__file__).resolve().parents[2]
_BOOKKEEPING = tuple(
    f"{PACKAGE}.{name}"
    for name in (
        "reporting",
        "experiments.comparing",
        "experiments.memory",
        "experiments.runner",
        "experiments.verifying",
        "files",
        "progress",
        "profiles",
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
    """Names of package modules that ``tree`` imports; a name taken from a package may be a module itself."""
    parent = module.split(".") if is_package else module.split(".")[:-1]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == PACKAGE and name != PACKAGE}


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
    tree = ast.parse(path.read_text(encoding="utf-8"))
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
