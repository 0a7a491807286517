"""What a synthesis is made of: stages, optimizer, parts that are checked, and what a checkpoint knows them by."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from thesis_kit.checks import check_count, choose
from thesis_kit.identity import fingerprint, tensor_hash
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.synthesis.augmentations import Augmentation, Ensemble
from thesis_kit.synthesis.canvas import Canvas, Size
from thesis_kit.synthesis.objectives import Objective

SCHEDULES = ("cosine", "constant")
PACKAGE = __name__.partition(".")[0] + "."
FRESH, STEP, STAGE = range(3)  # streams of the seed


@dataclass(frozen=True)
class Stage:
    """A part of a synthesis at one size.

    Args:
        size: (height, width), or one number for a square.
        steps: of the optimizer, which starts anew with each stage.
        border: the images of the stage before are resized to ``size`` minus ``border`` and laid in the middle of fresh
            noise: 0 only enlarges (zoom), and the whole difference of the sizes only adds noise around (centering). Not
            used in the first stage, nor along a side of one, as sounds have it.
    """

    size: int | tuple[int, int]
    steps: int
    border: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, tuple) and len(self.size) != 2:
            raise ValueError(f"the size of a stage is (height, width) or one number, got {self.size}")
        for side in self.sides:
            check_count(side, what="size of a stage")
        check_count(self.steps, what="steps of a stage")
        check_count(self.border, what="border of a stage", least=0)
        if self.border >= min([side for side in self.sides if side > 1], default=1):
            raise ValueError(f"a border of {self.border} leaves nothing of a stage of size {self.size}")

    @property
    def sides(self) -> Size:
        """Height and width."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclass(frozen=True)
class Adam:
    """The optimizer of a stage; the defaults are those of Plug-In Inversion.

    Args:
        lr: learning rate at a stage's beginning. betas: Adam's decay rates. schedule: "cosine" to 0 within every stage,
            or "constant".
    """

    lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.99)
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        choose(self.schedule, SCHEDULES, "schedule")
        if not (isinstance(self.lr, Real) and 0 < self.lr < math.inf):
            raise ValueError(f"lr must be a positive, finite number, got {self.lr!r}")

    def rate(self, progress: float) -> float:
        """The learning rate when a share of the stage is done."""
        return self.lr * (0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0)


def listed(given: object, fits: Callable[[object], bool], what: str, example: str) -> tuple:
    """One part or several, as a tuple."""
    parts = tuple(given) if isinstance(given, Iterable) and not fits(given) else (given,)
    for part in parts:
        if not fits(part):
            raise TypeError(f"{what} must be one or several of synthesis's, such as {example}, got {part!r}")
    return parts


def whole(value: object, what: str) -> int:
    """A whole number, of whatever type."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, got {value!r}") from None


def check_parts_can_be_told_apart(plan: Plan) -> None:
    """A checkpoint that cannot tell what it belongs to would be resumed by something else, or by nothing."""
    if plan.objective.settings is None:
        raise ValueError(
            f"a checkpoint must tell objectives apart, and {plan.objective.name} does not say what decides its values: "
            "give Objective(settings=…), a text"
        )
    for part in (plan.parametrization, *plan.augmentations):
        if " at 0x" in repr(part):
            raise ValueError(
                f"a checkpoint tells parts apart by their repr, and {part!r} has another one in every process: make it "
                "a class with a __repr__, such as a dataclass"
            )


def count_of(objective: Objective, targets: int | None, start: Tensor | None) -> int:
    """How many targets there are, said by the objective, the caller or the images to start with."""
    said = {count for count in (objective.targets, targets, None if start is None else len(start)) if count is not None}
    if len(said) != 1:
        raise ValueError(
            f"{objective.name} does not say how many targets there are: give targets"
            if not said else f"the objective, targets and start speak of different numbers of targets: {sorted(said)}"
        )  # fmt: skip
    (n,) = said
    check_count(n, what="targets")
    return n


@dataclass
class Plan:
    """Everything that a synthesis is made of."""

    model: nn.Module
    objective: Objective
    stages: tuple[Stage, ...]
    channels: int
    parametrization: Canvas
    augmentations: tuple[Augmentation, ...]
    optimizer: Adam
    seed: int
    ids: Tensor
    start: Tensor | None
    device: torch.device
    precision: str
    snapshot_every: int | None
    batch: int

    @property
    def targets_a_pass(self) -> int:
        """Targets that go through the network together."""
        return max(1, int(self.batch) // int(self.copies))

    @property
    def copies(self) -> int:
        """Copies of every target in a pass."""
        return math.prod(a.copies for a in self.augmentations if isinstance(a, Ensemble))

    def random(self, rows: Tensor, *stream: int) -> ImageRandom:
        """Random numbers of some targets, for one purpose."""
        return ImageRandom(mix_seed(self.seed, *stream), self.ids[rows].to(self.device))

    @property
    def settings(self) -> dict[str, object]:
        """Everything that decides the result, as far as it can be told."""
        return {
            "objective": self.objective.settings, "stages": repr(self.stages), "channels": self.channels,
            "parametrization": repr(self.parametrization), "augmentations": repr(self.augmentations),
            "optimizer": repr(self.optimizer), "seed": self.seed, "ids": self.ids.tolist(),
            "start": None if self.start is None else tensor_hash(self.start), "weights": fingerprint(self.model),
            "precision": self.precision, "snapshot_every": self.snapshot_every, "targets a pass": self.targets_a_pass,
            "device": self.device.type, "threads": torch.get_num_threads() if self.device.type == "cpu" else None,
        }  # fmt: skip


def outside() -> int:
    """The level of the first caller who is not of this package, for a warning where this is called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
