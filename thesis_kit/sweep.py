"""Long work over many items: one record an item, kept as soon as it is there, shared between processes.

``sweep`` calls a function on every item and appends what it returns to a file of JSON lines. A run that is killed goes
on where it stopped, losing nothing and doing nothing twice. Started under ``torchrun`` (or with RANK and WORLD_SIZE
set), each process takes its share of the items; whoever finishes last merges the shares. The merged file holds the
records in the order of the items, so it is the same, byte for byte, however often the work was broken off and however
many processes did it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thesis_kit.files import DamagedFile, canonical, digest, only_writer, write_atomic
from thesis_kit.progress import track


def sweep(
    items: Mapping[str, Any] | Iterable[tuple[str, Any]], work: Callable[[Any], Mapping[str, Any]],
    path: str | os.PathLike, *, settings: Mapping[str, Any] | None = None, rank: int | None = None,
    world_size: int | None = None, text: str = "sweeping", progress: bool | None = None,
) -> list[dict] | None:  # fmt: skip
    """Call ``work`` on every item and keep what it returns, resuming where an earlier call was broken off.

    Args:
        items: key → item, or pairs of them; keys are different strings. Every process is given all items.
        work: from an item to a record that JSON can hold, without the key "key". It should depend on nothing but the
            item and the settings.
        path: of the merged file of JSON lines: a first line with the settings and the number of items, then one record
            an item. Shares are kept beside it, in a folder of its name, until all are done.
        settings: what the records depend on besides the keys of the items. A file made with other settings or keys is
            refused.
        rank, world_size: which share of how many this process does; from the environment (torchrun) unless given. A run
            may be ended by another number of processes than began it. Where two numbers are at work at once, an item
            that both have begun is done twice, and kept once.
        text: what the progress bar says. progress: show it; None follows the session.

    Returns:
        The records in the order of the items, each with its "key"; None where other processes are still at work.

    Raises:
        ValueError: keys that repeat, a share that does not exist, another process at the same share, a file that was
            made with other settings or keys, or a record with a "key" of its own.
        DamagedFile: a kept record is not what was written.
    """
    items = dict(_pairs(items))
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0 … {world_size - 1} for world_size = {world_size}, got {rank}")
    header = {"settings": dict(settings or {}), "items": digest(list(items)), "n": len(items)}
    files = _Files(Path(path), header, list(items))
    mine = [key for place, key in enumerate(items) if place % world_size == rank]
    with files.share(rank, world_size) as share, track(text, len(mine), progress) as bar:
        for key in mine:
            if not files.done(key):
                share.append(key, work(items[key]))
            bar.advance()
    return files.merge()


def _pairs(items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen = set()
    for key, item in items.items() if isinstance(items, Mapping) else items:
        if not isinstance(key, str):
            raise ValueError(f"keys of items must be strings, got {key!r}")
        if key in seen:
            raise ValueError(f"two items have the key {key!r}: give each its own")
        seen.add(key)
        yield key, item


class _Files:
    """The merged file of a sweep and the shares beside it; whoever reads or writes any of them has the turn."""

    def __init__(self, path: Path, header: dict, keys: list[str]):
        self.path, self.header, self.keys = path, canonical(header), keys
        self.folder = path.with_name(f"{path.name}.shares")
        self._known: dict[str, dict] = {}
        self._read: dict[Path, int] = {}  # bytes of each share that ``_known`` has

    def turn(self) -> contextlib.AbstractContextManager:
        """Nobody else reads or writes meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return only_writer(self.path, wait=True, beside=True)

    @contextlib.contextmanager
    def share(self, rank: int, world_size: int) -> Iterator[_Share]:
        """This process's share, which no other process writes meanwhile."""
        path = self.folder / f"{rank}-of-{world_size}"
        with self.turn():
            self._look()
            self.folder.mkdir(parents=True, exist_ok=True)
        with only_writer(path, beside=True):
            share = _Share(path, self)
            with self.turn():
                if not self._complete():
                    share.begin()
            yield share

    def done(self, key: str) -> bool:
        """Whether some process has kept a record of this item."""
        with self.turn():
            self._look()
        return key in self._known

    def merge(self) -> list[dict] | None:
        """The records in order, put into one file, if they are complete."""
        with self.turn():
            self._look()
            if not self._complete():
                return None
            records = [self._known[key] for key in self.keys]
            text = b"\n".join([self.header, *map(_line, records)]) + b"\n"
            if not self.path.exists() or self.path.read_bytes() != text:
                write_atomic(self.path, text)
            for path in self.folder.glob("*"):  # shares, those of a run killed while it merged too, and locks of shares
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        return records

    def _complete(self) -> bool:
        return all(key in self._known for key in self.keys)

    def _look(self) -> None:
        """Take in what is new."""
        shares = sorted(path for path in self.folder.glob("*-of-*") if not path.name.startswith("."))
        for path in (self.path, *shares):
            if path.exists() and path.stat().st_size > self._read.get(path, 0):
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        data = path.read_bytes()
        data = data[: data.rfind(b"\n") + 1]  # what a killed process left unfinished is no line
        header, *lines = data.splitlines() or [self.header]
        if header != self.header:
            raise ValueError(
                f"{path} belongs to a sweep with other settings or items: name another file, or delete it and "
                f"{self.folder.name} to begin anew"
            )
        for line in data[self._read.get(path, 0) :].splitlines() if path in self._read else lines:
            record = _record(line, path)
            self._known[record["key"]] = record
        self._read[path] = len(data)


class _Share:
    """A file to which one process appends lines."""

    def __init__(self, path: Path, files: _Files):
        self.path, self._files = path, files

    def begin(self) -> None:
        """Make the file, or cut off what a kill in the middle of a line left in it."""
        kept = self.path.read_bytes() if self.path.exists() else b""
        kept = kept[: kept.rfind(b"\n") + 1] or self._files.header + b"\n"
        write_atomic(self.path, kept)

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Hand one record to the operating system, which a killed process cannot take back.

        If others have finished and merged meanwhile, the share is gone and the record not needed.
        """
        if "key" in record:
            raise ValueError(f'the record of {key!r} has a "key" of its own: give it another name')
        record = json.loads(canonical({**record, "key": key}))  # as it will be read
        with self._files.turn(), contextlib.suppress(FileNotFoundError):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            with open(handle, "ab") as file:
                file.write(_line(record) + b"\n")
                file.flush()
                os.fsync(file.fileno())


def _line(record: dict) -> bytes:
    return canonical([record, digest(record)[:16]])


def _record(line: bytes, path: Path) -> dict:
    try:
        record, said = json.loads(line)
        if digest(record)[:16] == said:
            return record
    except (ValueError, TypeError):
        pass
    raise DamagedFile(f"{path.name} holds a line that is not what was written: delete that line, and it is done again")
