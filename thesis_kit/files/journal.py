"""A journal: a file of JSON lines that grows by one record at a time, each kept as soon as it is there.

The first line says what the records belong to. Every other line is a record with the beginning of its SHA-256. A kill
in the middle of a line costs that line; a file that vanishes under the writer's hands is written again from what is in
memory, so that a record that was kept once stays kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thesis_kit.files.documents import parse_json
from thesis_kit.files.locks import WriteFailed, cannot, check_can_hold
from thesis_kit.files.sealing import DamagedFile, canonical, digest
from thesis_kit.files.writing import only_writer, write_atomic


class OtherRun(ValueError):
    """A file belongs to another run: other settings, data or model."""


def differences(kept: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What settings were and are, a phrase for each that differs; those inside settings by a dotted name."""
    found = []
    for key in [*kept, *(key for key in given if key not in kept)]:
        was, now = kept.get(key), given.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{prefix}{key}.")
        elif was != now:
            found.append(f"{prefix}{key} was {_short(was)}, is {_short(now)}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:12]}…'" if isinstance(value, str) and len(value) == 64 else text


class Journal:
    """Records by key, in a file that other processes may read meanwhile.

    Args:
        path: of the file. header: what the records belong to, as JSON can hold it.
        what: how an error sentence calls the work, such as "sweep".
        known: records by key that are known already, shared with other journals of the same work.
    """

    def __init__(
        self, path: str | os.PathLike, header: Mapping[str, Any], *, what: str = "run",
        known: dict[str, dict] | None = None,
    ):  # fmt: skip
        self.path, self.header, self.what = Path(path), canonical(header), what
        self.known: dict[str, dict] = {} if known is None else known
        self._read = (0, 0, 0)  # the file that was read last (its inode), how many bytes of it, and lines

    @contextlib.contextmanager
    def held(self) -> Iterator[Journal]:
        """The only writer of the file for the length of the block; what is in it is known then."""
        with only_writer(self.path):
            self.begin()
            yield self

    def begin(self) -> None:
        """Take in what is there, make the file, and cut off what a kill in the middle of a line left in it."""
        self.look()
        kept = self.path.read_bytes() if self.path.exists() else b""
        whole = kept[: kept.rfind(b"\n") + 1] or self.header + b"\n"
        if whole != kept:
            write_atomic(self.path, whole)

    def once(self, key: str, make: Callable[[], Mapping[str, Any]]) -> dict:
        """The record of a key, made and kept now unless it was before."""
        if key not in self.known:
            self.append(key, make())
        return self.known[key]

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a record: when this returns, a kill cannot take it back.

        Raises:
            WriteFailed: the file cannot be written; the records before are still in it.
            ValueError: the record has a key "key" of its own, or holds what JSON does not.
        """
        if "key" in record:
            raise ValueError(f'the record of {key!r} has a "key" of its own: give it another name')
        record = parse_json(canonical({**record, "key": key}), self.path)  # as it will be read
        try:
            self._append(_line(record))
        except FileNotFoundError:
            self.known[key] = record
            self.vanished()
        except OSError as error:
            raise WriteFailed(cannot(self.path, error, "the records before this one are kept")) from error
        self.known[key] = record

    def vanished(self) -> None:
        """Somebody removed the file while it was written: write it again, from memory."""
        self.write()

    def _append(self, line: bytes) -> None:
        with open(os.open(self.path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a disk that became full takes a part
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), size)
                raise

    def write(self, order: list[str] | None = None) -> None:
        """Write the whole file anew from what is known."""
        records = self.known.values() if order is None else [self.known[key] for key in order]
        text = b"".join([self.header + b"\n", *map(_line, records)])
        if not self.path.exists() or self.path.read_bytes() != text:
            write_atomic(self.path, text)

    def look(self) -> None:
        """Take in what is new in the file, if there is one.

        Raises:
            OtherRun: its records belong to something else. DamagedFile: a line is not what was written.
        """
        try:
            self._take_in()
        except DamagedFile:
            if self._read == (0, 0, 0):
                raise
            self._read = (0, 0, 0)  # perhaps it was written anew meanwhile, in the place on disk of the old one
            self._take_in()

    def _take_in(self) -> None:
        check_can_hold(self.path, self.what)
        try:
            with open(self.path, "rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                place, lines = self._read[1:] if self._read[0] == inode else (0, 0)
                file.seek(place)
                data = file.read()
        except FileNotFoundError:
            return
        if place == 0 and b"\n" not in data and not self.header.startswith(data):
            self._refuse(data)  # no half line of ours
        data = data[: data.rfind(b"\n") + 1]  # what a killed process left unfinished is no line
        for number, line in enumerate(data.split(b"\n")[:-1], start=lines + 1):
            if number > 1:
                record = _record(line, self.path, number)
                self.known[record["key"]] = record
            elif line != self.header:
                self._refuse(line)
        self._read = inode, place + len(data), lines + data.count(b"\n")

    def _refuse(self, header: bytes) -> None:
        with contextlib.suppress(DamagedFile):
            kept, given = (parse_json(text, self.path) for text in (header, self.header))
            if isinstance(kept, dict) and (found := differences(kept, given)):
                raise OtherRun(
                    f"{self.path} belongs to a {self.what} with other settings or items ({'; '.join(found)}): name "
                    "another file, or delete it to begin anew"
                )
        raise DamagedFile(
            f"{self.path}, line 1: this is not the first line of a {self.what}: name another file, or delete this one"
        )


def _line(record: dict) -> bytes:
    return canonical([record, digest(record)[:16]]) + b"\n"


def _record(line: bytes, path: Path, number: int) -> dict:
    with contextlib.suppress(DamagedFile, ValueError, TypeError):
        record, said = parse_json(line, path)
        if isinstance(record, dict) and isinstance(record.get("key"), str) and digest(record)[:16] == said:
            return record
    raise DamagedFile(f"{path}, line {number}, is not what was written: delete that line, and it is done again")
