"""Seals: how a file says that somebody changed it.

A sealed file ends in the SHA-256 of what stands before it; JSON is hashed in one canonical form.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

_MARK = b"\nthesis_kit sha256 "
_TRAILER = len(_MARK) + 64


class DamagedFile(ValueError):
    """A file is not what was written: altered, truncated or of another kind."""


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
            f"{name} is incomplete or not a thesis_kit file: its SHA-256 trailer is missing; remove it and make it anew"
        )
    if hashlib.sha256(payload).hexdigest().encode() != trailer[len(_MARK) :]:
        raise DamagedFile(
            f"{name} was altered after it was written: its content does not fit its SHA-256; remove it, make it again"
        )
    return payload


def canonical(value: Any) -> bytes:
    """JSON in the one form that hashes are taken of; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()
