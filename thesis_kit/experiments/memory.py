"""Work that several recorded runs share, such as a source network, done once and kept between processes.

What is kept is a pure function of its settings and of the measuring code: both are in its file's name, so nothing
stale is ever read. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from thesis_kit.data.photos import default_root
from thesis_kit.files import digest, seal, unseal, write_atomic
from thesis_kit.reporting.provenance import modules_hash


class Memory:
    """A folder of finished work for one version of the code of ``module``."""

    def __init__(self, module: str, folder: str | os.PathLike | None = None):
        self.folder = Path(folder or default_root() / "runs") / modules_hash(module)[:16]

    @contextlib.contextmanager
    def place(self, settings: dict[str, Any], suffix: str) -> Iterator[Path]:
        """The file for work with these settings; a second process waits until the first has left the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{digest(settings)[:24]}{suffix}"
        with open(path.with_suffix(".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path

    def recall(self, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
        """What ``compute`` returned for these settings before, or returns now; anything JSON can hold."""
        with self.place(settings, ".json") as path:
            if path.exists():
                return json.loads(unseal(path.read_bytes(), path))
            value = compute()
            write_atomic(path, seal(json.dumps(value).encode()))
            return value
