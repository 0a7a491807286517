"""The chapters of the book, a folder each: claims, settings, arms, figures and what was recorded.

A chapter is found by its folder's name; nothing lists them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from thesis_kit.checks import choose

if TYPE_CHECKING:
    from thesis_kit.ledger.runner import Experiment


def chapters() -> list[str]:
    """Chapters that measure something."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/arms.py"))


def find(chapter: str, arena: str) -> Experiment:
    """The experiment of a chapter in an arena; its module is imported only now."""
    choose(chapter, chapters(), "chapter with experiments")
    found = importlib.import_module(f"{__name__}.{chapter}.arms").EXPERIMENTS
    return choose(arena, found, f"arena of chapter {chapter}")
