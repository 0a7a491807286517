"""Which scenes there are: a distribution draws attribute tables, and its knobs say how hard and how biased they are.

Scene i of a stream is a function of (distribution, seed, i) alone, on any device and in any batch (its pixels up to
rounding in the last bits): fresh images for every training step, and test sets that need no file. Distributions are
frozen under their names; a result or a weight rests on a name and its hash. One that is better gets a new name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType

import torch
from torch import Tensor

from thesis_kit.checks import check_count, choose
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.data.scenes.captions import captions
from thesis_kit.data.scenes.render import LEAST_SIZE, Rendered, render
from thesis_kit.data.scenes.sampling import MARGIN, Sampler, positions
from thesis_kit.data.scenes.table import ImpossibleScene, Table
from thesis_kit.data.scenes.vocabulary import BACKGROUNDS, COLORS, SHAPES, TEXTURES, TINTS, visible
from thesis_kit.randomness import mix_seed

TRAIN, VALIDATION, TEST = 1, 2, 3  # streams of a run's seed
_CORRELATED = ("background", "color", "texture")


@dataclass(frozen=True)
class Distribution:
    """A distribution of scenes.

    Args:
        name: what results call it.
        classes: shapes of the main object; a label is a position in this tuple.
        colors, textures, backgrounds, tints: what may occur, each equally often, as far as a color can be seen.
        size: least and largest diameter of a single object, as a share of the image's width.
        turn: largest rotation to either side, in degrees.
        shading: strength of light and shadow in 0 … 1; a scene has between half of it and all.
        noise: standard deviation of the pixels' noise; a scene has between none of it and all.
        correlated: attribute tied to the class ("background", "color" or "texture").
        correlation: with this probability the attribute is the class's own, else any; 0 unties them.
        layouts: shares of scenes with a "single" object, a "pair" in a relation, and a "group" of two or three alike.
        words: share of scenes over which the name of a random class is drawn.
    """

    name: str
    classes: tuple[str, ...] = SHAPES
    colors: tuple[str, ...] = tuple(COLORS)
    textures: tuple[str, ...] = TEXTURES
    backgrounds: tuple[str, ...] = BACKGROUNDS
    tints: tuple[str, ...] = tuple(TINTS)
    size: tuple[float, float] = (0.45, 0.80)
    turn: float = 20.0
    shading: float = 1.0
    noise: float = 0.03
    correlated: str = "background"
    correlation: float = 0.0
    layouts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"single": 1.0}))
    words: float = 0.0

    def __post_init__(self) -> None:
        known = {"classes": SHAPES, "colors": COLORS, "textures": TEXTURES, "backgrounds": BACKGROUNDS, "tints": TINTS}
        for key, names in known.items():
            if not getattr(self, key):
                raise ImpossibleScene(f"{key} is empty: name at least one")
            for name in getattr(self, key):
                choose(name, names, key)
        for key in ("shading", "noise", "correlation", "words"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must lie in [0, 1], got {getattr(self, key)}")
        choose(self.correlated, _CORRELATED, "correlated attribute")
        for layout in self.layouts:
            choose(layout, ("single", "pair", "group"), "layout")
        if min(self.layouts.values()) < 0 or not math.isclose(sum(self.layouts.values()), 1):
            raise ValueError(f"the shares of layouts must add up to 1, got {dict(self.layouts)}")
        if not 0 < self.size[0] <= self.size[1] <= 1 - 2 * MARGIN:
            raise ImpossibleScene(f"sizes must rise within (0, {1 - 2 * MARGIN:g}], got {self.size}")
        if not self._visible().any(dim=1).all():
            raise ImpossibleScene("a color cannot be told from any of the tints: take another color or more tints")
        if len(self.classes) < 2 and self.layouts.get("pair"):
            raise ImpossibleScene("a pair needs two different shapes: name at least two classes")
        if self.layouts.get("pair"):
            self._check_pairs_of_colors()

    @property
    def slots(self) -> int:
        """Objects a scene has at most."""
        return 3 if self.layouts.get("group") else 2 if self.layouts.get("pair") else 1

    def _check_pairs_of_colors(self) -> None:
        """Every two colors need a tint from which both stand out."""
        together = (self._visible()[:, None] & self._visible()).any(dim=2)  # (colors, colors)
        if not together.all():
            one, other = (self.colors[int(place)] for place in (~together).nonzero()[0])
            raise ImpossibleScene(
                f"{one} and {other} stand out together from none of the tints {', '.join(self.tints)}: take away one "
                "of them, or name more tints"
            )

    def _visible(self) -> Tensor:
        colors, tints = positions(self.colors, COLORS), positions(self.tints, TINTS)
        return visible()[colors][:, tints]  # (colors, tints)

    def sample(self, ids: Tensor, *, seed: int) -> Table:
        """The attribute table of scenes ``ids`` (n,) int64 of stream ``seed``, on the device of ``ids``."""
        check_count(len(ids), what="the number of scenes")
        return Sampler(self, ids, seed).table()

    def draw(self, n: int, size: int, *, seed: int, first: int = 0, device: torch.device | str = "cpu") -> Scenes:
        """Scenes ``first`` to ``first + n − 1`` of stream ``seed``, ``size`` × ``size`` pixels, with all that is known.

        Raises:
            ValueError: ``n`` is below 1 or ``size`` below 8.
        """
        check_count(n, what="the number of scenes")
        table = self.sample(torch.arange(first, first + n, device=device), seed=seed)
        return Scenes(self, table, render(table, size))

    def part(self, n: int, size: int, *, seed: int, first: int = 0, device: torch.device | str = "cpu") -> Part:
        """The same scenes as images, labels and ids only."""
        scenes = self.draw(n, size, seed=seed, first=first, device=device)
        return Part(scenes.images, scenes.labels, scenes.table.ids)

    def data_hash(self) -> str:
        """SHA-256 of the knobs and of the first 256 attribute tables: what a result rests on, but for the drawing."""
        knobs = {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}
        digest = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode())
        table = self.sample(torch.arange(256), seed=0)
        for key in (entry.name for entry in fields(Table)[1:]):
            column = getattr(table, key)
            numbers = column if column.dtype == torch.int64 else (column.double() * 2**16).round().to(torch.int64)
            digest.update(numbers.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Scenes:
    """Scenes with all that is known about them."""

    distribution: Distribution
    table: Table
    rendered: Rendered

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: slice | Tensor) -> Scenes:
        return Scenes(self.distribution, self.table[index], self.rendered[index])

    @property
    def images(self) -> Tensor:
        """(n, 3, s, s) in [0, 1]."""
        return self.rendered.images

    @property
    def masks(self) -> Tensor:
        """(n, k, s, s): the share of each pixel in which object k is seen."""
        return self.rendered.masks

    @property
    def labels(self) -> Tensor:
        """(n,) int64: the main object's shape, as a position in the distribution's classes."""
        classes = positions(self.distribution.classes, SHAPES).to(self.table.shape.device)
        return (self.table.shape[:, :1] == classes).int().argmax(dim=1)

    def captions(self, kind: str = "full") -> list[str]:
        """A true sentence about each scene: see ``scenes.captions``."""
        return captions(self.table, kind)


class SceneStream(Stream):
    """Fresh scenes for every minibatch, without end: minibatch p holds scenes p · size onwards."""

    def __init__(self, distribution: Distribution, size: int, *, seed: int, device: torch.device | str = "cpu"):
        self.distribution, self.size, self.seed, self.device = distribution, size, seed, torch.device(device)
        self.name = f"{distribution.name}-{distribution.data_hash()[:12]}/{size}px/{seed}"

    def minibatch(self, position: int, size: int) -> Part:
        """Minibatch number ``position`` of ``size`` scenes."""
        return self.distribution.part(size, self.size, seed=self.seed, first=position * size, device=self.device)

    def to(self, device: torch.device | str) -> SceneStream:
        """The same stream drawn on another device."""
        return SceneStream(self.distribution, self.size, seed=self.seed, device=device)


_V1 = Distribution("scenes.v1")
_OUTDOORS = {"textures": ("solid", "stripes"), "backgrounds": ("plain", "sky", "waves", "hills")}
_INDOORS = {"textures": ("dots", "checker"), "backgrounds": ("bricks", "rings", "diagonals", "tiles")}
_MIXED = MappingProxyType({"single": 0.4, "pair": 0.4, "group": 0.2})


def _v1(suffix: str, **knobs: object) -> Distribution:
    return replace(_V1, name=f"{_V1.name}-{suffix}", **knobs)


DISTRIBUTIONS = MappingProxyType({
    one.name: one
    for one in (
        _V1,
        _v1("easy", size=(0.7, 0.9), textures=("solid",), backgrounds=("plain",), turn=10.0, noise=0.0),
        _v1("hard", size=(0.30, 0.60), turn=40.0, noise=0.08),
        _v1("correlated", correlation=0.9),
        _v1("a", classes=SHAPES[0::2]),
        _v1("b", classes=SHAPES[1::2]),
        _v1("outdoors", **_OUTDOORS),
        _v1("indoors", **_INDOORS),
        _v1("pairs", layouts=_MIXED),
        _v1("words", words=0.5),
    )
})  # fmt: skip


def splits(
    seed: int = 0, *, name: str = "scenes.v1", size: int = 32, n_train: int | None = None, n_validation: int = 1000,
    n_test: int = 2000, device: torch.device | str = "cpu",
) -> Splits:  # fmt: skip
    """Return run ``seed``'s scenes: fresh training images without end, and two fixed parts.

    Args:
        seed: number of the run, at least 0. All runs have the same test images, and each its own others.
        name: of a frozen distribution, see ``DISTRIBUTIONS``.
        size: pixels along a side, at least 8.
        n_train: images of a training part held in memory; None gives an endless stream.
        n_validation, n_test: images of the other parts.
        device: where images are drawn and held.

    Raises:
        UnknownName: no distribution has the name.
        ValueError: a number below 1, or a size below 8.

    Examples:
        >>> test = tk.data.scenes.splits(name="scenes.v1-a", size=16, n_validation=1, n_test=3).test
        >>> test.x.shape
        torch.Size([3, 3, 16, 16])
    """
    check_count(seed, what="seed", least=0)
    check_count(size, what="size of a scene in pixels", least=LEAST_SIZE)
    distribution = choose(name, DISTRIBUTIONS, "distribution")
    own = mix_seed(seed, TRAIN)
    if n_train is None:
        train = SceneStream(distribution, size, seed=own, device=device)
    else:
        train = distribution.part(n_train, size, seed=own, device=device)
    validation = distribution.part(n_validation, size, seed=mix_seed(seed, VALIDATION), device=device)
    return Splits(train, validation, distribution.part(n_test, size, seed=mix_seed(TEST), device=device))


def test_group(name: str, size: int, n_test: int) -> str:
    """The name of a set of test images: runs with the same group test the same images."""
    return f"{name}/{size}px/{n_test}"
