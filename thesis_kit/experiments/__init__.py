"""The recorded runs behind the claims, one file a chapter, found by chapter and arena."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from thesis_kit.checks import choose

if TYPE_CHECKING:
    from thesis_kit.experiments.runner import Experiment

_NO_CHAPTERS = ("comparing", "memory", "runner", "verifying", "zoo", "zoo_recipes", "zoo_scores")


def chapters() -> list[str]:
    """Chapters that have an experiments file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_CHAPTERS)


def find(chapter: str, arena: str) -> Experiment:
    """The experiment of a chapter in an arena; its module is imported only now."""
    choose(chapter, chapters(), "chapter with experiments")
    table = importlib.import_module(f"{__name__}.{chapter}").EXPERIMENTS
    return choose(arena, table, f"arena of chapter {chapter}")
