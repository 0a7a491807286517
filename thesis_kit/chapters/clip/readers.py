"""What others read in a picture that a pair drew: its shape by a verifier of the zoo, its color by how much of which
color there is. Neither shares a weight with the pair.

Colors are averaged over squares first: a drawing's single pixels are noise of all colors.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit import training
from thesis_kit.asking import evaluating
from thesis_kit.data import Part
from thesis_kit.data.scenes import Scenes
from thesis_kit.data.scenes.vocabulary import COLORS, SHAPES

_STEPS = 5  # of each of red, green and blue
_SQUARE = 8  # pixels


class ColorHistogram(nn.Module):
    """Pixels in [0, 1] to the square roots of the shares of 125 colors among squares of 8 × 8 pixels, (n, 125)."""

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 125"]:
        red, green, blue = (F.avg_pool2d(x, _SQUARE) * _STEPS).long().clamp(max=_STEPS - 1).unbind(1)  # (n, h, w) each
        which = (red * _STEPS + green) * _STEPS + blue
        return F.one_hot(which.flatten(1), _STEPS**3).float().mean(dim=1).sqrt()


def color_reader(scenes: Scenes) -> nn.Module:
    """A linear reader of the main object's color from its picture's colors, fitted to scenes; logits of ``COLORS``."""
    part = Part(scenes.images, scenes.table.color[:, 0], scenes.table.ids)
    blank = nn.Sequential(ColorHistogram(), nn.Linear(_STEPS**3, len(COLORS))).to(scenes.images.device)
    return training.linear_head(blank, part, n_classes=len(COLORS), penalty=0.1)


def read(
    pictures: Float[Tensor, "n 3 s s"], verifier: nn.Module, colors: nn.Module
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The shape and the color that are read in each picture, positions in ``SHAPES`` and ``COLORS``."""
    with evaluating(verifier), evaluating(colors), torch.no_grad():
        return verifier(pictures).argmax(dim=1), colors(pictures).argmax(dim=1)


def as_words(shapes: Int[Tensor, " n"], colors: Int[Tensor, " n"]) -> list[str]:
    """What is read, "red star"."""
    return [f"{list(COLORS)[int(color)]} {SHAPES[int(shape)]}" for shape, color in zip(shapes, colors, strict=True)]
