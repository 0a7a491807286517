"""Where the arms of a chapter are found: by name, in the ``arms.py`` of its folder, which nothing has to list."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from thesis_kit.ledger.arm import Arm, Experiment
from thesis_kit.ledger.cells import CHAPTERS
from thesis_kit.names import choose


def chapters() -> list[str]:
    """Chapters that measure something."""
    return sorted(path.parent.name for path in CHAPTERS.glob("*/arms.py"))


def experiments(chapter: str) -> Mapping[str, Experiment]:
    """A chapter's experiments by arena; its module is imported only now. A chapter to come has none."""
    if chapter not in chapters():
        return {}
    return importlib.import_module(f"thesis_kit.chapters.{chapter}.arms").EXPERIMENTS


def find(chapter: str, arena: str) -> Experiment:
    """The experiment of a chapter in an arena."""
    choose(chapter, chapters(), "chapter with experiments")
    return choose(arena, experiments(chapter), f"arena of chapter {chapter}")


def arms(chapter: str) -> dict[str, Arm]:
    """A chapter's arms by name, whatever their arena; one in several arenas is listed as the first has it."""
    found: dict[str, Arm] = {}
    for experiment in experiments(chapter).values():
        found = {**{arm.name: arm for arm in experiment.arms}, **found}
    return found


def titles(chapter: str) -> dict[str, str]:
    """What a chapter's arms are called."""
    return {name: arm.title for name, arm in arms(chapter).items()}
