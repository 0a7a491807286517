"""Every word that a sentence about scenes can have, in an order that the weights of text towers rest on.

What exists is never reordered or removed; a new word goes to the end, and weights made before do not know it.
"""

from __future__ import annotations

from thesis_kit.data.scenes.vocabulary import COLORS, SHAPES, THEMES
from thesis_kit.data.text import Vocabulary

_PLURALS = (
    "disks", "stars", "crescents", "rings", "hearts", "diamonds", "spades", "clubs", "triangles", "squares", "arrows",
    "crosses", "drops", "leaves", "flowers", "mushrooms",
)  # fmt: skip
_TEXTURES = ("plain", "striped", "dotted", "checkered", "stripes", "dots", "checker", "pattern")
_PLACES = (
    "background", "wall", "sky", "clouds", "cloudy", "waves", "brick", "bricks", "diagonal", "diagonals", "tiles",
    "tiled", "hills",
)  # fmt: skip
_RELATIONS = ("left", "right", "above", "below", "inside", "over", "under", "within", "to", "the", "of")
_FUNCTION = (
    "a", "an", "picture", "image", "this", "is", "there", "we", "see", "with", "on", "in", "before", "shape", "shapes",
    "two", "three", "one", "small", "large",
)  # fmt: skip
LEXICON = (*_FUNCTION, *SHAPES, *_PLURALS, *COLORS, *_TEXTURES, *_PLACES, *_RELATIONS, *THEMES)


def vocabulary(context: int = 28) -> Vocabulary:
    """The scenes' words for a text tower; the longest caption has 26."""
    return Vocabulary(LEXICON, context)
