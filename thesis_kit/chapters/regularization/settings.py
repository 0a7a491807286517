"""How large chapter 3 runs: the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from thesis_kit.chapters.tasks import scenes_task


@dataclass(frozen=True)
class Regularization:
    """Chapter 3. With ``trials`` every arm tries a grid of settings: over its own strength and that of the noise, or
    over learning rates where it has only one knob. Strengths of smoothing are ``alphas``; of squeezing ``betas``, in
    Frobenius' normalization at ``batch_size``; of similarity and pairing ``similarities`` and ``pairings``; of noise
    ``sigmas``. ``alpha``, ``beta`` and ``sigma`` are the one setting where nothing is chosen. Logits are divided by
    ``temperatures``; ``radii`` are tried to find where an attack first succeeds.
    """

    data: str = "digits"
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    n_classes: int = 10
    model: str = "small_cnn"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 0.15
    updates: int = 1000
    batch_size: int = 128
    weight_decay: float = 5e-4
    lr: float = 0.12
    learning_rates: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 5e-4, 2e-3)
    robust_weight_decays: tuple[float, ...] = (5e-4, 2e-3)
    step_sizes: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    alphas: tuple[float, ...] = (0.1, 0.3, 0.6, 0.9)
    betas: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    similarities: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    pairings: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    sigmas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    alpha: float = 0.3
    beta: float = 0.03
    sigma: float = 0.3
    temperatures: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
    radii: tuple[float, ...] = tuple(round(0.02 * 1.16**k, 4) for k in range(25))
    strong_steps: int = 100
    strong_restarts: int = 5
    queries: int = 1000
    trials: bool = False
    images: int | None = None
    seeds: tuple[int, ...] = (0,)


REGULARIZATION = MappingProxyType(
    {
        "small": Regularization(),
        "record": Regularization(queries=5000, trials=True, seeds=tuple(range(10))),
        "full": Regularization(
            data="cifar10",
            data_options=MappingProxyType({"n_test": 1000}),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            eps=8 / 255,
            updates=6000,
            lr=0.1,
            radii=tuple(round(0.002 * 1.16**k, 5) for k in range(25)),
            images=1000,
        ),
    }
)

REGULARIZATION_ON_SCENES = Regularization(
    data="scenes.v1-a",
    data_options=scenes_task("a", 8, n_test=2000).data_options,
    n_classes=8,
    model="small_resnet",
    eps=8 / 255,
    updates=1500,
    lr=0.1,
    sigma=0.12,
    radii=tuple(round(0.002 * 1.16**k, 5) for k in range(25)),
    images=300,
    seeds=(0, 1, 2),
)


TABLES = MappingProxyType({"regularization": REGULARIZATION})
