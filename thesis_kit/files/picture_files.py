"""Pictures as people keep them: brought upright and, of whatever depth, to eight bits a channel."""

from __future__ import annotations

import os
from typing import Any

from thesis_kit.extras import needs

_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of whole numbers of sixteen bits
_BLACK_TO_WHITE, _STEP = 65535, 257  # of sixteen bits, and what one step of eight bits is of them


def read_picture(path: str | os.PathLike, channels: int = 3) -> Any:
    """A picture from its file as Pillow's, in RGB or, of one channel, gray, turned as the camera says.

    Gray of sixteen bits keeps its range, from black to white.

    Raises:
        ValueError: no picture, a torn one, or one of numbers whose range it does not say.
    """
    image, turned = needs("PIL.Image", extra="show"), needs("PIL.ImageOps", extra="show").exif_transpose
    try:
        with image.open(path) as opened:
            picture = turned(opened)
    except (OSError, SyntaxError, image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: remove it, or mend it ({error})") from error
    return _of_eight_bits(picture, path).convert("RGB" if channels == 3 else "L")


def _of_eight_bits(picture: Any, path: str | os.PathLike) -> Any:
    """The picture with its whole range, where Pillow would cut it at 255."""
    deep = picture.mode in _DEEP
    if picture.mode == "F" or (deep and not _within_sixteen(picture)):
        raise ValueError(
            f"{path} holds numbers whose range it does not say (mode {picture.mode}): save it with 8 or 16 bits a "
            "channel"
        )
    if not deep:
        return picture
    import numpy as np

    values = np.asarray(picture).astype(np.float64) / _STEP
    return needs("PIL.Image", extra="show").fromarray(values.round().astype(np.uint8))


def _within_sixteen(picture: Any) -> bool:
    low, high = picture.getextrema()
    return low >= 0 and high <= _BLACK_TO_WHITE
