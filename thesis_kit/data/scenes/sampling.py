"""How the attribute table of a distribution is drawn: each column from random numbers of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thesis_kit.data.scenes.shapes import inner_radius
from thesis_kit.data.scenes.table import WORDS, Table
from thesis_kit.data.scenes.vocabulary import BACKGROUNDS, COLORS, NOTHING, RELATIONS, SHAPES, TEXTURES, TINTS, visible
from thesis_kit.randomness import ImageRandom

MARGIN, _GAP = 0.03, 0.03  # around and between objects, as shares of the image
_STREAMS = ("shape", "background", "color", "texture", "tint", "layout", "place", "turn", "light", "word", "others")
_FIT = 0.9  # an inner object fills at most this share of the disk its container offers
_CONTAINERS = 0.45  # least inner radius of a container


def positions(names: tuple[str, ...], known: Mapping | tuple) -> Tensor:
    """Where the names stand in a vocabulary, int64."""
    order = list(known)
    return torch.tensor([order.index(name) for name in names])


class Sampler:
    """Draws the columns of a table; each attribute has its own random numbers, so that a new one changes no other.

    ``knobs`` is the ``Distribution``, ``ids`` (n,) int64 are the scenes of stream ``seed``.
    """

    def __init__(self, knobs: Any, ids: Tensor, seed: int):
        self.knobs, self.ids, self.seed = knobs, ids, seed
        random = ImageRandom(seed, ids)
        self.streams = {name: random.fork(index) for index, name in enumerate(_STREAMS)}

    def _u(self, stream: str, *shape: int) -> Tensor:
        return self.streams[stream].uniform(*shape, dtype=torch.float64)

    def _pick(self, names: tuple[str, ...], known: Mapping | tuple, u: Tensor) -> Tensor:
        """One of the names for each uniform number, as a position in the vocabulary."""
        order = positions(names, known).to(u.device)
        return order[(u * len(names)).long()]

    def table(self) -> Table:
        """The attribute table."""
        knobs, u = self.knobs, self._u
        label = (u("shape") * len(knobs.classes)).long()
        layout = self._layout()
        shape = self._shapes(label, layout)
        own = self._own(label)
        color, texture = self._colors(layout, own), self._textures(layout, own)
        background = self._tied("background", own, self._pick(knobs.backgrounds, BACKGROUNDS, u("background")))
        geometry = self._geometry(layout, shape)
        light, shading, noise = u("light"), u("light"), u("light")
        return Table(
            seed=self.seed, ids=self.ids, shape=shape, color=color, texture=texture, **geometry,
            background=background, tint=self._tints(color, shape),
            light=(math.pi * (0.15 + 0.7 * light)).float(),
            shading=(knobs.shading * (0.5 + 0.5 * shading)).float(), noise=(knobs.noise * noise).float(),
            word=self._words(),
        )  # fmt: skip

    def _layout(self) -> Tensor:
        """0 single, 1 pair, 2 group."""
        single, pair = (self.knobs.layouts.get(name, 0.0) for name in ("single", "pair"))
        u = self._u("layout")
        return (u >= single).long() + (u >= single + pair).long()

    def _own(self, label: Tensor) -> Tensor:
        """The label where the class decides the correlated attribute, else NOTHING."""
        return torch.where(self._u("others") < self.knobs.correlation, label, NOTHING)

    def _tied(self, attribute: str, own: Tensor, free: Tensor) -> Tensor:
        """The class's own value of the attribute where it is tied to the class, else the one drawn freely."""
        if attribute != self.knobs.correlated:
            return free
        known = {"background": BACKGROUNDS, "color": COLORS, "texture": TEXTURES}[attribute]
        names = getattr(self.knobs, f"{attribute}s")
        order = positions(names, known).to(own.device)
        return torch.where(own == NOTHING, free, order[own.clamp_min(0) % len(names)])

    def _shapes(self, label: Tensor, layout: Tensor) -> Tensor:
        """Shape of each slot: the label's, then another's in a pair, the same again in a group."""
        knobs = self.knobs
        classes = positions(knobs.classes, SHAPES).to(label.device)
        shape = torch.full((len(label), knobs.slots), NOTHING, device=label.device)
        shape[:, 0] = classes[label]
        if knobs.slots > 1:
            step = 1 + (self._u("layout") * max(len(classes) - 1, 1)).long()
            other = classes[(label + step) % len(classes)]
            self.relation, container = self._relations(shape[:, 0], layout, classes)
            other = torch.where(self.relation == RELATIONS.index("inside"), container, other)
            shape[:, 1] = torch.where(layout == 1, other, shape[:, 1])
        if knobs.slots > 2:
            three = self._u("layout") < 0.5
            shape[:, 1] = torch.where(layout == 2, shape[:, 0], shape[:, 1])
            shape[:, 2] = torch.where((layout == 2) & three, shape[:, 0], shape[:, 2])
        return shape

    def _relations(self, first: Tensor, layout: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Each scene's relation, and the container where the first object is to lie inside another."""
        roomy = classes[inner_radius().to(classes.device)[classes] >= _CONTAINERS]
        itself = first[:, None] == roomy  # (n, containers)
        choices = len(roomy) - itself.sum(dim=1)
        turn = (self._u("layout") * (4 + (choices > 0))).long()  # left of, right of, above, below, perhaps inside
        relation = torch.where(layout == 1, 1 + turn, torch.where(layout == 2, RELATIONS.index("alike"), 0))
        if not len(roomy):  # nothing lies inside anything
            return relation, first
        place = (self._u("layout") * choices).long()
        place = place + (itself.int().argmax(dim=1) <= place) * itself.any(dim=1)
        return relation, roomy[place.clamp(0, len(roomy) - 1)]

    def _colors(self, layout: Tensor, own: Tensor) -> Tensor:
        """Colors of all slots: a pair's differ, a group's are the same."""
        names, n = self.knobs.colors, self.knobs.slots
        order = positions(names, COLORS).to(own.device)
        first = self._tied("color", own, order[(self._u("color") * len(names)).long()])
        place = (first[:, None] == order).int().argmax(dim=1)
        second = order[(place + 1 + (self._u("color") * max(len(names) - 1, 1)).long()) % len(names)]
        return torch.stack([first, *[torch.where(layout == 1, second, first)] * (n - 1)], dim=1)

    def _textures(self, layout: Tensor, own: Tensor) -> Tensor:
        """Textures of all slots: a pair's are drawn one by one, a group's are the same."""
        names, n = self.knobs.textures, self.knobs.slots
        first = self._tied("texture", own, self._pick(names, TEXTURES, self._u("texture")))
        second = self._pick(names, TEXTURES, self._u("texture"))
        return torch.stack([first, *[torch.where(layout == 1, second, first)] * (n - 1)], dim=1)

    def _tints(self, color: Tensor, shape: Tensor) -> Tensor:
        """A tint from which every object of the scene stands out, each such tint equally often."""
        tints = positions(self.knobs.tints, TINTS).to(color.device)
        fits = (visible().to(color.device)[color][:, :, tints] | (shape == NOTHING)[:, :, None]).all(
            dim=1
        )  # (n, tints)
        wanted = (self._u("tint") * fits.sum(dim=1)).long()
        return tints[((fits.cumsum(dim=1) - 1 == wanted[:, None]) & fits).int().argmax(dim=1)]

    def _words(self) -> Tensor:
        word = self._pick(self.knobs.classes, WORDS, self._u("word"))
        return torch.where(self._u("word") < self.knobs.words, word, NOTHING)

    def _geometry(self, layout: Tensor, shape: Tensor) -> dict[str, Tensor]:
        """Relation, and size, place and rotation of every slot."""
        slots = self.knobs.slots
        size, x, y = (column.repeat(1, slots) for column in self._single())
        relation = torch.zeros_like(layout)
        if slots > 1:
            relation = self.relation
            pair = self._pair(relation, shape[:, 1])
            size, x, y = (_where(layout == 1, new, old) for new, old in zip(pair, (size, x, y), strict=True))
        if slots > 2:
            group = self._group((shape != NOTHING).sum(dim=1))
            size, x, y = (_where(layout == 2, new, old) for new, old in zip(group, (size, x, y), strict=True))
        turn = math.radians(self.knobs.turn) * (2 * self._u("turn", slots) - 1)
        geometry = {"size": size, "x": x, "y": y, "rotation": turn}
        return {"relation": relation, **{key: column.float() for key, column in geometry.items()}}

    def _sizes(self, n: int, largest: float) -> Tensor:
        """Diameters (n_scenes, n), as the knob says but none above ``largest``."""
        low, high = (min(bound, largest) for bound in self.knobs.size)
        low = min(low, 0.75 * high) if high == largest else low  # room for variety where the bound cuts the range
        return low + (high - low) * self._u("place", n)

    def _free(self, size: Tensor) -> Tensor:
        """Centers that keep objects of these sizes inside the margins."""
        reach = size / 2 + MARGIN
        return reach + (1 - 2 * reach) * self._u("place", size.shape[1])

    def _single(self) -> tuple[Tensor, Tensor, Tensor]:
        size = self._sizes(1, 1.0)
        return size, self._free(size), self._free(size)

    def _pair(self, relation: Tensor, container: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Object 0 left of, right of, above, below or inside object 1."""
        size = self._sizes(2, (1 - 2 * MARGIN - _GAP) / 2)
        slack = 1 - 2 * MARGIN - _GAP - size.sum(dim=1)
        start = MARGIN + slack * self._u("place")
        across = self._free(size)  # on the other axis
        swapped = ((relation == 2) | (relation == 4))[:, None]  # right of, below: object 1 comes first
        ordered = torch.where(swapped, size.flip(1), size)
        along = torch.stack([start + ordered[:, 0] / 2, start + ordered[:, 0] + _GAP + ordered[:, 1] / 2], dim=1)
        along = torch.where(swapped, along.flip(1), along)
        level = (relation <= 2)[:, None]
        x, y = torch.where(level, along, across), torch.where(level, across, along)
        inside = relation == RELATIONS.index("inside")
        return tuple(map(self._padded, (
            _where(inside, new, old)
            for new, old in zip(self._inside(container), (size, x, y), strict=True)
        )))  # fmt: skip

    def _inside(self, container: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two objects with one center, the first within the inner disk of the second."""
        outer = 0.72 + 0.20 * self._u("place", 1)
        offered = _FIT * outer * inner_radius().to(outer)[container.clamp_min(0)][:, None]
        size = torch.cat([offered * (0.8 + 0.2 * self._u("place", 1)), outer], dim=1)
        x, y = (self._free(outer).repeat(1, 2) for _ in range(2))
        return size, x, y

    def _group(self, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two or three objects of one size around the middle."""
        size = self._sizes(1, 0.40)
        reach = 0.5 - MARGIN - size / 2
        slot = torch.arange(self.knobs.slots, device=size.device)
        angle = 2 * math.pi * (self._u("place", 1) + slot / count.clamp_min(1)[:, None])
        return size.repeat(1, len(slot)), 0.5 + reach * angle.cos(), 0.5 + reach * angle.sin()

    def _padded(self, column: Tensor) -> Tensor:
        """Two slots as many as the table has."""
        return torch.cat([column, column[:, :1].repeat(1, self.knobs.slots - 2)], dim=1)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows[:, None], new, old)
