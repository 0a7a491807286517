"""Distributions for supervision by language beside ``scenes.v1-pairs``; edits of scenes and of what is said of them.

Frozen under their names as all distributions are: colors tied to the class, so that captions leak them, and words drawn
over a scene that name what is in it, as words in photographs do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from thesis_kit.data.scenes.distributions import DISTRIBUTIONS, Distribution
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import NOTHING, RELATIONS, SHAPES
from thesis_kit.randomness import ImageRandom

PAIRS = DISTRIBUTIONS["scenes.v1-pairs"]
_TRUE, _FALSE = 105, 106  # streams of a scene's random numbers
_DIRECTED = tuple(place for place, name in enumerate(RELATIONS) if name not in ("none", "alike"))


@dataclass(frozen=True)
class Named(Distribution):
    """A distribution in which a drawn word names the main object with probability ``told``, else any class."""

    told: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.told <= 1:
            raise ValueError(f"told must lie in [0, 1], got {self.told}")

    def sample(self, ids: Tensor, *, seed: int) -> Table:
        """The attribute table of scenes ``ids`` (n,) int64 of stream ``seed``, on the device of ``ids``."""
        table = super().sample(ids, seed=seed)
        true = ImageRandom(seed, ids).fork(_TRUE).uniform(dtype=torch.float64) < self.told
        return replace(table, word=torch.where((table.word != NOTHING) & true, table.shape[:, 0], table.word))


def _knobs(**changed: object) -> dict:
    return {**vars(PAIRS), **changed}


LANGUAGE = MappingProxyType({
    one.name: one
    for one in (
        PAIRS,
        Distribution(**_knobs(name="scenes.v1-pairs-biased", correlated="color", correlation=0.9)),
        Named(**_knobs(name="scenes.v1-pairs-named", words=0.5), told=0.9),
    )
})  # fmt: skip


def directed(table: Table) -> Tensor:
    """Which scenes are pairs whose relation changes when the two change places in the sentence, (n,) bool."""
    return torch.isin(table.relation, torch.tensor(_DIRECTED, device=table.relation.device))


def swapped(table: Table) -> Table:
    """The table with what is said of objects 0 and 1 exchanged in directed pairs, for captions that are false.

    "A red star left of a blue ring" becomes "a blue ring left of a red star", in the same words otherwise. It is no
    table of a scene: places and sizes stay, and it is not to be rendered.
    """
    if table.shape.shape[1] < 2:
        return table
    rows = directed(table)[:, None]
    order = torch.arange(table.shape.shape[1])
    order[:2] = torch.tensor([1, 0])
    columns = {key: getattr(table, key) for key in ("shape", "color", "texture")}
    return replace(table, **{key: torch.where(rows, column[:, order], column) for key, column in columns.items()})


def misnamed(table: Table) -> Table:
    """The same scenes with the name of another shape than the main object's drawn over each."""
    u = table.random().fork(_FALSE).uniform(dtype=torch.float64)
    other = 1 + (u * (len(SHAPES) - 1)).long()
    return replace(table, word=(table.shape[:, 0] + other) % len(SHAPES))


def unnamed(table: Table) -> Table:
    """The same scenes without words."""
    return replace(table, word=torch.full_like(table.word, NOTHING))
