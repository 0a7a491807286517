"""What is measured, as data: an arm is one thing that is made and judged, an experiment the arms of one arena.

Everything that decides an arm's numbers stands in it: the callable that measures, its own settings, the data and the
shipped networks that it rests on, and a ``version`` that whoever changes their meaning raises. So a recorded cell (an
arm and a seed) can be told from an outdated one, and a new arm beside it is none of its business.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from thesis_kit.names import choose


def _read_only(table: dict) -> MappingProxyType:
    return MappingProxyType(table)


copyreg.pickle(MappingProxyType, lambda table: (_read_only, (dict(table),)))  # settings travel to other processes


class Settings(Mapping):
    """An arm's own settings, read as attributes; what was not given to it cannot be read by accident."""

    def __init__(self, values: Mapping[str, Any]):
        self.__dict__["_values"] = dict(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"{name} is none of this arm's own settings: give it to the arm")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are fixed: make new ones instead of setting {name}")

    def __reduce__(self) -> tuple:
        return Settings, (self._values,)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Settings({self._values!r})"


def pick(table: object, *names: str, **own: Any) -> Settings:
    """Some fields of a chapter's table of settings, and settings that no other arm has.

    Raises:
        AttributeError: the table has no such field. ValueError: a setting is given twice.
    """
    if twice := set(names) & set(own):
        raise ValueError(f"{', '.join(sorted(twice))} is picked and given: do one of both")
    return Settings({**{name: getattr(table, name) for name in names}, **own})


def plain(settings: object) -> Any:
    """Settings as JSON has them."""
    if is_dataclass(settings):
        return {key: plain(value) for key, value in vars(settings).items()}
    if isinstance(settings, Mapping):
        return {str(key): plain(value) for key, value in settings.items()}
    return [plain(value) for value in settings] if isinstance(settings, tuple | list) else settings


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: a color of the book's palette, a marker, how it is filled, and a name short enough for an
    axis (empty: the title)."""

    color: str
    marker: str
    fill: str = "full"
    name: str = ""


@dataclass(frozen=True)
class Arm:
    """One thing that is made and measured.

    Args:
        name: in rules, files and code. title: as pages and figures call it.
        world: (seed, settings) → the data and networks of a seed.
        measure: world → the record of a cell: ``group`` (name of its test set), ``n``, ``outcomes`` (measure → one 0 or
            1 an image), and as wanted ``values`` (measure → one number an image), ``scalars``, ``curves``, ``budget``,
            ``chosen``, ``trials``, ``pictures``, ``seconds``.
        settings: its own; ``measure`` and ``world`` see no others.
        seeds: to be run with.
        data: names of the frozen data sets it rests on. networks: of the shipped networks, or those of timm.
        cohorts: of those of the zoo's members whose network of the cell's own seed is asked.
        units: what is drawn anew from one number to the next, from the outermost to the innermost: ``("network",
            "image")`` where every seed trains a network.
        version: raised by whoever changes what the numbers mean. look: in figures.
    """

    name: str
    title: str
    world: Callable[[int, Settings], Any]
    measure: Callable[[Any], dict[str, Any]]
    settings: Settings
    seeds: tuple[int, ...]
    data: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    cohorts: tuple[str, ...] = ()
    units: tuple[str, ...] = ("network", "image")
    version: int = 1
    look: Look | None = None

    @property
    def short(self) -> str:
        """A name for an axis or a legend."""
        return self.look.name if self.look and self.look.name else self.title

    @property
    def maker(self) -> str:
        """The function that makes what is measured, in full, whatever it is wrapped in."""
        made = self.measure
        while isinstance(made, partial):
            made = made.keywords.get("how") or made.keywords.get("make") or made.func
        return f"{made.__module__}.{made.__qualname__}"

    def run(self, seed: int) -> dict[str, Any]:
        """Make and measure the arm with one seed; returns the record of the cell."""
        return self.measure(self.world(seed, self.settings))

    def identity(self, seed: int) -> dict[str, Any]:
        """What a recorded cell of this seed must have been measured with to be this arm's.

        Raises:
            MissingWeights: a cohort that the arm asks has no network of the seed.
        """
        own = {name: weights_hash(name, seed) for name in self.cohorts}
        return {
            "version": self.version,
            "settings": plain(self.settings),
            "data": {name: frozen_hash(name) for name in self.data},
            "networks": {name: weights_hash(name) for name in self.networks} | own,
        }


@dataclass(frozen=True)
class Experiment:
    """A chapter's arms in one arena."""

    chapter: str
    arena: str
    arms: tuple[Arm, ...]

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{self.id} has two arms called {', '.join(twice)}: rename one")

    @property
    def id(self) -> str:
        """Chapter and arena, as in ``defenses.digits``."""
        return f"{self.chapter}.{self.arena}"

    @property
    def names(self) -> list[str]:
        """All arms' names in running order."""
        return [arm.name for arm in self.arms]

    def arm(self, name: str) -> Arm:
        """An arm by its name."""
        return choose(name, {arm.name: arm for arm in self.arms}, f"arm of {self.id}")


def frozen_hash(name: str) -> str:
    """SHA-256 of a frozen data set."""
    from thesis_kit.data.digits import NAME, data_hash
    from thesis_kit.data.photos import FASHION_HASH
    from thesis_kit.data.scenes import DISTRIBUTIONS
    from thesis_kit.data.scenes.pairs import LANGUAGE
    from thesis_kit.data.speech import distribution

    if name == NAME:
        return data_hash()
    if name == "fashion-mnist":
        return FASHION_HASH
    if name in distribution.NAMES:
        return distribution.data_hash(name).here
    return choose(name, {**LANGUAGE, **DISTRIBUTIONS}, "frozen data set").data_hash()


def weights_hash(name: str, seed: int = 0) -> str:
    """SHA-256 of the weights of a zoo member, or of its cohort's network of a seed; of a network of timm its name,
    which its weights belong to."""
    from thesis_kit.models import zoo

    return zoo.entry(name, seed=seed or None).sha256 if name in zoo.names() else name
