"""How large each chapter runs: one frozen table a chapter, with the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data. A
notebook reads its numbers from here and never asks which profile it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

PROFILES = ("small", "record", "full")


@dataclass(frozen=True)
class Defenses:
    """Chapter 1. ``eps`` is the radius trained and tested at; ``learning_rates`` are the trials every method gets."""

    data: str = "digits"
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    model: str = "small_cnn"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 0.15
    collapse_eps: float = 0.3
    updates: int = 1000
    batch_size: int = 128
    schedule: str = "one-cycle"
    weight_decay: float = 5e-4
    learning_rate: float = 0.08
    learning_rates: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16, 0.32)
    seeds: tuple[int, ...] = (0,)
    queries: int = 1000
    strong_steps: int = 100
    strong_restarts: int = 5
    images_shown: int = 6


DEFENSES = MappingProxyType(
    {
        "small": Defenses(),
        "record": Defenses(seeds=tuple(range(10)), queries=5000),
        "full": Defenses(
            data="cifar10",
            data_options=MappingProxyType({"n_test": 1000}),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            eps=8 / 255,
            collapse_eps=16 / 255,
            updates=4000,
        ),
    }
)

CHAPTERS = MappingProxyType({"defenses": DEFENSES})
