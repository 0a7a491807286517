"""Sealed JSON documents, which people can read and version control can follow, and JSON that is read strictly.

A document says what kind it is and carries the SHA-256 of its content, so that a value that was edited, cut short or
belongs elsewhere is refused in a sentence instead of being believed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from thesis_kit.files.sealing import DamagedFile, canonical, digest
from thesis_kit.files.writing import settle, write_atomic

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}]|-?\b(?:NaN|Infinity)\b')
_FORMAT = 1
_Value = TypeVar("_Value", bound="Saved")


class _Repeated(ValueError):
    """A key that stands twice in one object."""


def parse_json(data: bytes | str, name: str | os.PathLike) -> Any:
    """Read JSON as it was meant: UTF-8, every key once, no NaN and no infinity.

    Args:
        data: the text. name: what the error sentence calls the file.

    Raises:
        DamagedFile: the text is not that; the sentence names the file and the line.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DamagedFile(f"{name}, line {line}: this is no UTF-8: restore the file") from error
    except json.JSONDecodeError as error:
        raise DamagedFile(f"{name}, line {error.lineno}: this is no JSON ({error.msg}): restore the file") from error
    except _Repeated as error:
        raise DamagedFile(f"{name}, {_fault(text)}: restore the file") from error
    except RecursionError:
        raise DamagedFile(f"{name} is nested too deeply to be what was written: restore the file") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated
    return found


def _refused(constant: str) -> None:
    raise _Repeated(constant)


def _fault(text: str) -> str:
    """Where in JSON a key stands twice or a number is none."""
    seen: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        line, found = text.count("\n", 0, token.start()) + 1, token.group()
        if found == "{":
            seen.append(set())
        elif found == "}":
            seen.pop()
        elif token.group(1):
            key = json.loads(found.rpartition(":")[0])
            if key in seen[-1]:
                return f"line {line}: the key {key!r} stands twice"
            seen[-1].add(key)
        elif not found.startswith('"'):
            return f"line {line}: {found} is no number"
    return "line 1: a key stands twice"


def readable(document: Mapping[str, Any]) -> bytes:
    """JSON with a line an entry, and a line an element of a list."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(_text(element) for element in value) + "\n ]"
        else:
            text = _text(value)
        lines.append(f" {_text(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_document(path: str | os.PathLike, kind: str, content: Mapping[str, Any]) -> None:
    """Write a sealed document in one step.

    Args:
        path: of the file. kind: what it is, which ``read_document`` asks for.
        content: what JSON can hold, with string keys other than "kind", "format" and "sha256".

    Raises:
        ValueError: NaN or infinity. WriteFailed: the file could not be written; the old one is still there.
    """
    document = {"kind": kind, "format": _FORMAT, **content}
    document = json.loads(canonical(document))  # as it will be read
    write_atomic(path, readable({**document, "sha256": digest(document)}))


def read_document(path: str | os.PathLike, kind: str) -> dict[str, Any]:
    """Read a sealed document; return its content.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it was altered, is of another kind or of another version of the format.
    """
    settle(path)
    document = parse_json(Path(path).read_bytes(), path)
    if not isinstance(document, dict) or not {"kind", "format", "sha256"} <= document.keys():
        raise DamagedFile(f"{path} is not a thesis_kit document: it says neither its kind nor its SHA-256")
    if document["kind"] != kind:
        raise DamagedFile(f"{path} holds {document['kind']}, not {kind}: name another file")
    said = document.pop("sha256")
    if digest(document) != said:
        raise DamagedFile(f"{path} was altered after it was written, its SHA-256 does not fit: restore it")
    if document["format"] != _FORMAT:
        raise DamagedFile(f"{path} has format {document['format']}, this thesis_kit reads format {_FORMAT}")
    return {key: value for key, value in document.items() if key not in ("kind", "format")}


class Saved:
    """A value that can be kept in a file: a subclass says what it is made of (``record``) and how (``from_record``)."""

    def record(self) -> dict[str, Any]:
        """Everything the value is made of, as JSON can hold it."""
        raise NotImplementedError

    @classmethod
    def from_record(cls: type[_Value], record: Mapping[str, Any]) -> _Value:
        """The value that ``record`` came from."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike) -> None:
        """Keep the value as a sealed JSON document; an older one of the name is replaced in one step.

        Raises:
            WriteFailed: the file could not be written.
        """
        write_document(path, type(self).__name__, self.record())

    @classmethod
    def load(cls: type[_Value], path: str | os.PathLike) -> _Value:
        """The value that was saved under ``path``.

        Raises:
            FileNotFoundError: there is no such file. DamagedFile: it was altered, or holds something else.
        """
        record = read_document(path, cls.__name__)
        try:
            return cls.from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"{path} holds no {cls.__name__} that this thesis_kit can read ({error!r})") from error
