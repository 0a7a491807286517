"""YAML that is read strictly: every key once, every row with its line, every fault with file, line and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from thesis_kit.ledger.rules import BadClaims


class Row(dict):
    """A table of keys and values that knows the line it begins in."""

    line = 0


class _Strict(yaml.SafeLoader):
    """Of two keys alike, the second would quietly take the first one's place: refuse both."""

    file = ""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[object, int] = {}
        for place, _ in node.value:
            key, line = self.construct_object(place, deep=True), place.start_mark.line + 1
            if key in lines:
                raise BadClaims(f"{key!r} stands in {self.file} twice, in lines {lines[key]} and {line}: rename one")
            lines[key] = line
        return super().construct_mapping(node, deep)


def _row(loader: _Strict, node: yaml.MappingNode) -> Iterator[Row]:
    row = Row()
    row.line = node.start_mark.line + 1
    yield row
    row.update(loader.construct_mapping(node))


_Strict.add_constructor("tag:yaml.org,2002:map", _row)


def read_yaml(text: str | bytes, file: str) -> Any:
    """What a file says, its tables as ``Row``.

    Raises:
        BadClaims: it is no UTF-8 or no YAML, or a key stands twice; the sentence names file and line.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        return yaml.load(text, type("_Strict", (_Strict,), {"file": file}))
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise BadClaims(f"{file}, line {line}: this is no UTF-8: save the file as UTF-8") from error
    except yaml.YAMLError as error:
        mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        place = f"{file}, line {mark.line + 1}" if mark else file
        said = " ".join(said.split())
        raise BadClaims(f"{place}: this is no YAML ({said}): compare quotes and indents with other rows") from error
    except RecursionError:
        raise BadClaims(f"{file}: it is nested too deeply to be read: look for brackets that are not closed") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, BadClaims):
            raise
        raise BadClaims(f"{file}: a key or value of it cannot be read ({error}): write it in quotes") from error


@contextlib.contextmanager
def placed(file: str, row: Any) -> Iterator[None]:
    """Faults found in the block are told with the row's place."""
    place = f"{file}, line {row.line}" if isinstance(row, Row) else file
    try:
        yield
    except BadClaims as error:
        raise BadClaims(f"{place}: {error}") from error


def check_kinds(row: Mapping[str, Any], kinds: Mapping[str, str], what: str) -> None:
    """Require values of the kinds that belong to their keys: "text", "texts" (a list), "named texts", "yes or no",
    "number"; a key without a kind may have any."""
    for key, value in row.items():
        kind = kinds.get(key)
        if kind is not None and not _IS[kind](value):
            raise BadClaims(f"{key} of {what} must be {_SAID[kind]}, got {value!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


_IS = {
    "text": _is_text,
    "texts": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "text or texts": lambda value: _is_text(value) or (isinstance(value, list) and value and all(map(_is_text, value))),
    "named texts": lambda value: isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()])),
    "tables": lambda value: isinstance(value, list) and all(isinstance(one, Mapping) for one in value),
    "named tables": lambda value: isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values()),
    "yes or no": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
_SAID = {
    "text": "text",
    "texts": "a list of texts",
    "text or texts": "a text or a list of them",
    "named texts": "a table of names and texts",
    "tables": "a list of tables of keys and values",
    "named tables": "a table of named tables",
    "yes or no": "true or false",
    "number": "a whole number",
}
