"""What is in each scene: the attribute table that images, masks, labels and captions are all made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from thesis_kit.checks import choose
from thesis_kit.data.scenes.shapes import inner_radius
from thesis_kit.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLORS,
    NOTHING,
    RELATIONS,
    SHAPES,
    TEXTURES,
    THEMES,
    TINTS,
    visible,
)
from thesis_kit.randomness import ImageRandom

NAMES = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "background": BACKGROUNDS,
    "tint": tuple(TINTS),
    "relation": RELATIONS,
}
WORDS = (*SHAPES, *THEMES)  # what may be drawn over a scene


class ImpossibleScene(ValueError):
    """A scene asked for that cannot be drawn as asked; the sentence says which and why."""


@dataclass(frozen=True)
class Table:
    """n scenes of up to k objects, object 0 the main one; names are positions in the tuples of ``vocabulary``.

    ``ids`` (n,) with ``seed`` fix everything random that is no attribute (the look of a background, small changes of
    color, pixel noise), so a table whose attributes are edited renders as the same scene otherwise. A scene's fields
    may be replaced (``dataclasses.replace``) and rendered: interventions with known truth.
    """

    seed: int
    ids: Tensor  # (n,) int64
    shape: Tensor  # (n, k) int64, NOTHING where there is no such object
    color: Tensor  # (n, k) int64
    texture: Tensor  # (n, k) int64
    size: Tensor  # (n, k) diameter of the disk around the object, as a share of the image's width
    x: Tensor  # (n, k) center, from left
    y: Tensor  # (n, k) center, from the top
    rotation: Tensor  # (n, k) radians, counter-clockwise
    relation: Tensor  # (n,) int64: object 0 is … object 1; "alike" for copies of object 0
    background: Tensor  # (n,) int64
    tint: Tensor  # (n,) int64
    light: Tensor  # (n,) radians: where the light comes from
    shading: Tensor  # (n,) 0 flat … 1 strong
    noise: Tensor  # (n,) standard deviation of the pixels' noise
    word: Tensor  # (n,) int64 index of a shape's or theme's name drawn over the scene, NOTHING for none

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Tensor) -> Table:
        return Table(self.seed, *(getattr(self, field.name)[index] for field in fields(self)[1:]))

    def to(self, device: torch.device | str) -> Table:
        """The same table on another device."""
        return Table(self.seed, *(getattr(self, field.name).to(device) for field in fields(self)[1:]))

    @property
    def present(self) -> Tensor:
        """Which objects there are, (n, k) bool."""
        return self.shape != NOTHING

    def random(self) -> ImageRandom:
        """The scenes' own random numbers."""
        return ImageRandom(self.seed, self.ids)

    def describe(self, i: int) -> dict:
        """Scene i by names: {"relation": …, "background": …, …, "objects": [{"shape": …, …}, …]}."""
        objects = [
            {key: NAMES[key][int(getattr(self, key)[i, k])] for key in ("shape", "color", "texture")}
            | {key: float(getattr(self, key)[i, k]) for key in ("size", "x", "y", "rotation")}
            for k in range(self.shape.shape[1])
            if self.present[i, k]
        ]
        whole = {key: NAMES[key][int(getattr(self, key)[i])] for key in ("relation", "background", "tint")}
        word = None if self.word[i] == NOTHING else WORDS[int(self.word[i])]
        return {**whole, "word": word, "objects": objects}


_KNOWN = ("objects", "relation", "background", "tint", "light", "shading", "noise", "word")
_TOUCHES = 1e-5  # of the image's width: how far float32 may miss what a relation asks for
_DEFAULTS = {"color": "red", "texture": "solid", "size": 0.6, "x": 0.5, "y": 0.5, "rotation": 0.0}


def compose(scenes: Iterable[Mapping], *, seed: int = 0) -> Table:
    """Return a table of scenes written down by hand, as ``Table.describe`` gives them.

    Args:
        scenes: one mapping a scene: ``objects``, a list of mappings with ``shape`` and, where wanted, ``color``,
            ``texture``, ``size``, ``x``, ``y`` and ``rotation``; ``background``, ``tint``, ``relation``, ``light``,
            ``shading``, ``noise``, ``word``. A mapping with ``shape`` and no ``objects`` is a scene of that object.
        seed: of everything random that is no attribute.

    Raises:
        UnknownName: a name is not in the vocabulary, or a mapping has a key that no scene has; near names are offered.
        ImpossibleScene: no scene, an object that cannot be seen, one too large for its container, and the like.

    Examples:
        >>> table = tk.data.scenes.compose([{"shape": "star"}, {"shape": "heart"}])
        >>> len(table)
        2
    """
    scenes = [_with_objects(scene) for scene in scenes]
    if not scenes:
        raise ImpossibleScene("there is no scene to compose: give at least one")
    n, k = len(scenes), max(len(scene["objects"]) for scene in scenes)
    if k == 0:
        raise ImpossibleScene("a scene needs at least one object")
    columns: dict[str, Tensor] = {"shape": torch.full((n, k), NOTHING)}
    for key in ("color", "texture"):
        columns[key] = torch.zeros((n, k), dtype=torch.int64)
    for key in ("size", "x", "y", "rotation"):
        columns[key] = torch.full((n, k), float(_DEFAULTS[key]))
    for i, scene in enumerate(scenes):
        for key in scene:
            choose(key, (*_KNOWN, "shape", *_DEFAULTS), "attribute of a scene")
        for j, thing in enumerate(scene["objects"]):
            for key in thing:
                choose(key, ("shape", *_DEFAULTS), "attribute of an object")
            for key, value in {**_DEFAULTS, **thing}.items():
                columns[key][i, j] = _number(key, value)
    whole = {"relation": "none", "background": "plain", "tint": "azure", "light": 2.2, "shading": 0.6, "noise": 0.0}
    for key, default in whole.items():
        columns[key] = torch.tensor([_number(key, scene.get(key, default)) for scene in scenes])
    columns["word"] = torch.tensor([_word(scene.get("word")) for scene in scenes])
    table = Table(seed=seed, ids=torch.arange(n), **columns)
    check_possible(table)
    return table


def _with_objects(scene: Mapping) -> dict:
    own = {"shape", *_DEFAULTS} & set(scene)
    if "objects" in scene or not own:
        return {"objects": [], **scene}
    return {**{k: v for k, v in scene.items() if k not in own}, "objects": [{key: scene[key] for key in own}]}


def _number(key: str, value: str | float) -> float | int:
    names = NAMES.get(key)
    return float(value) if names is None else names.index(choose(value, names, key))


def _word(word: str | None) -> int:
    return NOTHING if word is None else WORDS.index(choose(word, WORDS, "word"))


def check_possible(table: Table) -> None:
    """Raise ``ImpossibleScene`` for the first scene that cannot be drawn as its table says."""
    present = table.present
    problems = {
        "has no object": ~present.any(dim=1),
        "lacks its main object": ~present[:, 0],
        "has an object whose color does not stand out from the background's tint": (
            present & ~visible().to(table.color.device)[table.color, table.tint[:, None]]
        ).any(dim=1),
        "has an object of no size or larger than the image": (
            present & ~((table.size > 0) & (table.size <= 1))
        ).any(dim=1),
        "has an object whose center lies outside the image": (
            present & ~((table.x >= 0) & (table.x <= 1) & (table.y >= 0) & (table.y <= 1))
        ).any(dim=1),
        "has a relation and not two objects": (table.relation != 0) & (present.sum(dim=1) < 2),
        "has objects that do not stand as their relation says": ~_stand(table),
        "has noise or shading outside [0, 1]": ~(
            (table.noise >= 0) & (table.noise <= 1) & (table.shading >= 0) & (table.shading <= 1)
        ),
    }  # fmt: skip
    for problem, where in problems.items():
        if where.any():
            i = int(where.int().argmax())
            raise ImpossibleScene(f"scene {i} {problem}: {_said(table, i)}")


def _said(table: Table, i: int) -> str:
    scene = table.describe(i)
    things = ", ".join(f"{o['color']} {o['shape']} of size {o['size']:.2f}" for o in scene["objects"]) or "nothing"
    return f"{things}, relation {scene['relation']!r}, tint {scene['tint']!r}"


def _stand(table: Table) -> Tensor:
    """Whether objects 0 and 1 stand to each other as the relation says, (n,) bool."""
    if table.shape.shape[1] < 2:
        return torch.ones(len(table), dtype=torch.bool, device=table.ids.device)
    right, below = table.x[:, 0] - table.x[:, 1], table.y[:, 0] - table.y[:, 1]
    apart = (table.size[:, 0] + table.size[:, 1]) / 2 - _TOUCHES
    offered = table.size[:, 1] / 2 * inner_radius().to(right.device)[table.shape[:, 1].clamp_min(0)]
    alike = (table.present[:, 1:] <= (table.shape[:, 1:] == table.shape[:, :1])).all(dim=1)
    truth = {
        "none": torch.ones_like(alike),
        "left of": right <= -apart,
        "right of": right >= apart,
        "above": below <= -apart,
        "below": below >= apart,
        "inside": torch.hypot(right, below) + table.size[:, 0] / 2 <= offered + _TOUCHES,
        "alike": alike,
    }
    return torch.stack([truth[name] for name in RELATIONS]).gather(0, table.relation[None])[0]


def relate(table: Table, **columns: Tensor) -> Table:
    """The table with some columns replaced, checked."""
    edited = replace(table, **columns)
    check_possible(edited)
    return edited
