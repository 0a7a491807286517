"""How large chapter 1 runs, both its halves: the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from thesis_kit.chapters.tasks import Task, scenes_task


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


@dataclass(frozen=True)
class Transfer:
    """Chapter 1's second half: from a robust source to a target task.

    A target's training part is stored, a source's may be an endless stream. ``members`` are the zoo's names of source
    networks, for what runs live; ``penalties`` those of a linear head; ``strengths`` the weights of distillation, in
    units of 1/E‖z₀‖₁; ``per_class`` the numbers of few images; ``few_trials`` the updates and the learning rate of
    each trial that Free training on few images gets.
    """

    source: Task = field(default_factory=lambda: scenes_task("a", 8))
    target: Task = field(default_factory=lambda: scenes_task("b", 8, n_train=4000))
    moved_source: Task | None = field(default_factory=lambda: scenes_task("outdoors", 16))
    moved_target: Task | None = field(default_factory=lambda: scenes_task("indoors", 16, n_train=4000))
    members: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {arm: f"resnet-scenes-a-{arm.replace('-', '')}" for arm in ("natural", "free-8", "pgd-7")}
        )
    )
    model: str = "small_resnet"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 8 / 255
    batch_size: int = 128
    source_updates: int = 1500
    source_lr: float = 0.1
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    depth_updates: int = 500
    depth_lr: float = 0.1
    distill_updates: int = 1000
    distill_lr: float = 0.003
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    few_trials: tuple[tuple[int, float], ...] = ((400, 0.02), (400, 0.1), (1200, 0.05))
    per_class: tuple[int, ...] = (5, 25, 100, 250)
    seeds: tuple[int, ...] = (0,)


TRANSFER = MappingProxyType(
    {
        "small": Transfer(),
        "record": Transfer(
            source=scenes_task("a", 8, n_test=2000),
            target=scenes_task("b", 8, n_train=4000, n_test=2000),
            moved_source=scenes_task("outdoors", 16, n_test=2000),
            moved_target=scenes_task("indoors", 16, n_train=4000, n_test=2000),
            seeds=(0, 1, 2, 3),
        ),
        "full": Transfer(
            source=Task("cifar100", 100, MappingProxyType({"n_test": 1000})),
            target=Task("cifar10", 10, MappingProxyType({"n_test": 1000})),
            moved_source=None,
            moved_target=None,
            members=MappingProxyType({}),
            model="wrn_32_10",
            model_options=MappingProxyType({}),
            source_updates=80_000,
            distill_updates=20_000,
            distill_lr=0.001,
        ),
    }
)


TABLES = MappingProxyType({"defenses": DEFENSES, "transfer": TRANSFER})
