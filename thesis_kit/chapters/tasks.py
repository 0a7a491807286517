"""Tasks that chapters share: a data set under the options it is used with, and what its classes are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from thesis_kit.data.photos import FASHION_CLASSES
from thesis_kit.data.scenes import DISTRIBUTIONS


@dataclass(frozen=True)
class Task:
    """A data set of ``data.load`` under the options that a chapter uses it with, and how many classes it has."""

    data: str
    n_classes: int
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))


def scenes_task(name: str, n_classes: int, **options: int | None) -> Task:
    """Scenes of 32 pixels, of the first version's distribution ``name``."""
    standard = {"size": 32, "n_train": None, "n_validation": 500, "n_test": 500}
    return Task(f"scenes.v1-{name}", n_classes, MappingProxyType({**standard, **options}))


def class_names(task: Task) -> tuple[str, ...]:
    """What a task's classes are called; numbers where the data set gives no names."""
    if task.data in DISTRIBUTIONS:
        return DISTRIBUTIONS[task.data].classes
    if task.data == "fashion-mnist":
        return FASHION_CLASSES
    return tuple(map(str, range(task.n_classes)))
