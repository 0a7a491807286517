"""Images as the book shows them: tiles with sharp pixels in a grid, and their words as text beside them.

No word is ever part of a picture: a phone makes a picture small, and text keeps its size.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from thesis_kit.ledger.thumbnails import to_pil_image
from thesis_kit.show.library import Image
from thesis_kit.show.palette import COLORS

_TILE = "display:block;width:100%;aspect-ratio:{ratio:g};margin:0;border-radius:0;padding:0;image-rendering:pixelated"
_MAPS = ("gray", "ink", "signed")


def image_uri(image: Image.Image, *, lossless: int = 60_000, quality: int = 80) -> str:
    """An image as a data URI: WebP, without loss where that is small, else of high quality.

    Args:
        lossless: bytes up to which it is kept without loss. quality: of what is larger, 0 … 100.
    """
    data = _webp(image, lossless=True)
    if len(data) > lossless:
        data = _webp(image, quality=quality)
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _webp(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=6, **options)
    return buffer.getvalue()


def pixels(image: Tensor, *, colors: str = "gray", reach: float = 1.0) -> Image.Image:
    """An image (c, h, w), c one or three, in [0, 1] as a picture; what lies outside is shown as the nearest end.

    Args:
        colors: of a single channel: "gray", from black to white; "ink", from white to black; "signed", a change within
            ±``reach``, red where positive and blue where negative. Three channels under "signed" are shown around gray.
        reach: size of the change that is shown in full color.
    """
    if colors not in _MAPS:
        raise ValueError(f"colors are one of {', '.join(_MAPS)}, got {colors!r}")
    image = image.detach().cpu().double()
    if colors == "signed":
        share = (image / reach).clamp(-1, 1)
        return _signed(share[0].numpy()) if len(share) == 1 else to_pil_image(((share + 1) / 2).float())
    image = image.clamp(0, 1)
    return to_pil_image((1 - image if colors == "ink" else image).float())


def _signed(share: np.ndarray) -> Image.Image:
    """Values in [-1, 1] as colors that the color-blind tell apart: blue, white, vermilion."""
    white, red, blue = (np.array(color, dtype=float) for color in ((247, 247, 247), (202, 73, 5), (5, 98, 160)))
    amount = np.abs(share)[..., None]  # (h, w, 1)
    ends = np.where(share[..., None] >= 0, red, blue)  # (h, w, 3)
    return Image.fromarray((white + amount * (ends - white)).round().astype(np.uint8), "RGB")


def tile(picture: Image.Image, alt: str, *, quality: int = 90) -> str:
    """HTML of one picture, as wide as its cell."""
    uri = image_uri(picture, lossless=2_000, quality=quality)
    look = _TILE.format(ratio=picture.width / picture.height)
    return f'<img src="{uri}" alt="{html.escape(alt, quote=True)}" style="{look}">'


def montage(images: Sequence[Tensor] | Tensor, *, columns: int, gap: int = 2) -> Image.Image:
    """Images (c, h, w) of one size side by side in rows, as one picture: for sheets of many that need no words."""
    pictures = [pixels(image).convert("RGB") for image in images]
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture, (column * (width + gap), row * (height + gap)))
    return sheet


def words(text: str, *, end: bool = False, color: str = "inherit") -> str:
    """HTML of a cell of words; lines break where the text does."""
    look = f"text-align:center;align-self:{'end' if end else 'start'};white-space:pre-line;color:{color}"
    return f'<div style="{look};overflow-wrap:anywhere">{html.escape(text)}</div>'


def grid(cells: Iterable[str], tracks: str, *, widest: int, alt: str, kind: str = "", look: str = "") -> str:
    """HTML of cells in columns of these CSS tracks, at most ``widest`` pixels wide in all, under one name."""
    look += f"display:grid;grid-template-columns:{tracks};gap:5px;max-width:{widest}px;"
    look += "font-size:max(0.8em,12px);line-height:1.25"  # also of a grid inside another
    name = html.escape(alt, quote=True)
    return f'<div class="tk-grid{kind}" role="group" aria-label="{name}" style="{look}">{"".join(cells)}</div>'


def rows_of_pictures(
    rows: Mapping[str, Sequence[str]], columns: Sequence[str], *, alt: str, cell: int = 130, below: Sequence[str] = (),
    fold: int | None = None,
) -> str:  # fmt: skip
    """HTML of tiles in rows of a name each, under the columns' names and over the words in ``below``.

    On a phone a row's name stands above its tiles, which so get the whole width.

    Args:
        rows: name of a row → its tiles. Where no row has a name there is no column of names.
        columns: a name a column, or none at all. cell: pixels a tile is wide at most.
        fold: tiles beside each other on a phone, where each then stands over its column's name; all unless given.
    """
    width = len(next(iter(rows.values())))
    named = any(rows)
    corner = ['<div class="tk-corner"></div>'] * named
    cells = [*corner, *(words(name, end=True) for name in columns)] if any(columns) else []
    if fold:
        cells = [f'<div class="tk-head">{cell}</div>' for cell in cells]
        rows = {name: [_over(one, column) for one, column in zip(tiles, columns, strict=True)]
                for name, tiles in rows.items()}  # fmt: skip
    for name, tiles in rows.items():
        look = "align-self:center;white-space:pre-line;overflow-wrap:anywhere"
        cells += [f'<div class="tk-name" style="{look}">{html.escape(name)}</div>'] * named + list(tiles)
    cells += [*corner, *(words(text) for text in below)] if below else []
    tracks = "fit-content(6.5em) " * named + f"repeat({width},minmax(0,1fr))"
    widest = (cell + 5) * width + 95 * named
    kind = " tk-named" * named + " tk-folds" * bool(fold)
    return grid(cells, tracks, widest=widest, alt=alt, kind=kind, look=f"--tk-n:{fold or width};")


def _over(shown: str, name: str) -> str:
    """A tile over its name, which only a phone shows."""
    return f'<div>{shown}<div class="tk-under" style="display:none;text-align:center">{html.escape(name)}</div></div>'


def bars(shares: Mapping[str, float], *, alt: str, color: str = "blue") -> str:
    """HTML of shares in [0, 1] as bars, a row a name, each with its percentage as text."""
    cells = []
    for name, share in shares.items():
        look = f"background:var(--tk-{color},{COLORS[color]});height:0.9em;width:{100 * share:.1f}%;min-width:1px"
        cells += [
            f'<div style="text-align:right">{html.escape(name)}</div>',
            f'<div aria-hidden="true" style="align-self:center"><div style="{look}"></div></div>',
            f"<div>{share:.0%}</div>",
        ]
    return grid(cells, "fit-content(8em) minmax(4em,1fr) 3em", widest=420, alt=alt)
