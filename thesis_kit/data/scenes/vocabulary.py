"""The words of the scenes: shapes, colors, textures, backgrounds, tints, relations and themes, with what each means.

An attribute's value is its position in one of these tuples. They belong to the frozen name ``scenes.v1``: what exists
is never reordered or removed.
"""

from __future__ import annotations

import torch

THEMES = {  # words that group visually unlike shapes: only language holds them together
    "celestial": ("disk", "star", "crescent", "ring"),
    "card": ("heart", "diamond", "spade", "club"),
    "sign": ("triangle", "square", "arrow", "cross"),
    "garden": ("drop", "leaf", "flower", "mushroom"),
}
SHAPES = tuple(shape for shapes in THEMES.values() for shape in shapes)
THEME_OF = {shape: theme for theme, shapes in THEMES.items() for shape in shapes}

COLORS = {  # sRGB in 0 … 1
    "red": (0.84, 0.13, 0.14),
    "orange": (0.97, 0.53, 0.08),
    "yellow": (0.98, 0.87, 0.12),
    "green": (0.13, 0.58, 0.22),
    "turquoise": (0.08, 0.74, 0.72),
    "blue": (0.12, 0.28, 0.80),
    "purple": (0.50, 0.18, 0.66),
    "pink": (0.98, 0.45, 0.68),
    "brown": (0.45, 0.26, 0.12),
    "white": (0.97, 0.97, 0.97),
    "black": (0.07, 0.07, 0.09),
}
TEXTURES = ("solid", "stripes", "dots", "checker")
BACKGROUNDS = ("plain", "sky", "waves", "bricks", "rings", "diagonals", "tiles", "hills")
TINTS = {  # the two tones of a background
    "azure": ((0.80, 0.89, 0.97), (0.56, 0.71, 0.88)),
    "sage": ((0.84, 0.91, 0.80), (0.61, 0.75, 0.60)),
    "sand": ((0.95, 0.89, 0.77), (0.83, 0.71, 0.53)),
    "rose": ((0.95, 0.84, 0.83), (0.84, 0.65, 0.65)),
    "slate": ((0.72, 0.74, 0.77), (0.50, 0.53, 0.57)),
    "night": ((0.27, 0.29, 0.43), (0.13, 0.15, 0.27)),
}
RELATIONS = ("none", "left of", "right of", "above", "below", "inside", "alike")
NOTHING = -1  # in place of a shape where a scene has no such object, in place of a word where none is drawn

_LEAST_DISTANCE = 0.36  # in RGB, between an object's color and both tones of its background


def color_values() -> torch.Tensor:
    """RGB of the named colors, (11, 3)."""
    return torch.tensor(list(COLORS.values()))


def tint_values() -> torch.Tensor:
    """RGB of the two tones of each tint, (6, 2, 3)."""
    return torch.tensor(list(TINTS.values()))


def visible() -> torch.Tensor:
    """Which color stands out from which tint, (11, 6) bool."""
    distance = (color_values()[:, None, None] - tint_values()).norm(dim=-1)  # (11, 6, 2)
    return distance.amin(dim=-1) >= _LEAST_DISTANCE
