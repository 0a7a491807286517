"""Writing: a file is whole or not there, and files that belong together change together.

Bytes go to a temporary file beside the target, are forced to disk and then renamed, so that a kill, a crash or a full
disk leaves the old file untouched. Where several files change together, a note beside the first one says which; a
writer that is killed between two renames has them finished by whoever next reads or writes the first of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from thesis_kit.files.locks import WriteFailed, alone, beside, cannot, holds, is_device, target
from thesis_kit.files.sealing import DamagedFile, seal, unseal

_TURN = 10.0  # seconds that a file is waited for which another process is writing at the moment
_PART = re.compile(r"[0-9a-f-]+\.part")


@contextlib.contextmanager
def only_writer(*paths: str | os.PathLike, wait: bool | float = False) -> Iterator[None]:
    """Keep files to oneself for the length of the block; several are taken in one order, so that nobody is stuck.

    Folders that are missing are made. Whatever a writer that was killed left beside a file is put in order: half a file
    goes, and files that were to change together do.

    Args:
        paths: of the files, which need not exist.
        wait: until another writer has finished, or at most so many seconds.

    Raises:
        Busy: somebody else, or an enclosing block of this thread, has one of them, and did not finish in time.
        WriteFailed: a folder cannot be written to, the file is write-protected, or there is a folder of its name.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted({target(path) for path in paths}):
            if not is_device(path):
                stack.enter_context(alone(path, wait))
                _tidy(path)
        yield


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Put ``data`` under ``path`` in one step: a reader sees the old file or the new one, never a part of either.

    A link stays, and what it points at is written. A file that is replaced keeps its permissions.

    Raises:
        WriteFailed: the folder cannot be written, the disk is full, or the file is write-protected; no temporary file
            is left behind. Busy: another process keeps the file to itself.
    """
    write_together({path: data})


def write_together(contents: Mapping[str | os.PathLike, bytes]) -> None:
    """Put several files in place of the old ones, all or none: a reader of the first one finds the others with it.

    Args:
        contents: path → bytes, in the order in which they are put in place.

    Raises:
        WriteFailed, Busy: as ``write_atomic``; the old files are all still there.
    """
    files = {target(path): data for path, data in contents.items()}
    with only_writer(*(path for path in files if not holds(path)), wait=_TURN):
        for path in [path for path in files if is_device(path)]:
            _write_through(path, files.pop(path))
        if len(files) == 1:
            ((path, data),) = files.items()
            _replace(path, data)
        elif files:
            _replace_all(files)


def _write_through(path: Path, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise WriteFailed(f"could not write to {path} ({error.strerror or error})") from error


def _replace(path: Path, data: bytes) -> None:
    part = _temporary(path)
    try:
        try:
            _write(part, data, like=path)
            os.replace(part, path)
        except FileNotFoundError:  # somebody has removed the folder meanwhile
            _write(part, data, like=path)
            os.replace(part, path)
    except OSError as error:
        raise WriteFailed(cannot(path, error)) from error
    finally:
        _remove(part)
    _sync_folder(path.parent)


def _replace_all(files: dict[Path, bytes]) -> None:
    """First the plan, then the new files beside the old, then the word to go, then the renames."""
    first = next(iter(files))
    plan = beside(first, "together")
    steps = [(_temporary(path, "new"), path) for path in files]
    try:
        _write_plan(plan, steps, go=False)
        for (part, path), data in zip(steps, files.values(), strict=True):
            _write(part, data, like=path)
        _write_plan(plan, steps, go=True)
    except BaseException as error:
        _remove(plan)
        _give_up(plan, steps)
        if isinstance(error, OSError):
            raise WriteFailed(cannot(first, error)) from error
        raise
    _carry_out(plan, steps)


def _carry_out(plan: Path, steps: list[tuple[Path, Path]]) -> None:
    """Rename what is not renamed yet."""
    for number, (part, path) in enumerate(steps):
        try:
            if part.exists():
                os.replace(part, path)
        except OSError as error:
            done = ", ".join(name.name for _, name in steps[:number]) or "nothing"
            raise WriteFailed(
                cannot(path, error, f"{done} is new already, and the next run puts the rest in place")
            ) from error
    for folder in {path.parent for _, path in steps}:
        _sync_folder(folder)
    _remove(plan)


def _give_up(plan: Path, steps: list[tuple[Path, Path]]) -> None:
    for part, _ in steps:
        _remove(part)
    _remove(plan)


def _write_plan(plan: Path, steps: list[tuple[Path, Path]], *, go: bool) -> None:
    """The plan names files from where it lies, so that it holds in a folder that was moved or copied too."""
    part = plan.with_name(f"{plan.name}.part")
    names = [[os.path.relpath(path, plan.parent) for path in step] for step in steps]
    try:
        _write(part, seal(json.dumps({"go": go, "steps": names}).encode()), like=plan)
        os.replace(part, plan)
    finally:
        _remove(part)
    _sync_folder(plan.parent)


def settle(*paths: str | os.PathLike) -> None:
    """Put in order what a writer that was killed left: files that were to change together, half files, its locks.

    To be called before reading. Where the folder cannot be written to, or somebody is writing, nothing happens.

    Args:
        paths: of what is going to be read; of files that change together, the first one first.
    """
    for path in map(target, paths):
        left = (beside(path, "together"), beside(path, "lock"))
        if any(file.exists() for file in left) and not holds(path):
            with contextlib.suppress(OSError, ValueError), only_writer(path):
                pass


def renewal(*paths: str | os.PathLike) -> Callable[[], bool]:
    """A function that tells whether any of these files has been written since."""
    before = [_state(path) for path in paths]
    return lambda: [_state(path) for path in paths] != before


def _state(path: str | os.PathLike) -> tuple[int, ...]:
    if not os.path.isfile(path):
        return ()
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _tidy(path: Path) -> None:
    """Put in order what a killed writer left beside a file."""
    plan = beside(path, "together")
    if plan.exists():
        _resume(plan)
    _remove(plan.with_name(f"{plan.name}.part"))
    stem = beside(path, "").name
    with contextlib.suppress(FileNotFoundError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(stem) and _PART.fullmatch(entry.name[len(stem) :]):
                _remove(Path(entry.path))


def _resume(plan: Path) -> None:
    try:
        kept = json.loads(unseal(plan.read_bytes(), plan))
    except DamagedFile:
        _remove(plan)
        return
    steps = [(plan.parent / part, plan.parent / path) for part, path in kept["steps"]]
    _carry_out(plan, steps) if kept["go"] else _give_up(plan, steps)


def _temporary(path: Path, ending: str = "part") -> Path:
    return beside(path, f"{os.getpid():x}-{secrets.token_hex(4)}.{ending}")


def _write(part: Path, data: bytes, *, like: Path) -> None:
    """A new file, on disk when this returns, with the permissions of the file that it will replace."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as file:
        if like.exists() and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), stat.S_IMODE(like.stat().st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # the rename itself survives a power cut where folders can be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def note(error: BaseException, text: str) -> None:
    """Add a sentence to an exception, which tracebacks and the command line show: PEP 678, on Python 3.10 too."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]
