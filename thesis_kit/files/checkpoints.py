"""Checkpoints: where a long run stands, in a sealed file that knows which run it belongs to.

A run says when it stands at a place that it could go on from (``reached``). The state there is copied, written when it
is time, and written when the run is interrupted, wherever between two such places that happens. What a file holds is
read back only by a run of the same kind and settings.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thesis_kit.files.journal import OtherRun, differences
from thesis_kit.files.locks import check_can_hold
from thesis_kit.files.sealing import DamagedFile
from thesis_kit.files.tensors import read_tensors, write_tensors
from thesis_kit.files.writing import note, only_writer

_FORMAT = 2
_KEYS = {"kind", "format", "settings", "told", "finished", "state"}


class Checkpoint:
    """The file of one run.

    Args:
        path: of the file; without one nothing is kept.
        kind: of the run, such as "training run": what an error sentence calls it.
        settings: everything that decides how the run goes on, as JSON can hold it.
        every: write at most every so many seconds, but at the end and on an interruption in any case.
        device: where tensors are put that are read.
        pack: brings a state into the form in which it is written; as it is unless given.
    """

    def __init__(
        self, path: str | os.PathLike | None, kind: str, settings: Mapping[str, Any], *, every: float = 30.0,
        device: torch.device | str = "cpu", pack: Callable[[Any], Any] | None = None,
    ):  # fmt: skip
        self.path = None if path is None else Path(path)
        self.kind, self._every, self._device = kind, every, device
        self.settings = json.loads(json.dumps(settings, allow_nan=False))  # as it will be read
        self._pack = pack or (lambda state: state)
        self._state: Any = None  # at the place that was reached last
        self._copy: Any = None  # memory for it
        self._told, self._is_written, self._is_finished = "", False, False
        self._written_at = time.monotonic()

    @contextlib.contextmanager
    def held(self) -> Iterator[Any]:
        """Yields the state that the file holds, or None. Inside the block the file belongs to nobody else.

        A finished run is only read, without a lock, so that it can lie in a folder that nobody may write to. On Ctrl-C
        and on ``SystemExit`` the place reached last is kept, and the exception says so in a note.

        Raises:
            OtherRun: the file is the checkpoint of another run; what differs is named. DamagedFile: it was altered, or
            is no checkpoint. Busy: another process works on it. WriteFailed: the folder cannot be written to.
        """
        if self.path is None:
            yield None
            return
        kept = self._read()
        if kept is not None and kept["finished"]:
            yield kept["state"]
            return
        with only_writer(self.path):
            kept = self._read()  # another process may have finished it meanwhile
            if kept is not None:
                self._told, self._is_written = kept["told"], True
            try:
                yield None if kept is None else kept["state"]
            except (KeyboardInterrupt, SystemExit) as stop:
                self._keep(stop)
                raise
            if self._state is not None and not self.path.exists():  # somebody has removed it meanwhile
                self._write(self._is_finished)

    def reached(self, state: Any, told: str, *, finished: bool = False, changing: bool = True) -> None:
        """The run stands at a place that it could go on from.

        Args:
            state: tensors, numbers and texts in dicts and lists, or what ``pack`` makes such of.
            told: the place in words, such as "37 of 100 updates".
            finished: nothing is left to do.
            changing: the run goes on changing the tensors, which are copied therefore.
        """
        if self.path is None:
            return
        self._state, self._told, self._is_finished, self._is_written = state, told, finished, False
        if changing:
            self._copy = _copied(state, self._copy)  # interrupted here, ``state`` itself is still what it was
            self._state = self._copy
        if finished or time.monotonic() - self._written_at >= self._every:
            self._write(finished)

    def _write(self, finished: bool) -> None:
        said = {"settings": self.settings, "told": self._told, "finished": finished,
                "state": self._pack(self._state)}  # fmt: skip
        write_tensors(self.path, {"kind": self.kind, "format": _FORMAT, **said})
        self._written_at, self._is_written = time.monotonic(), True

    def _keep(self, stop: BaseException) -> None:
        """Write the place reached last, if the file does not have it, and say what is kept."""
        try:
            if self._state is not None and not self._is_written:
                self._write(self._is_finished)
        except (OSError, ValueError) as error:
            note(stop, f"{self.path} does not hold what was done last: {error}")
            return
        if self._is_written:
            note(stop, f"{self.path} keeps {self._told}: the same call goes on from there")

    def _read(self) -> dict[str, Any] | None:
        check_can_hold(self.path, self.kind)
        if not self.path.exists():
            return None
        kept = read_tensors(self.path, device=self._device)
        if not isinstance(kept, dict) or not kept.keys() >= _KEYS or kept["format"] != _FORMAT:
            raise DamagedFile(
                f"{self.path} is no checkpoint, or one of another version of thesis_kit: remove it or name another file"
            )
        if kept["kind"] != self.kind:
            both = f"a {kept['kind']}, not of a {self.kind}"
            raise OtherRun(f"{self.path} is the checkpoint of {both}: remove it or name another file")
        if found := differences(kept["settings"], self.settings):
            noun = self.kind.rpartition(" ")[2]
            raise OtherRun(
                f"{self.path} is the checkpoint of another {noun} ({'; '.join(found)}): remove it or name another file"
            )
        return kept


def _copied(new: Any, old: Any) -> Any:
    """A copy of a tree of tensors, in the memory of an old copy where that fits."""
    if isinstance(new, Tensor):
        fits = isinstance(old, Tensor) and (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)
        return old.copy_(new.detach()) if fits else new.detach().clone()
    if isinstance(new, dict):
        made, old = copy.copy(new), old if isinstance(old, dict) else {}  # a state dict has more than its entries
        made.update({key: _copied(value, old.get(key)) for key, value in new.items()})
        return made
    if isinstance(new, list | tuple):
        old = old if isinstance(old, list | tuple) else ()
        return type(new)(_copied(value, old[i] if i < len(old) else None) for i, value in enumerate(new))
    return new
