"""From an attribute table to images and exact masks.

Every object is a signed distance function: the distance in pixels says how much of a pixel it covers, and these
coverages, composited front to back, are the masks. All scenes of a chunk are drawn at once, on the table's device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.checks import check_count
from thesis_kit.data.scenes.patterns import background, texture
from thesis_kit.data.scenes.shapes import signed_distance
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import NOTHING, color_values, tint_values
from thesis_kit.data.scenes.words import draw_words
from thesis_kit.randomness import ImageRandom

LEAST_SIZE = 8  # pixels: below this no shape can be told from another
_CHUNK = 1 << 18  # pixels drawn at a time: arrays of one chunk stay near the processor
_BACKGROUND, _COLOR, _NOISE = 101, 102, 103  # streams of a scene's random numbers
_SHADOW, _RIM, _JITTER = 0.38, 0.10, 0.04


@dataclass(frozen=True)
class Rendered:
    """Images with the truth about them.

    ``images`` (n, 3, s, s) in [0, 1]; ``masks`` (n, k, s, s): share of each pixel in which object k is seen, in
    front of everything else; ``word_mask`` (n, s, s): share covered by the plate of a drawn word. The rest,
    1 − masks − word mask, is background.
    """

    images: Float[Tensor, "n 3 s s"]
    masks: Float[Tensor, "n k s s"]
    word_mask: Float[Tensor, "n s s"]

    def __getitem__(self, index: slice | Tensor) -> Rendered:
        return Rendered(self.images[index], self.masks[index], self.word_mask[index])

    @property
    def background_mask(self) -> Float[Tensor, "n s s"]:
        """Share of each pixel in which the background is seen."""
        return (1 - self.masks.sum(dim=1) - self.word_mask).clamp(0, 1)


def render(table: Table, size: int) -> Rendered:
    """Draw the scenes of a table, size × size pixels each.

    A scene looks the same whatever else is drawn with it, up to rounding in the last bits.

    Raises:
        ValueError: ``size`` is below 8 pixels.

    Examples:
        >>> scenes = tk.data.scenes
        >>> drawn = scenes.render(scenes.compose([{"shape": "star"}]), 32)
        >>> drawn.images.shape
        torch.Size([1, 3, 32, 32])
    """
    check_count(size, what="size of a scene in pixels", least=LEAST_SIZE)
    chunk = max(1, _CHUNK // size**2)
    parts = [_render(table[start : start + chunk], size) for start in range(0, max(len(table), 1), chunk)]
    return Rendered(*(torch.cat([getattr(part, name) for part in parts]) for name in Rendered.__dataclass_fields__))


def _render(table: Table, size: int) -> Rendered:
    device, random = table.ids.device, table.random()
    centers = (torch.arange(size, device=device) + 0.5) / size
    v, u = (grid.expand(len(table), size, size) for grid in torch.meshgrid(centers, centers, indexing="ij"))
    objects = [_Drawn(table, k, u, v, size) for k in range(table.shape.shape[1])]
    image = _ground(table, u, v, size, random)
    for drawn in objects:
        image = image * (1 - _SHADOW * drawn.shadow)[:, None]
    seen, masks = torch.ones_like(u), []
    jitter = random.fork(_COLOR)
    for k, drawn in reversed(list(enumerate(objects))):  # object 0 in front
        paint = drawn.paint(table, k, jitter.fork(k))
        image = torch.lerp(image, paint, drawn.coverage[:, None])
    for drawn in objects:
        masks.append(seen * drawn.coverage)
        seen = seen * (1 - drawn.coverage)
    image, plate = draw_words(image, table.word)
    masks = torch.stack(masks, dim=1) * (1 - plate)[:, None]
    return Rendered(_noisy(image, table.noise, random.fork(_NOISE)), masks, plate)


def _ground(table: Table, u: Tensor, v: Tensor, size: int, random: ImageRandom) -> Tensor:
    """The background, lit from one side."""
    share = background(table.background, u, v, 1 / size, random.fork(_BACKGROUND).uniform(4))
    tones = tint_values().to(u.device)[table.tint]  # (n, 2, 3)
    image = torch.lerp(tones[:, 0, :, None, None], tones[:, 1, :, None, None], share[:, None])
    return image * (1 + _lit(table, u - 0.5, 0.5 - v, 0.12))[:, None]


def _lit(table: Table, right: Tensor, up: Tensor, strength: float) -> Tensor:
    """How much brighter a point is, from where it lies towards the light."""
    toward = table.light.cos()[:, None, None] * right + table.light.sin()[:, None, None] * up
    return strength * table.shading[:, None, None] * toward


class _Drawn:
    """One object slot of all scenes: where it covers, where its shadow falls, and what it looks like."""

    def __init__(self, table: Table, k: int, u: Tensor, v: Tensor, size: int):
        there = table.shape[:, k] != NOTHING
        shape, radius = table.shape[:, k].clamp_min(0), (table.size[:, k] / 2)[:, None, None]
        self.right = (u - table.x[:, k, None, None]) / radius  # in radii of the object, upright
        self.up = (table.y[:, k, None, None] - v) / radius
        self.pixel = 1 / (size * radius)
        cos, sin = table.rotation[:, k].cos()[:, None, None], table.rotation[:, k].sin()[:, None, None]
        self.x, self.y = cos * self.right + sin * self.up, cos * self.up - sin * self.right
        self.distance = signed_distance(shape, self.x, self.y)
        self.coverage = (0.5 - self.distance / self.pixel).clamp(0, 1) * there[:, None, None]
        across, up = (0.14 * way[:, None, None] for way in (table.light.cos(), table.light.sin()))
        shaded = signed_distance(shape, self.x + cos * across + sin * up, self.y + cos * up - sin * across)
        self.shadow = (0.5 - shaded / 0.28).clamp(0, 1) * (table.shading * there)[:, None, None]

    def paint(self, table: Table, k: int, random: ImageRandom) -> Tensor:
        """Color of the object at every point, (n, 3, s, s)."""
        named = color_values().to(self.x.device)[table.color[:, k]]
        first = (named + random.uniform(3, low=-_JITTER, high=_JITTER, dtype=named.dtype)).clamp(0, 1)  # (n, 3)
        second = torch.where(_lightens(first, table.tint), 0.45 * first + 0.55, 0.45 * first)
        share = texture(table.texture[:, k], self.x, self.y, self.pixel)
        color = torch.lerp(first[:, :, None, None], second[:, :, None, None], share[:, None])
        rim = (0.5 + (self.distance + _RIM) / self.pixel.clamp_min(_RIM)).clamp(0, 1)
        light = (1 + _lit(table, self.right, self.up, 0.22)) * (1 - 0.3 * rim)
        return color * light[:, None]


def _lightens(color: Tensor, tint: Tensor) -> Tensor:
    """Whether a texture's second tone is lighter than the first: where the color or the background is dark, (n, 1)."""
    brightness = color.mean(dim=1, keepdim=True)
    behind = tint_values().to(color.device)[tint].mean(dim=(1, 2))[:, None]
    return (brightness < 0.30) | ((behind < 0.35) & (brightness < 0.75))


def _noisy(image: Tensor, noise: Tensor, random: ImageRandom) -> Tensor:
    """Uniform noise of the given standard deviation on every value, and back into [0, 1]."""
    if noise.any():
        width = math.sqrt(3) * noise[:, None, None, None]
        image = image + width * random.uniform(*image.shape[1:], low=-1, high=1, dtype=image.dtype)
    return image.clamp(0, 1)
