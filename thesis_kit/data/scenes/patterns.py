"""Textures of objects and kinds of background: each a share between two tones, 0 … 1, at every point.

Edges inside a pattern are smoothed over one pixel. A background's random look comes from four numbers an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thesis_kit.data.scenes.vocabulary import BACKGROUNDS, TEXTURES

_PERIOD = 0.62  # of a texture, in the unit of the shape, whose diameter is 2


def _step(distance: Tensor, pixel: Tensor | float) -> Tensor:
    """1 where ``distance`` is positive, 0 where negative, a ramp one pixel wide between."""
    return (0.5 + distance / pixel).clamp(0, 1)


def _bands(phase: Tensor) -> Tensor:
    """Signed distance, in periods, to the edges of bands half a period wide."""
    return (phase - torch.floor(phase) - 0.5).abs() - 0.25


def _solid(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _stripes(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    return _step(_bands((x + y) / (math.sqrt(2) * _PERIOD)) * _PERIOD, pixel)


def _dots(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    away = [z / _PERIOD - torch.round(z / _PERIOD) for z in (x, y)]
    return _step((0.30 - torch.hypot(*away)) * _PERIOD, pixel)


def _checker(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    across, along = (_step(_bands(z / (1.25 * _PERIOD) + 0.25) * 1.25 * _PERIOD, pixel) for z in (x, y))
    return across + along - 2 * across * along


_TEXTURES: dict[str, Callable] = {"solid": _solid, "stripes": _stripes, "dots": _dots, "checker": _checker}


def texture(kind: Tensor, x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    """Share of an object's second tone.

    Args:
        kind: (n,) indices into ``TEXTURES``.
        x, y: (n, h, w) points in the shapes' own coordinates, so that a texture turns with its object.
        pixel: (n, 1, 1) width of a pixel in those coordinates.

    Returns:
        (n, h, w) in [0, 1].
    """
    return _by_kind(kind, TEXTURES, _TEXTURES, x, y, pixel)


def _by_kind(kind: Tensor, names: tuple[str, ...], functions: dict[str, Callable], *arguments: Tensor) -> Tensor:
    """Each row by the function of its kind."""
    share = torch.empty_like(arguments[0])
    for index in kind.unique().tolist():
        rows = (kind == index).nonzero()[:, 0]
        share[rows] = functions[names[index]](*(argument[rows] for argument in arguments))
    return share


def _plain(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return 0.25 + 0.35 * v + 0.1 * (a - 0.5)


def _sky(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Darker towards the top, with two clouds of three puffs each."""
    cloud = torch.full_like(u, -1.0)
    for x, y, grown in ((a, 0.12 + 0.30 * b, 0.8 + 0.4 * c), (c, 0.55 + 0.30 * d, 0.8 + 0.4 * b)):
        for shift, lift, radius in ((-0.13, 0.02, 0.08), (0.0, -0.02, 0.12), (0.13, 0.03, 0.09)):
            away = torch.hypot(u - x - grown * shift, (v - y - grown * lift) * 1.5)
            cloud = torch.maximum(cloud, grown * radius - away)
    return (0.95 - 0.6 * v) * (1 - _step(cloud, 2 * pixel))


def _waves(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    count = 4 + torch.floor(3 * a)
    swell = 0.035 * torch.sin(2 * math.pi * ((2 + b) * u + c))
    return 0.8 * _step(_bands(count * (v + swell) + d) / count, pixel) + 0.2 * v


def _bricks(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    rows = 5 + torch.floor(3 * a)
    row = torch.floor(rows * v + b)
    height = rows * v + b - row
    along = rows / 2 * u + c + 0.5 * (row % 2)
    length = along - torch.floor(along)
    joint = torch.minimum(0.5 - (height - 0.5).abs(), 2 * (0.5 - (length - 0.5).abs()))  # in bricks' heights
    shade = 0.18 * torch.sin(5.1 * torch.floor(along) + 9.7 * row)  # no two neighbors alike
    return _step((joint - 0.09) / rows, pixel) * (0.78 + shade)


def _rings(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    count = 5 + 3 * c
    return 0.85 * _step(_bands(count * torch.hypot(u - 0.15 - 0.7 * a, v - 0.15 - 0.7 * b) + d) / count, pixel)


def _diagonals(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    count, way = 4 + 3 * b, torch.where(a < 0.5, -1.0, 1.0)
    return 0.85 * _step(_bands(count * (u + way * v) / math.sqrt(2) + c) / count, pixel)


def _tiles(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    count = 2 + torch.floor(3 * a) / 2  # pairs of tiles across the image
    across, along = (_step(_bands(count * z + shift) / count, pixel) for z, shift in ((u, b), (v, c)))
    return 0.85 * (across + along - 2 * across * along)


def _hills(u: Tensor, v: Tensor, pixel: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """A sky, far hills, near hills."""
    far = 0.42 + 0.08 * torch.sin(2 * math.pi * ((1 + a) * u + b))
    near = 0.68 + 0.07 * torch.sin(2 * math.pi * ((1 + b) * u + c))
    return 0.10 + 0.15 * v + 0.35 * _step(v - far, pixel) + 0.35 * _step(v - near, pixel)


_BACKGROUNDS: dict[str, Callable] = {
    "plain": _plain, "sky": _sky, "waves": _waves, "bricks": _bricks,
    "rings": _rings, "diagonals": _diagonals, "tiles": _tiles, "hills": _hills,
}  # fmt: skip


def background(kind: Tensor, u: Tensor, v: Tensor, pixel: float, look: Tensor) -> Tensor:
    """Share of a background's second tone.

    Args:
        kind: (n,) indices into ``BACKGROUNDS``.
        u, v: (n, h, w) points of the image in 0 … 1, v downwards.
        pixel: width of a pixel.
        look: (n, 4) random numbers in [0, 1): where and how large the pattern's parts are.

    Returns:
        (n, h, w) in [0, 1].
    """
    numbers = (look[:, i, None, None] for i in range(4))
    width = torch.full_like(look[:, :1, None], pixel)
    return _by_kind(kind, BACKGROUNDS, _BACKGROUNDS, u, v, width, *numbers).clamp(0, 1)
