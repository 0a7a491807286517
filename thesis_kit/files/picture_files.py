"""Pictures as people keep them: brought upright and, of whatever depth, to eight bits a channel."""

from __future__ import annotations

import os
from typing import Any

from thesis_kit.extras import needs

_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of sixteen bits; its "I" has thirty-two
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
            kind, picture = opened.format, turned(opened)
    except (OSError, SyntaxError, image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: remove it, or mend it ({error})") from error
    return _of_eight_bits(picture, path, kind).convert("RGB" if channels == 3 else "L")


def _of_eight_bits(picture: Any, path: str | os.PathLike, kind: str | None) -> Any:
    """The picture with its whole range, where Pillow would cut it at 255. A PNG has no more than sixteen bits."""
    sixteen = picture.mode in _SIXTEEN or (picture.mode == "I" and kind == "PNG")
    if picture.mode in ("F", "I") and not sixteen:
        raise ValueError(
            f"{path} holds numbers whose range it does not say (mode {picture.mode}): save it with 8 or 16 bits a "
            "channel"
        )
    if not sixteen:
        return picture
    import numpy as np

    values = np.asarray(picture).astype(np.float64).clip(0, _BLACK_TO_WHITE) / _STEP
    return needs("PIL.Image", extra="show").fromarray(values.round().astype(np.uint8))
