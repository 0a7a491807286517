"""Words drawn over a scene: black capital letters, three by five dots each, on a light plate along the lower edge."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from thesis_kit.data.scenes.table import WORDS
from thesis_kit.data.scenes.vocabulary import NOTHING

_LETTERS = {  # rows from the top, each three dots
    "A": "010 101 111 101 101", "B": "110 101 110 101 110", "C": "011 100 100 100 011", "D": "110 101 101 101 110",
    "E": "111 100 110 100 111", "F": "111 100 110 100 100", "G": "011 100 101 101 011", "H": "101 101 111 101 101",
    "I": "111 010 010 010 111", "J": "001 001 001 101 010", "K": "101 101 110 101 101", "L": "100 100 100 100 111",
    "M": "101 111 111 101 101", "N": "110 101 101 101 101", "O": "010 101 101 101 010", "P": "110 101 110 100 100",
    "Q": "010 101 101 111 011", "R": "110 101 110 101 101", "S": "011 100 010 001 110", "T": "111 010 010 010 010",
    "U": "101 101 101 101 111", "V": "101 101 101 101 010", "W": "101 101 111 111 101", "X": "101 101 010 101 101",
    "Y": "101 101 010 010 010", "Z": "111 001 010 100 111",
}  # fmt: skip
_PLATE, _INK = 0.96, 0.08
_COLUMNS = 36  # dots across an image: nine letters of three dots and the space between them
_ROWS = 7  # dots of the plate's height: a letter and a margin above and below


@cache
def _prints() -> Tensor:
    """Every word in dots, (words, 7, 36): −1 no plate, 0 plate, 1 ink."""
    prints = torch.full((len(WORDS), _ROWS, _COLUMNS), -1.0)
    for index, word in enumerate(WORDS):
        start = (_COLUMNS - 4 * len(word)) // 2
        prints[index, :, max(start - 1, 0) : start + 4 * len(word)] = 0.0
        for place, letter in enumerate(word.upper()):
            rows = [[float(dot) for dot in row] for row in _LETTERS[letter].split()]
            left = start + 4 * place
            prints[index, 1:6, left : left + 3] = torch.tensor(rows)
    return prints


def draw_words(image: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Draw each image's word (n,), NOTHING for none; the images and the share of each pixel the plates cover."""
    plate = image.new_zeros(len(image), *image.shape[-2:])
    if not (word != NOTHING).any():
        return image, plate
    rows = (word != NOTHING).nonzero()[:, 0]
    size = image.shape[-1]
    dots = _prints().to(image)[word[rows]]  # (m, 7, 36)
    height = max(round(_ROWS * size / _COLUMNS), 1)
    cover = _enlarged((dots >= 0).to(image.dtype), height, size)
    ink = _enlarged((dots > 0).to(image.dtype), height, size)
    top = size - height - round(size / _COLUMNS)
    plate[rows, top : top + height] = cover
    image = image.clone()
    strip = image[rows, :, top : top + height]
    lettered = (_PLATE + (_INK - _PLATE) * ink / cover.clamp_min(1e-6))[:, None]
    image[rows, :, top : top + height] = torch.lerp(strip, lettered.expand_as(strip), cover[:, None])
    return image, plate


def _enlarged(dots: Tensor, height: int, width: int) -> Tensor:
    """Dots as pixels, each covering the same area (exact averages where pixels are larger than dots)."""
    return torch.nn.functional.interpolate(dots[:, None], (height, width), mode="area")[:, 0]
