"""Ctrl-C: what it stopped says what was kept and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_INSTEAD = (ImportError, SystemError, RuntimeError)  # errors that Ctrl-C may turn into
_LONGEST = 600  # characters of a sentence; libraries may list every tensor of a network


class Stopped(Exception):
    """Somebody pressed Ctrl-C; the message says what was kept and how to go on."""


@contextlib.contextmanager
def kept(message: str | Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C inside the block end the command with this message, unless what it stopped says better.

    A function is asked for the message only then, when it can see what there is.
    """
    try:
        yield
    except (KeyboardInterrupt, *_INSTEAD) as error:
        interruption = _interruption(error)
        if interruption is None:
            raise
        raise Stopped(_said(interruption) or (message() if callable(message) else message)) from error


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error, also where what it met made another of it: an extension module that was being loaded,
    or a pool of processes whose thread was about to start."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error
    inner = error.__cause__ or error.__context__
    return _interruption(inner) if isinstance(error, _INSTEAD) else None


def _said(interruption: KeyboardInterrupt) -> str:
    """What whoever was interrupted has to say: a note, or the interruption's own words."""
    return one_line("; ".join([*getattr(interruption, "__notes__", []), *map(str, interruption.args)]))


def one_line(text: str) -> str:
    """A text without its line breaks, and not endless."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()} …"
