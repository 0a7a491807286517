"""Types and shapes of the package's signatures, checked at every call while the tests run.

``jaxtyping.install_import_hook`` does the same, but binds the arguments anew and checks them twice at each call, builds
its checks when a module is imported, and builds those of a function inside a function each time that one is made: half
the time of many tests. Here every function of a module and every method is handed to beartype when it is first called,
inside jaxtyping's context, in which a name of an axis means one size. A function inside a function is left to those who
call it. An annotation that cannot be read at run time (a name that only type checkers import) is left out, and an int
may stand for a float, as Python's typing rules say.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import types
import typing
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))


def checked(function):
    """The function with its annotations checked at each call, unless jaxtyping is switched off; or a data class so."""
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = checked(function.__init__)
        return function
    if not isinstance(function, types.FunctionType):  # a decorator above made something else of it
        return function
    config, checking = jaxtyping.config, None

    @functools.wraps(function)
    def call(*args, **knobs):
        nonlocal checking
        if config.jaxtyping_disable:
            return function(*args, **knobs)
        if checking is None:
            checking = check(readable(function))
        with jaxtyping.jaxtyped("context"):
            return checking(*args, **knobs)

    return call


def readable(function: types.FunctionType) -> types.FunctionType:
    """A copy of the function that has those of its annotations which can be read."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = (
        function.__kwdefaults__, function.__qualname__, function.__module__,
    )  # fmt: skip
    for name, annotation in function.__annotations__.items():
        one = types.SimpleNamespace(__annotations__={name: annotation}, __globals__=function.__globals__)
        try:
            copy.__annotations__ |= typing.get_type_hints(one, function.__globals__, include_extras=True)
        except Exception:  # whatever the text of an annotation raises
            continue
    return copy


class Decorated(ast.NodeTransformer):
    """Puts ``checked`` next to every function and before every class of a module."""

    def visit_Module(self, module: ast.Module) -> ast.Module:
        where = sum(self.must_stand_first(one) for one in module.body[:3])  # the text on top, and from __future__
        module.body.insert(where, ast.parse("from tests.typechecker import checked as checked_by_tests").body[0])
        return self.generic_visit(module)

    @staticmethod
    def must_stand_first(one: ast.stmt) -> bool:
        text = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
        return text or (isinstance(one, ast.ImportFrom) and one.module == "__future__")

    def visit_ClassDef(self, one: ast.ClassDef) -> ast.ClassDef:
        one.decorator_list.insert(0, ast.copy_location(ast.Name("checked_by_tests", ast.Load()), one))
        return self.generic_visit(one)

    def visit_FunctionDef(self, one: ast.FunctionDef) -> ast.FunctionDef:
        one.decorator_list.append(ast.copy_location(ast.Name("checked_by_tests", ast.Load()), one))
        return one  # and not into it


class Loader(SourceFileLoader):
    """Loads a module with its functions checked; what it compiles is not kept among Python's own files."""

    def get_code(self, fullname: str):
        path = self.get_filename(fullname)
        tree = Decorated().visit(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str) -> None:
    """Check the functions of the package in whatever is imported from now on."""
    sys.meta_path.insert(0, Finder(package))
