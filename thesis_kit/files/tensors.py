"""Tensors in files: whole trees of them, sealed, and outcomes as text that JSON can hold."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thesis_kit.files.sealing import DamagedFile, seal, unseal
from thesis_kit.files.writing import settle, write_atomic

_ARCHIVE = b"PK"  # how every file of torch.save begins


def write_tensors(path: str | os.PathLike, tree: Any) -> None:
    """Write tensors, numbers and texts in dicts, lists and tuples as a sealed file, in one step.

    Raises:
        WriteFailed: the file could not be written; the old one is still there.
    """
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    write_atomic(path, seal(buffer.getvalue()))


def read_tensors(path: str | os.PathLike, *, device: torch.device | str = "cpu") -> Any:
    """What ``write_tensors`` wrote, with the tensors on a device. No code in the file is ever run.

    Raises:
        FileNotFoundError: there is no such file. DamagedFile: it was altered, or is no file of this kind.
    """
    settle(path)
    payload = unseal(Path(path).read_bytes(), path)
    said = f"{path} holds other things than tensors and numbers: remove it or name another file"
    if not payload.startswith(_ARCHIVE):
        raise DamagedFile(said)
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whose advice would be to load it with all the code that is in it
        raise DamagedFile(said) from None


def bits(outcomes: Tensor) -> str:
    """Outcomes (n,) bool as text: a 0 or 1 each."""
    return "".join("01"[one] for one in outcomes.tolist())


def from_bits(text: str) -> Tensor:
    """The outcomes (n,) bool behind such a text."""
    if set(text) - {"0", "1"}:
        raise ValueError("outcomes are written as 0 and 1")
    return torch.tensor([one == "1" for one in text], dtype=torch.bool)
