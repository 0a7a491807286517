"""The recorded runs behind the claims, found by chapter and arena."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from thesis_kit.checks import choose

if TYPE_CHECKING:
    from thesis_kit.experiments.runner import Experiment

_MODULES = {  # chapter → arena → the file that measures
    "certificates": {"scenes": "certificates"},
    "defenses": {"digits": "defenses", "scenes": "transfer"},
    "inversion": {"scenes": "inversion"},
    "regularization": {"digits": "regularization", "scenes": "regularization"},
}


def chapters() -> list[str]:
    """Chapters that have experiments."""
    return sorted(_MODULES)


def find(chapter: str, arena: str) -> Experiment:
    """The experiment of a chapter in an arena; its module is imported only now."""
    arenas = choose(chapter, _MODULES, "chapter with experiments")
    module = choose(arena, arenas, f"arena of chapter {chapter}")
    return importlib.import_module(f"{__name__}.{module}").EXPERIMENTS[arena]
