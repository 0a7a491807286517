"""One call at the top of a notebook or script decides where and how large everything runs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from thesis_kit import data, models
from thesis_kit.checks import check_count, choose
from thesis_kit.data import Splits
from thesis_kit.models import Classifier
from thesis_kit.progress import set_progress

PROFILES = ("small", "record", "full")


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """Every table of settings, by name and profile: "defenses", "transfer", …

    They lie in ``settings.py`` of the chapters' folders, above this room, and are found there by name.
    """
    here = Path(__file__).parent
    folders = sorted(path.parent.name for path in here.glob("chapters/*/settings.py"))
    found = [import_module(f"{__package__}.chapters.{name}.settings").TABLES for name in folders]
    return MappingProxyType({name: table for tables in found for name, table in tables.items()})


@dataclass(frozen=True)
class Session:
    """What was set up: the profile's name, the device, the seed."""

    profile: str
    device: torch.device
    seed: int

    def chapter(self, name: str):
        """The frozen table of a chapter's settings ("defenses") in this session's profile."""
        return choose(name, tables(), "chapter")[self.profile]

    def generator(self) -> torch.Generator:
        """A new generator on the CPU, seeded with the session's seed: the same numbers at every call."""
        return torch.Generator().manual_seed(self.seed)

    def splits(self, chapter: str, seed: int | None = None, *, task: str | None = None) -> Splits:
        """The chapter's data on the session's device, cut for a run's seed (the session's unless given).

        ``task`` names one of a chapter's tasks where it has several, such as "source" and "target" of "transfer".
        """
        settings = self.chapter(chapter)
        settings = settings if task is None else getattr(settings, task)
        seed = self.seed if seed is None else seed
        return data.load(settings.data, seed, **settings.data_options).to(self.device)

    def classifier(self, chapter: str, seed: int | None = None) -> Classifier:
        """The chapter's network with fresh weights from a run's seed, on the session's device."""
        settings = self.chapter(chapter)
        seed = self.seed if seed is None else seed
        return models.build(settings.model, seed=seed, **settings.model_options).to(self.device)


def setup(
    profile: str = "small", *, device: str | torch.device | None = None, seed: int = 0, progress: bool | None = None
) -> Session:
    """Choose profile and device and seed the random generators; call it once, first.

    Args:
        profile: "small" (offline, two cores, a minute or two a chapter), "record" (what the claims rest on; hours on a
            CPU), or "full" (real data and networks; a GPU and a network connection).
        device: where to compute; the GPU if there is one unless given.
        seed: seeds Python's, NumPy's and torch's generators, and is the run the session's data belong to.
        progress: show progress bars; None shows them where a person is looking.

    Returns:
        A ``Session``.

    Raises:
        UnknownName: the profile is unknown.
        ValueError: the device is not there, or the seed is negative.

    Examples:
        >>> session = tk.setup("small", seed=0)
        >>> session.profile
        'small'
    """
    choose(profile, PROFILES, "profile")
    check_count(seed, what="seed", least=0)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(default if device is None else device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('there is no usable GPU here: leave out device, or pass device="cpu"')
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    set_progress(progress)
    return Session(profile, device, seed)
