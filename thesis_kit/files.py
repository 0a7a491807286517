"""Files that are either whole or not there, and that say so when somebody changed them.

A result or checkpoint is written to a temporary file beside its target, forced to disk and then renamed, so
that a kill, a crash or a full disk leaves the old file untouched. A sealed file ends in the SHA-256 of what
stands before it; a JSON document is hashed in one canonical form. Two writers of one file take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MARK = b"\nthesis_kit sha256 "
_TRAILER = len(_MARK) + 64


class DamagedFile(ValueError):
    """A file is not what was written: altered, truncated or of another kind."""


class WriteFailed(OSError):
    """A file could not be written; whatever stood under its name before is still there, unchanged."""


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Put ``data`` under ``path`` in one step: a reader sees the old file or the new one, never a part of
    either.

    Raises:
        WriteFailed: the folder cannot be written or the disk is full; no temporary file is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise WriteFailed(
                f"could not write {path} ({error.strerror or error}): "
                "free some space or choose a folder you may write to; nothing was changed"
            ) from error
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # the rename itself survives a power cut where folders can be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def seal(payload: bytes) -> bytes:
    """Append the SHA-256 of ``payload``, so that ``unseal`` can tell whether anything changed."""
    return payload + _MARK + hashlib.sha256(payload).hexdigest().encode()


def unseal(data: bytes, name: str | os.PathLike) -> bytes:
    """Return the payload of sealed ``data``; ``name`` is what the error sentence calls it.

    Raises:
        DamagedFile: the trailer is missing (the file was truncated or never sealed) or does not fit the
        content.
    """
    payload, trailer = data[:-_TRAILER], data[-_TRAILER:]
    if not trailer.startswith(_MARK):
        raise DamagedFile(
            f"{name} is incomplete or not a thesis_kit file: its SHA-256 trailer is missing; make it again"
        )
    if hashlib.sha256(payload).hexdigest().encode() != trailer[len(_MARK) :]:
        raise DamagedFile(
            f"{name} was altered after it was written: its content does not fit its SHA-256; make it again"
        )
    return payload


def canonical(value: Any) -> bytes:
    """JSON in the one form that hashes are taken of; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


@contextlib.contextmanager
def only_writer(path: str | os.PathLike, *, wait: bool = False, beside: bool = False) -> Iterator[None]:
    """Keep ``path`` to oneself for the length of the block, and sweep up what a killed writer left beside it.

    Args:
        path: of the file.
        wait: until another writer has finished.
        beside: keep the lock in a hidden file beside ``path``, for writers that have folders for temporary files of
            their own; it stays there.

    Raises:
        ValueError: another process (or block) has it, and ``wait`` is not set.
    """
    path = Path(path)
    if sys.platform == "win32":  # no advisory locks there: two runs at once remain the reader's to avoid
        yield
        return
    import fcntl

    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    common = Path(tempfile.gettempdir()) / f"thesis_kit-{os.getuid()}-{key}.lock"
    with open(path.with_name(f".{path.name}.lock") if beside else common, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise ValueError(
                f"another run is writing {path.name}, or left a process behind that is: wait until it has finished"
            ) from error
        for part in path.parent.glob(f".{path.name}.*.part"):
            part.unlink(missing_ok=True)
        yield
