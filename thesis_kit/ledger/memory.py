"""Work that several recorded runs share, such as a source network, done once and kept between processes.

What is kept is a pure function of its settings, of the code, and of what decides how sums are rounded (processor,
threads, version of torch). All of it is in its place's name, the code by its commit, so nothing stale is ever read. The
folder may be deleted at any time; what was in it is then measured anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from thesis_kit.data.photos import default_root
from thesis_kit.files import digest, only_writer, seal, unseal, write_atomic
from thesis_kit.files.tensors import read_tensors, write_tensors
from thesis_kit.ledger.provenance import commit, machine

FOLDER_VARIABLE = "TK_RUNS"  # of the environment: names another folder than ``default_root() / "runs"``
_ROUNDING = ("processor", "threads", "device", "torch")


class Memory:
    """A folder of finished work for one state of the code, on a device like this one."""

    def __init__(self, folder: str | os.PathLike | None = None, *, device: torch.device | str = "cpu"):
        self.device = device
        here = machine(str(device), torch.get_num_threads())
        made_by = {"code": code(), **{key: here[key] for key in _ROUNDING}}
        root = folder or os.environ.get(FOLDER_VARIABLE) or default_root() / "runs"
        self.folder = Path(root) / digest(made_by)[:16]

    @contextlib.contextmanager
    def place(self, settings: dict[str, Any], suffix: str) -> Iterator[Path]:
        """The file for work with these settings; a second process waits until the first has left the block."""
        path = self._path(settings, suffix)
        with only_writer(path.with_name(f"{path.name}.turn"), wait=True):  # the file itself is locked by who writes it
            yield path

    def _path(self, settings: dict[str, Any], suffix: str) -> Path:
        return self.folder / f"{digest(settings)[:24]}{suffix}"

    def recall(self, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
        """What ``compute`` returned for these settings before, or returns now, in the form JSON gives it.

        Raises:
            DamagedFile: what was kept is not what was written. ValueError: ``compute`` returned NaN or infinity.
        """
        path = self._path(settings, ".json")
        if not path.exists():
            with self.place(settings, ".json"):
                if not path.exists():  # another process may have made it meanwhile
                    write_atomic(path, seal(json.dumps(compute(), allow_nan=False).encode()))
        return json.loads(unseal(path.read_bytes(), path))

    def recall_tensors(self, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
        """As ``recall``, for tensors, numbers and texts in dicts and lists; read to the memory's device."""
        path = self._path(settings, ".pt")
        if not path.exists():
            with self.place(settings, ".pt"):
                if not path.exists():
                    write_tensors(path, compute())
        return read_tensors(path, device=self.device)


@cache
def code() -> str:
    """The state of the code: its commit, and when a file of it was changed last where it is no commit's."""
    at = commit()
    if at is not None and not at.endswith("+"):
        return at
    changed = max(path.stat().st_mtime for path in Path(__file__).parents[1].rglob("*.py"))
    return f"{at} {changed}"
