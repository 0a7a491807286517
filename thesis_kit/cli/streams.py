"""Output that no stream refuses: what its encoding lacks is written in plain letters, or as a question mark."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import unicodedata

_HANDLER = "thesis_kit.plain"
_PLAIN = {
    "✓": "+", "✗": "x", "↗": "^", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "-", "•": "-", "→": "->",
    "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "±": "+/-", "∞": "inf", "ℓ": "l", "ε": "eps", "σ": "sigma", "δ": "delta",
    "α": "alpha", "β": "beta", "λ": "lambda", "μ": "mu", "‖": "|", "‘": "'", "’": "'", "“": '"', "”": '"', "√": "sqrt ",
}  # fmt: skip


def tolerate() -> None:
    """Let standard output and error take every text, whatever their encoding."""
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream of another kind, or closed
            stream.reconfigure(errors=_HANDLER)


def flush() -> None:
    """Hand over what is still held back; where nobody takes it, say nothing more.

    Raises:
        OSError: the disk is full, say.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        _silence()
    except OSError:
        _silence()
        raise


def _silence() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler for codecs: a text in ASCII for the characters that could not be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_letters, error.object[error.start : error.end])), error.end


def _letters(character: str) -> str:
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _PLAIN.get(character) or bare or "?"
