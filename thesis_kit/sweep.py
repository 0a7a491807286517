"""Long work over many items: one record an item, kept as soon as it is there, shared between processes.

``sweep`` calls a function on every item and appends what it returns to a file of JSON lines. A run that is killed goes
on where it stopped, losing nothing and doing nothing twice. Started under ``torchrun`` (or with RANK and WORLD_SIZE
set), each process takes its share of the items; whoever finishes last merges the shares. The merged file holds the
records in the order of the items, so it is the same, byte for byte, however often the work was broken off and however
many processes did it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thesis_kit.files import Busy, Journal, WriteFailed, digest, note, only_writer
from thesis_kit.files.locks import check_can_hold
from thesis_kit.identity import CannotTell, describe, tell
from thesis_kit.progress import track

_SHARE = re.compile(r"\d+-of-\d+")


def sweep(
    items: Mapping[str, Any] | Iterable[tuple[str, Any]], work: Callable[[Any], Mapping[str, Any]],
    path: str | os.PathLike, *, settings: Mapping[str, Any] | None = None, identity: str | None = None,
    rank: int | None = None, world_size: int | None = None, text: str = "sweeping", progress: bool | None = None,
) -> list[dict] | None:  # fmt: skip
    """Call ``work`` on every item and keep what it returns, resuming where an earlier call was broken off.

    The file belongs to this work on these items: to the function's name and code and to all that it refers to, such as
    the weights of a network among its arguments or the variables around it. Another work's file is refused.

    Args:
        items: key → item, or pairs of them; keys are different strings. Every process is given all items.
        work: from an item to a record that JSON can hold, without the key "key". It should depend on nothing but the
            item, the settings and what it refers to.
        path: of the merged file of JSON lines: a first line with what the records belong to, then one record an item.
            Shares are kept beside it, in a folder of its name, until all are done.
        settings: what the records depend on besides, as JSON can hold it; named where they differ.
        identity: what ``work`` and the items are, in place of looking into them. Whoever gives it answers for it: the
            settings must say everything that the records depend on, such as the hash of a model's weights.
        rank, world_size: which share of how many this process does; from the environment (torchrun) unless given. A run
            may be ended by another number of processes than began it. Where two numbers are at work at once, an item
            that both have begun is done twice, and kept once.
        text: what the progress bar says. progress: show it; None follows the session.

    Returns:
        The records in the order of the items, each with its "key"; None where items of other processes are not done.

    Raises:
        ValueError: keys that repeat, a share that does not exist, another process at the same share, a file that was
            made by other work, settings or items, a work that refers to something that cannot be told apart from
            others of its kind, or a record with a "key" of its own.
        DamagedFile: a kept record is not what was written. WriteFailed: a record cannot be kept.

    Examples:
        >>> from thesis_kit.sweep import sweep
        >>> sweep({"two": 2, "three": 3}, lambda number: {"square": number**2}, "squares.jsonl")
        [{'key': 'two', 'square': 4}, {'key': 'three', 'square': 9}]
    """
    items = dict(_pairs(items))
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0 … {world_size - 1} for world_size = {world_size}, got {rank}")
    about = {"settings": dict(settings or {}), **_belonging(work, items, identity)}
    check_can_hold(Path(path), "sweep")
    files = _Files(Path(path), about, list(items))
    if (found := files.finished()) is not None:
        return found
    mine = [key for place, key in enumerate(items) if place % world_size == rank]
    with files.telling():
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


def _belonging(work: Callable, items: dict[str, Any], identity: str | None) -> dict[str, Any]:
    """What records belong to, apart from the settings."""
    about = {"keys": digest(list(items)), "n": len(items)}
    if identity is not None:
        return {"work": identity, **about}
    try:
        return {"work": describe(work), "items": digest(tell(list(items.values()))), **about}
    except CannotTell as error:
        raise ValueError(
            f"a sweep must know what its records belong to, and nothing tells {error} apart from others of its kind: "
            "hand work plain values, tensors and networks, or say in settings what decides its records and in "
            "identity what it is"
        ) from None


class _Files:
    """The merged file of a sweep and the shares beside it; what any of them holds is known to all."""

    def __init__(self, path: Path, about: dict, keys: list[str]):
        self.path, self.about, self.keys = path, about, keys
        self.folder = path.with_name(f"{path.name}.shares")
        self.known: dict[str, dict] = {}
        self.merged = Journal(path, about, what="sweep", known=self.known)
        self._shares: dict[Path, Journal] = {}

    def finished(self) -> list[dict] | None:
        """The records where all are in the merged file; then nothing is done, and nothing need be writable."""
        self.merged.look()
        if not self._complete():
            return None
        if self.folder.exists():
            with contextlib.suppress(Busy, WriteFailed), only_writer(self.path):
                self._clear()
        return self._records()

    @contextlib.contextmanager
    def share(self, rank: int, world_size: int) -> Iterator[_Share]:
        """This process's share, which no other process writes meanwhile."""
        path = self.folder / f"{rank}-of-{world_size}"
        with only_writer(path):
            share = self._shares[path] = _Share(path, self)
            with only_writer(self.path, wait=True):  # nobody merges meanwhile
                self.look()
                if not self._complete():
                    share.begin()
            yield share

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """An interruption of the block says what is kept, as soon as there is a file."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as stop:
            begun = self.folder.is_dir() and any(_SHARE.fullmatch(file.name) for file in self.folder.iterdir())
            place = self.folder if begun else self.path
            if place.exists():
                done = f"{sum(key in self.known for key in self.keys):,} of {len(self.keys):,} items"
                note(stop, f"{place} keeps {done}: the same call goes on from there")
            raise

    def done(self, key: str) -> bool:
        """Whether some process has kept a record of this item."""
        if key not in self.known:
            self.look()
        return key in self.known

    def look(self) -> None:
        """Take in what is new: shares first, for a process that merges writes the merged file before they go."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in sorted(self.folder.iterdir()):
                if _SHARE.fullmatch(path.name):
                    new = Journal(path, self.about, what="sweep", known=self.known)
                    self._shares.setdefault(path, new).look()
        self.merged.look()

    def merge(self) -> list[dict] | None:
        """The records in order, put into one file, if they are complete."""
        self.look()
        if not self._complete():
            return None
        with only_writer(self.path, wait=True):
            self.merged.write(self.keys)
            self._clear()
        return self._records()

    def _clear(self) -> None:
        """Remove the shares, those of a run that was killed while it merged too; a live process takes its own lock."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if _SHARE.fullmatch(path.name):
                    path.unlink(missing_ok=True)
                elif (name := path.name[1:].partition(".")[0]) and _SHARE.fullmatch(name):
                    with contextlib.suppress(Busy, OSError), only_writer(self.folder / name):
                        pass  # which removes a dead one's lock, and what was half written
            self.folder.rmdir()

    def _complete(self) -> bool:
        return all(key in self.known for key in self.keys)

    def _records(self) -> list[dict]:
        return [self.known[key] for key in self.keys]


class _Share(Journal):
    """The file to which one process appends."""

    def __init__(self, path: Path, files: _Files):
        super().__init__(path, files.about, what="sweep", known=files.known)
        self._files = files

    def vanished(self) -> None:
        """Others have finished and merged meanwhile, or somebody removed the folder."""
        merged = Journal(self._files.path, self._files.about, what="sweep")
        merged.look()
        if not all(key in merged.known for key in self._files.keys):
            self.write()
