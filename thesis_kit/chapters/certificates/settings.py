"""How large chapter 2 runs: the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType

from thesis_kit.attacks.shadow import PUBLISHED, ShadowConstants
from thesis_kit.chapters.tasks import Task, scenes_task

_ECONOMICAL, _FINAL = ShadowConstants(steps=30, draws=32), ShadowConstants(steps=70, draws=80)
_FAINT = ShadowConstants(steps=100, step_size=0.03, start=0.1)


@dataclass(frozen=True)
class BrokenCertificates:
    """Chapter 2. Certificates rest on ``n0``, ``n`` and ``alpha``; ``n_choose`` samples choose the images to attack.

    The Shadow Attack tries every wrong class with ``constants`` and goes on with the ``finalists`` best of them, by
    ``n_select`` samples, with ``final``. Noise arms use ``noise_steps`` steps and ``noise_draws`` draws at
    ``sigma``. Every seed has a block of test images: ``images`` certified ones of it are attacked, ``images_few`` of
    these at the published size and with the budgets ``sizes``, and its first ``images_all`` are certified whatever
    comes. Networks with interval bounds train for boxes ``interval_margin`` times as large as ``interval_eps``.
    """

    task: Task = field(default_factory=lambda: scenes_task("a", 8))
    model: str = "small_resnet"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    updates: int = 1500
    batch_size: int = 128
    lr: float = 0.1
    sigmas: tuple[float, ...] = (0.12, 0.25, 0.5, 1.0)
    sigma: float = 0.25
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    n_choose: int = 1000
    n_select: int = 200
    constants: ShadowConstants = _ECONOMICAL
    finalists: int = 2
    final: ShadowConstants = _FINAL
    noise_steps: int = 100
    noise_draws: int = 64
    inside_steps: int = 40
    inside_restarts: int = 2
    sizes: tuple[int, ...] = (100, 1000)
    block: int = 100
    images: int = 4
    images_all: int = 20
    images_few: int = 2
    interval_model: str = "strided_cnn"
    interval_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    interval_eps: tuple[float, ...] = (2 / 255, 8 / 255)
    interval_margin: float = 1.1
    interval_updates: int = 1000
    interval_lr: float = 0.003
    interval_constants: ShadowConstants = _FAINT
    interval_images: int = 20
    seeds: tuple[int, ...] = (0,)


CERTIFICATES = MappingProxyType(
    {
        "small": BrokenCertificates(
            constants=replace(_ECONOMICAL, draws=16),
            finalists=1,
            final=ShadowConstants(steps=40, draws=32),
            images=11,
            images_few=3,
        ),
        "record": BrokenCertificates(
            task=scenes_task("a", 8, n_test=2000),
            n=10_000,
            sizes=(100, 1000, 10_000, 100_000),
            block=400,
            images=40,
            images_all=100,
            images_few=7,
            interval_images=200,
            seeds=(0, 1, 2),
        ),
        "full": BrokenCertificates(
            task=Task("cifar10", 10, MappingProxyType({"n_test": 500})),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            updates=11_250,
            batch_size=400,
            n=100_000,
            sizes=(100, 1000, 10_000, 100_000),
            constants=replace(PUBLISHED["scripts"], steps=100),
            finalists=1,
            final=replace(PUBLISHED["scripts"], steps=200),
            block=500,
            images=500,
            images_all=500,
            images_few=20,
            interval_constants=PUBLISHED["crown-ibp"],
            interval_images=500,
        ),
    }
)


TABLES = MappingProxyType({"certificates": CERTIFICATES})
