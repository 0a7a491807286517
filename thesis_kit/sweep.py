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
            an item. Shares are kept beside it until all are done.
        settings: what the records depend on besides the items. A file made with other settings is refused.
        rank, world_size: which share of how many this process does; from the environment (torchrun) unless given.
        text: what the progress bar says. progress: show it; None follows the session.

    Returns:
        The records in the order of the items, each with its "key"; None where other processes are still at work.

    Raises:
        ValueError: keys that repeat, a share that does not exist, another process at the same share, or a file that was
            made with other settings or items.
        DamagedFile: a kept record is not what was written.
    """
    items = dict(_pairs(items))
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0 … {world_size - 1} for world_size = {world_size}, got {rank}")
    files = _Files(Path(path), {"settings": dict(settings or {}), "items": digest(list(items)), "n": len(items)})
    mine = [key for place, key in enumerate(items) if place % world_size == rank]
    with files.share(rank, world_size) as share:
        with files.turn():
            if (merged := files.merged()) is not None:
                share.discard()
                return merged
            done = files.records()
        left = [key for key in mine if key not in done]
        with track(text, len(mine), progress, start=len(mine) - len(left)) as bar:
            for key in left:
                share.append({**work(items[key]), "key": key})
                bar.advance()
    return files.merge(list(items))


def _pairs(items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen = set()
    for key, item in items.items() if isinstance(items, Mapping) else items:
        if not isinstance(key, str):
            raise ValueError(f"keys of items must be strings, got {key!r}")
        if key in seen:
            raise ValueError(f"two items have the key {key!r}: give each its own")
        seen.add(key)
        yield key, item


class _Share:
    """A file to which one process appends lines."""

    def __init__(self, path: Path, header: bytes):
        self.path = path
        kept = _whole_lines(path)
        if not kept:
            write_atomic(path, header + b"\n")
        elif kept != path.read_bytes():  # the process was killed in the middle of a line
            write_atomic(path, kept)

    def append(self, record: dict) -> None:
        """Hand one record to the operating system, which a killed process cannot take back."""
        with open(self.path, "ab") as file:
            file.write(canonical([record, digest(record)[:16]]) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Take the share away: everything is merged."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are still there
            self.path.parent.rmdir()


def _whole_lines(path: Path) -> bytes:
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


class _Files:
    """The merged file of a sweep, and the shares beside it."""

    def __init__(self, path: Path, header: dict):
        self.path, self.header = path, canonical(header)
        self.folder = path.with_name(f"{path.name}.shares")

    def turn(self) -> contextlib.AbstractContextManager:
        """Nobody merges, or looks what is done, at the same time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return only_writer(self.path, wait=True)

    @contextlib.contextmanager
    def share(self, rank: int, world_size: int) -> Iterator[_Share]:
        """This process's share, which no other process writes meanwhile."""
        for other in (self.path, *self._shares()):
            if header := _whole_lines(other).splitlines()[:1]:
                self._check(header[0], other)
        path = self.folder / f"{rank}-of-{world_size}"
        with only_writer(path):
            yield _Share(path, self.header)

    def _shares(self) -> list[Path]:
        return sorted(self.folder.glob("*-of-*"))

    def _check(self, header: bytes, path: Path) -> None:
        if header != self.header:
            raise ValueError(
                f"{path} belongs to a sweep with other settings or items: name another file, or delete it to begin anew"
            )

    def records(self) -> dict[str, dict]:
        """What all shares hold, by key."""
        found: dict[str, dict] = {}
        for path in self._shares():
            header, *lines = _whole_lines(path).splitlines() or [self.header]
            self._check(header, path)
            for line in lines:
                record = _record(line, path)
                found[record["key"]] = record
        return found

    def merged(self) -> list[dict] | None:
        """The records of the merged file, None while there is none."""
        if not self.path.exists():
            return None
        header, *lines = self.path.read_bytes().splitlines() or [b""]
        self._check(header, self.path)
        return [_record(line, self.path) for line in lines]

    def merge(self, keys: list[str]) -> list[dict] | None:
        """Put the shares together if they are complete."""
        with self.turn():
            if (merged := self.merged()) is not None:  # another process was faster
                return merged
            records = self.records()
            if any(key not in records for key in keys):
                return None
            lines = [self.header, *(canonical([records[key], digest(records[key])[:16]]) for key in keys)]
            write_atomic(self.path, b"\n".join(lines) + b"\n")
            for path in self._shares():
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another process has just begun, and will find that all is done
                self.folder.rmdir()
        return [records[key] for key in keys]


def _record(line: bytes, path: Path) -> dict:
    try:
        record, said = json.loads(line)
        if digest(record)[:16] == said:
            return record
    except (ValueError, TypeError):
        pass
    raise DamagedFile(f"{path.name} holds a line that is not what was written: delete that line, and it is done again")
