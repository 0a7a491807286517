"""What the worlds of all chapters share: data and networks of one seed, made when first asked for and kept.

Several arms start from the same network or the same choice of images. Whoever asks first makes it; the others, in this
process or another, find it. A chapter's own world says what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import nn

from thesis_kit import training
from thesis_kit.chapters.tasks import Task
from thesis_kit.data import Part, Splits, load
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.distributions import test_group
from thesis_kit.evaluation import RobustAccuracy, robust_accuracy
from thesis_kit.evaluation.robust import Attack
from thesis_kit.ledger.arm import plain
from thesis_kit.ledger.memory import Memory
from thesis_kit.models import zoo
from thesis_kit.models.kinds import KINDS
from thesis_kit.passes import Passes
from thesis_kit.randomness import mix_seed
from thesis_kit.session import Session

_ATTACK = 7  # the stream of a seed that attacks take their random numbers from
_World = TypeVar("_World", bound="World")


class World:
    """Data and networks of one seed, under an arm's own settings or a chapter's whole table."""

    def __init__(self, seed: int, settings: Any, *, device: torch.device | str = "cpu"):
        self.seed, self.settings, self.device = seed, settings, torch.device(device)
        self.memory = Memory(device=self.device)

    @classmethod
    def live(cls: type[_World], session: Session, table: str) -> _World:
        """The world of a session's seed on its device, with the settings that ``table`` has for its profile."""
        return cls(session.seed, session.chapter(table), device=session.device)

    def stream(self, which: int) -> int:
        """A seed for one purpose."""
        return mix_seed(self.seed, which)

    def loaded(self, data: str, options: Mapping[str, Any], seed: int | None = None) -> Splits:
        """A data set, cut for the world's seed unless another is given, on its device."""
        return load(data, self.seed if seed is None else seed, **options).to(self.device)

    def about(self, what: str, *names: str, **more: Any) -> dict[str, Any]:
        """What tells kept work apart: what it is, the seed, and the settings that decide it, by their names."""
        chosen = {name: plain(getattr(self.settings, name)) for name in names}
        return {"what": what, "seed": self.seed, "settings": chosen, **plain(more)}

    def trained(
        self, about: Mapping[str, Any], model: nn.Module, data: Any, method: training.Method, **knobs: Any
    ) -> tuple[nn.Module, training.TrainingReport]:
        """A network trained once and then taken from its finished checkpoint, in evaluation mode."""
        with self.memory.place(dict(about), ".ckpt") as path:
            report = training.train(model, data, method, checkpoint=path, progress=False, **knobs)
        return model.eval(), report

    def attacked(self, model: nn.Module, part: Part, attacks: Mapping[str, Attack]) -> RobustAccuracy:
        """A part under attacks, with the seed's random numbers."""
        return robust_accuracy(model, part, dict(attacks), seed=self.stream(_ATTACK), progress=False)


def taught(name: str, seed: int, device: torch.device) -> nn.Module:
    """A trained network of a cohort of the zoo; that of seed 0 is the member itself."""
    return zoo.load(name, seed=seed or None, device=device)


def untaught(name: str, seed: int, device: torch.device) -> nn.Module:
    """The architecture of a network of the zoo with fresh weights."""
    about = zoo.entry(name)
    return KINDS[about.kind].build(about, seed).to(device).eval()


def scenes_group(task: Task, seed: int) -> str:
    """The name of a task's test images: cells with the same group test the same images."""
    options = task.data_options
    if task.data not in DISTRIBUTIONS:  # photographs: the seed says which are used
        return f"{task.data}/{seed}"
    return test_group(task.data, options["size"], options["n_test"])


def costs(*found: RobustAccuracy) -> dict[str, dict[str, int]]:
    """What every attack cost: the images attacked and the passes."""
    return {a.name: {"attacked": a.attacked, **asdict(a.passes)} for one in found for a in one.attacks}


def training_numbers(updates: int, passes: Passes, seconds: float) -> dict[str, float]:
    """What making a network took, as scalars of a record."""
    return {
        "updates": updates,
        "passes": passes.backward,
        "passes_per_update": passes.backward / max(updates, 1),
        "train_seconds": seconds,
    }


