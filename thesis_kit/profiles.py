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
    """Chapter 1. ``eps`` is the radius trained and tested at; ``learning_rates`` are the trials every method gets.

    Catastrophic overfitting is looked for at a larger radius, ``collapse_eps``, and on images enlarged to
    ``enlarged_size`` pixels, where an attack has more directions (trained with Adam at a constant rate).
    """

    data: str = "digits"
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    model: str = "small_cnn"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 0.15
    updates: int = 1000
    batch_size: int = 128
    schedule: str = "one-cycle"
    weight_decay: float = 5e-4
    learning_rate: float = 0.1
    learning_rates: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    collapse_eps: float = 0.25
    enlarged_size: int = 28
    enlarged_eps: float = 0.15
    enlarged_updates: int = 400
    enlarged_learning_rate: float = 0.003
    enlarged_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
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
