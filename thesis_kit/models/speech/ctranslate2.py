"""Reads the binary in which CTranslate2 keeps a network: names and arrays, little endian, one after the other.

A version; the name and the revision of a specification; as many variables as it says: name, rank, dimensions, type,
bytes, data; and aliases, by which two variables are one. Texts have their length before them in 16 bits.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thesis_kit.files import DamagedFile

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_NEWEST = 6


def read_ctranslate2(path: str | os.PathLike) -> tuple[str, dict[str, Tensor]]:
    """The name of the specification, such as "WhisperSpec", and the variables by name, aliases too.

    Raises:
        FileNotFoundError: there is no such file. DamagedFile: it ends too soon, or is none of this kind.
    """
    return parse_ctranslate2(Path(path).read_bytes(), str(path))


def parse_ctranslate2(data: bytes, what: str) -> tuple[str, dict[str, Tensor]]:
    """As ``read_ctranslate2``, of the bytes of a file that an error calls ``what``."""
    try:
        return _parsed(data)
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        raise DamagedFile(
            f"{what} is no model of CTranslate2, or not all of one ({error}): convert or download it again"
        ) from error


def _parsed(data: bytes) -> tuple[str, dict[str, Tensor]]:
    at = 0

    def take(form: str) -> tuple:
        nonlocal at
        at += struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, data, at - struct.calcsize("<" + form))

    def text() -> str:
        nonlocal at
        (length,) = take("H")
        at += length
        return data[at - length : at].split(b"\0")[0].decode()

    (version,) = take("I")
    if not 2 <= version <= _NEWEST:
        raise ValueError(f"its version is {version}, and those up to {_NEWEST} can be read")
    specification, _, (count,) = text(), take("I"), take("I")
    found = {}
    for _ in range(count):
        name, (rank,) = text(), take("B")
        shape, (kind,), (size,) = take(f"{rank}I"), take("B"), take("I")
        if at + size > len(data):
            raise ValueError(f"it ends within {name}")
        array = np.frombuffer(data, _TYPES[kind], size // np.dtype(_TYPES[kind]).itemsize, at)
        found[name], at = torch.from_numpy(array.reshape(shape).copy()), at + size
    for _ in range(take("I")[0] if at < len(data) else 0):
        alias, name = text(), text()
        found[alias] = found[name]
    return specification, found
