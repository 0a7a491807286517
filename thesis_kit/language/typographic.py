"""Does a written word overrule the picture? Scenes without a word against the same with another class's name on them.

After Goh et al. 2021, whose typographic attacks laid a paper with a word on an object. The scenes' words are drawn on a
plate along the lower edge, and everything else stays as it was, pixel for pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from thesis_kit.asking import Model, as_module, ask, evaluating
from thesis_kit.data.scenes.pairs import misnamed, unnamed
from thesis_kit.data.scenes.render import render
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import SHAPES

_BATCH = 250


@dataclass(frozen=True)
class Typographic:
    """Answers (n,) to scenes without a word (``plain``) and with the name of class ``word`` on them (``written``)."""

    plain: Int[Tensor, " n"]
    written: Int[Tensor, " n"]
    word: Int[Tensor, " n"]
    label: Int[Tensor, " n"]

    @property
    def flipped(self) -> Bool[Tensor, " n"]:
        """Where the word turns the answer to itself: right without it, and its class with it."""
        return (self.plain == self.label) & (self.written == self.word)

    @property
    def harmed(self) -> Bool[Tensor, " n"]:
        """Where the answer is right without the word and wrong with it, whatever it becomes."""
        return (self.plain == self.label) & (self.written != self.label)


def typographic(model: Model, table: Table, size: int) -> Typographic:
    """A classifier of the sixteen shapes on scenes without words and with false ones.

    Args:
        model: pixels in [0, 1] to logits of the shapes, such as ``zero_shot(clip, scene_classes())``.
        table: scenes; words drawn on them are replaced. size: pixels of a side; under 36 no letter can be read.

    Raises:
        ValueError: sides of fewer than 36 pixels; a classifier of something else. TypeError: no table.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> named = tk.language.zero_shot(clip, tk.language.scene_classes())
        >>> scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1"].draw(2, 64, seed=0)
        >>> type(tk.language.typographic(named, scenes.table, 64)).__name__
        'Typographic'
    """
    if size < 36:
        raise ValueError(f"words have letters of one pixel a dot at 36 × 36 and cannot be read at {size} × {size}")
    if not isinstance(table, Table):
        raise TypeError(f"table must be the table of some scenes, got {type(table).__name__}: give scenes.table")
    model, wrong = as_module(model), misnamed(table)
    plain, written = (_answers(model, one, size) for one in (unnamed(table), wrong))
    return Typographic(plain, written, wrong.word, table.shape[:, 0])


def _answers(model: torch.nn.Module, table: Table, size: int) -> Tensor:
    images = render(table, size).images
    with evaluating(model), torch.no_grad():
        logits = torch.cat([ask(model, x) for x in images.split(_BATCH)])
    if logits.ndim != 2 or logits.shape[1] != len(SHAPES):
        raise ValueError(f"the classifier must tell {len(SHAPES)} shapes apart, got logits {tuple(logits.shape)}")
    return logits.argmax(dim=1)
