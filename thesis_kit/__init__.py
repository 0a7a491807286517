"""Robust and understandable deep networks: the methods of the book, as functions on your own models.

``import thesis_kit as tk``; then ``tk.setup`` chooses where and how large things run, ``tk.train`` trains,
``tk.attacks`` and ``tk.evaluation`` judge, ``tk.certification`` certifies, ``tk.inversion``, ``tk.synthesis``,
``tk.recording`` and ``tk.features`` look inside, ``tk.sonification`` listens, ``tk.models`` and ``tk.data`` bring
networks, images and speech, and ``tk.zoo`` networks that are trained already.

A name is loaded where it is first used, so that ``import thesis_kit`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; a running program takes the names from _HOMES
    from thesis_kit import (
        attacks,
        certification,
        data,
        evaluation,
        features,
        inversion,
        models,
        recording,
        sonification,
        synthesis,
        training,
    )
    from thesis_kit.evaluation import robust_accuracy
    from thesis_kit.models import Classifier, build, zoo
    from thesis_kit.session import Session, setup
    from thesis_kit.training import train

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Session",
    "attacks",
    "build",
    "certification",
    "data",
    "evaluation",
    "features",
    "inversion",
    "language",
    "models",
    "recording",
    "robust_accuracy",
    "setup",
    "sonification",
    "synthesis",
    "train",
    "training",
    "zoo",
]

_HOMES = {  # name → the module that it is in, or is; the other names are modules of the package
    "Classifier": "models",
    "Session": "session",
    "build": "models",
    "robust_accuracy": "evaluation",
    "setup": "session",
    "train": "training",
    "zoo": "models.zoo",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _HOMES.get(name, name)
    home = importlib.import_module(f"{__name__}.{place}")
    found = home if place.rpartition(".")[2] == name else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
