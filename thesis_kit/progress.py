"""A progress bar that can be silenced: by an argument, by ``tk.setup(progress=False)``, or by ``TK_PROGRESS=0``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_default: bool | None = None
_in_use = False  # a bar inside a bar stays hidden: rich before 14.1 refuses to draw two


def set_progress(shown: bool | None) -> None:
    """Show or hide bars where a call does not say; None: only where a person is looking at a terminal or notebook."""
    global _default
    _default = shown


def _shown(asked: bool | None) -> bool:
    if asked is not None:
        return asked
    if _default is not None:
        return _default
    if "TK_PROGRESS" in os.environ:
        return os.environ["TK_PROGRESS"] not in ("0", "")
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Bar:
    """What ``track`` hands out: ``advance`` by so many, ``describe`` what is going on; silent where none is drawn."""

    def __init__(self, progress: Any = None, task: int = 0):
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1) -> None:
        """Move on by ``amount``."""
        if self._progress is not None:
            self._progress.advance(self._task, amount)

    def describe(self, text: str) -> None:
        """Say what is being done."""
        if self._progress is not None:
            self._progress.update(self._task, description=text)


@contextmanager
def track(text: str, total: float | None, shown: bool | None = None, *, start: float = 0) -> Iterator[Bar]:
    """A bar over ``total`` steps (None: unknown) for the length of the block, on the error stream; hidden inside
    another one."""
    global _in_use
    if _in_use or not _shown(shown):
        yield Bar()
        return
    _in_use = True
    try:
        with _drawn() as progress:
            yield Bar(progress, progress.add_task(text, total=total, completed=start))
    finally:
        _in_use = False


def _drawn() -> Any:
    """rich's bar, gone when it is done; rich is loaded only where one is drawn."""
    from rich import progress
    from rich.console import Console

    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()
    times = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    return progress.Progress(*columns, *times, console=Console(stderr=True), transient=True)
