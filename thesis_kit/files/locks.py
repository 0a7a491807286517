"""Locks: a file has one writer at a time.

The lock is a hidden file beside the one that is written, so that it is found by whoever finds the file, whatever their
temporary folders; it goes when the writer has finished. A process that dies loses its locks with it. Taking a lock is
also how a folder that cannot be written to is noticed before the work rather than after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

_POLL = 0.02  # seconds between two looks at a lock that somebody has
_GLANCE = 0.2  # that one is waited for at least: a reader may be putting in order what a killed writer left
_TRIES = 5  # more, where a lock was given back while it was looked at
_LONGEST = 150  # bytes of a name that leave room for what is put around it
_held: set[tuple[Path, int, int]] = set()  # (file, process, thread): a forked child holds nothing


class WriteFailed(OSError):
    """A file could not be written; whatever stood under its name before is still there, unchanged."""


class Busy(ValueError):
    """Somebody else is writing the file."""


def target(path: str | os.PathLike) -> Path:
    """Where a path leads: of a link, to what it points at, which is what is locked and written."""
    path = Path(path)
    return path if is_device(path) else Path(os.path.realpath(path))


def is_device(path: Path) -> bool:
    """Whether there is something that is neither file nor folder, such as a pipe: it is written to, not replaced."""
    _, *parts = path.absolute().parts
    if parts[:1] == ["dev"] and parts[1:2] != ["shm"]:  # standard output is there, wherever it leads
        return path.exists()
    return path.exists() and not (path.is_file() or path.is_dir())


def check_can_hold(path: Path, what: str) -> None:
    """Refuse a path from which a run could not read what it kept: a folder, or a device.

    Raises:
        WriteFailed: it is one.
    """
    if not path.name or path.is_dir():
        raise WriteFailed(f"{path} is a folder: name a file to keep the {what} in")
    if is_device(path):
        raise WriteFailed(f"{path} is a device, from which no {what} could go on: name a file")


def beside(path: Path, ending: str) -> Path:
    """A hidden name beside a file, short enough wherever the file's own is."""
    name = os.fsencode(path.name)
    short = path.name if len(name) <= _LONGEST else sha256(name).hexdigest()[:32]
    return path.with_name(f".{short}.{ending}")


def holds(path: Path) -> bool:
    """Whether this thread is the only writer of a file (links followed)."""
    return (path, os.getpid(), threading.get_ident()) in _held


@contextlib.contextmanager
def alone(path: Path, wait: bool | float) -> Iterator[None]:
    """Have the lock of one file for the length of the block; ``writing.only_writer`` is what to call."""
    me, name = (path, os.getpid(), threading.get_ident()), beside(path, "lock")
    lock = FileLock(name, timeout=-1 if wait is True else max(_GLANCE, float(wait)), poll_interval=_POLL)
    if holds(path):  # to wait for oneself would take long
        raise Busy(_busy(path))
    try:
        _take(lock, name, path)
        _held.add(me)
        yield
    finally:
        try:
            _give_back(lock, name, me)
        except KeyboardInterrupt:  # which may come here as anywhere
            _give_back(lock, name, me)
            raise


def _take(lock: FileLock, name: Path, path: Path) -> None:
    try:
        for last in [False] * _TRIES + [True]:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_replaceable(path)
            try:
                lock.acquire()
                return
            except (Timeout, FileNotFoundError):
                if last or name.exists():
                    raise
                # somebody has just given the lock back, or removed the folder
    except Timeout:
        _check_makeable(path)
        raise Busy(_busy(path)) from None
    except OSError as error:
        raise WriteFailed(cannot(path, error)) from error
    except KeyboardInterrupt:
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)  # its file may be there, and is nobody's: so it goes with the lock
        raise


def _check_makeable(path: Path) -> None:
    """A lock that could not be had is somebody's, unless no file can be made there, of which a lock says nothing."""
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise WriteFailed(cannot(path, error)) from error


def _give_back(lock: FileLock, name: Path, me: tuple[Path, int, int]) -> None:
    _held.discard(me)
    if lock.is_locked:
        with contextlib.suppress(OSError):
            name.unlink()  # while it is still locked: whoever waits for it then sees that it is gone, and makes another
        lock.release()


def _busy(path: Path) -> str:
    return f"another run is writing {path.name}, or left a process behind that is: wait until it has finished"


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "there is a folder of this name")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")


def cannot(path: Path, error: OSError, what: str = "nothing was changed") -> str:
    """The sentence for a file that could not be written."""
    file = next((above for above in path.parents if os.path.isfile(above)), None)
    if file is not None:
        return f"could not write {path}: {file} is a file, choose a folder you may write to; {what}"
    return (
        f"could not write {path} ({error.strerror or error}): free some space or choose a folder you may write to; "
        f"{what}"
    )
