"""Units in pictures: a row a unit, its optimum, its strongest images, and where in them it fires."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.features import Triples
from thesis_kit.show.figures import card
from thesis_kit.show.library import Image
from thesis_kit.show.pictures import pixels, rows_of_pictures, tile
from thesis_kit.show.shown import Shown, require_words

_QUALITY = 75
_DIM = 0.25  # brightness that is left of an image where a unit is at its least


def lit(image: Tensor, pattern: Tensor) -> Tensor:
    """An image (c, h, w) that is bright where a pattern (rows, columns) is high and dark where it is low.

    The range is the pattern's own, from its least to its largest value; a flat pattern lights everything alike.
    """
    low, high = pattern.min(), pattern.max()
    share = (pattern - low) / (high - low) if high > low else torch.ones_like(pattern)
    large = F.interpolate(share[None, None].float(), image.shape[-2:], mode="nearest")[0]
    return image * (_DIM + (1 - _DIM) * large.to(image))


def triples_html(found: Triples, *, shown: int | None = None, alt: str, cell: int = 84) -> str:
    """HTML of units in rows, with the controls that there are below them: the image made to excite a unit best, the
    images that excite it most, and where in them.

    Args:
        shown: how many of the strongest images; all that are kept unless given.
        cell: pixels that a tile is wide at most.
    """
    shown = found.images.shape[1] if shown is None else shown
    rows: dict[str, list[str]] = {}
    for part in found.rows:
        for i, name in enumerate(part.names):
            rows[name] = _row(part, i, shown)
    columns = ["best", *["top"] * shown, *["where"] * shown]  # short enough for a phone
    return rows_of_pictures(rows, columns, alt=alt, cell=cell)


def _row(part: Triples, i: int, shown: int) -> list[str]:
    """Tiles of one unit."""
    name = part.names[i]
    images, patterns = part.images[i, :shown], part.maps[i, :shown]
    return [
        tile(pixels(part.optima[i]), f"{name}: the image that excites it most", quality=_QUALITY),
        *(tile(pixels(image), f"{name}: strong image", quality=_QUALITY) for image in images),
        *(
            tile(pixels(lit(image, pattern)), f"{name}: where it fires", quality=_QUALITY)
            for image, pattern in zip(images, patterns, strict=True)
        ),
    ]


def triples_figure(found: Triples, *, label: str, caption: str, alt: str, shown: int | None = None) -> Shown:
    """``triples_html`` as a figure of the book."""
    require_words(alt=alt)
    inner = triples_html(found, alt=alt, shown=shown)
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def triples_sheet(found: Triples, *, scale: int = 1, gap: int = 2) -> Image.Image:
    """The same as one picture without words, for a file: a line a unit, then the controls'."""
    lines = [_line(part, i) for part in found.rows for i in range(len(part))]
    return _sheet(lines, scale, gap)


def _line(part: Triples, i: int) -> list[Tensor]:
    side = part.optima.shape[-2:]
    strong = F.interpolate(part.images[i], side, mode="bilinear", antialias=True)
    lighted = [lit(image, pattern) for image, pattern in zip(strong, part.maps[i], strict=True)]
    return [part.optima[i].to(strong), *strong, *lighted]


def _sheet(lines: Sequence[Sequence[Tensor]], scale: int, gap: int) -> Image.Image:
    height, width = (scale * side for side in lines[0][0].shape[-2:])
    size = (len(lines[0]) * (width + gap) - gap, len(lines) * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for row, line in enumerate(lines):
        for column, image in enumerate(line):
            picture = pixels(image).convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (width + gap), row * (height + gap)))
    return sheet
