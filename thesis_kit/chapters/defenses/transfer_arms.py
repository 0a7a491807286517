"""Chapter 1's second half, recorded on scenes: robustness that is inherited rather than trained.

A source network learns classes A; the target is classes B of the same world, which it has never seen. In a second pair
of worlds the classes stay and textures and backgrounds change; its robust source is trained by Free, an eighth of the
cost. Source networks and the models that a trend needs are made once a seed and kept.

Hyper-parameters are chosen on validation images, with as many penalties for every head, and as many trials of updates
and learning rate for every Free training, as the table has. The strength of distillation is what its claim is about,
and has more values.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy
from torch import nn

from thesis_kit import training
from thesis_kit.chapters import world
from thesis_kit.chapters.defenses.settings import TRANSFER, Transfer
from thesis_kit.chapters.tasks import Task
from thesis_kit.chapters.world import costs, scenes_group, training_numbers
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits
from thesis_kit.evaluation import reference_attack, weak_attack
from thesis_kit.ledger.arm import Arm, Look, pick
from thesis_kit.models import Classifier, anatomy, build
from thesis_kit.passes import Passes, count_passes

SOURCES: dict[str, Callable[[float], training.Method]] = {
    "natural": lambda eps: training.Natural(),
    "free-8": lambda eps: training.Free(eps, replays=8),
    "pgd-7": lambda eps: training.PGD(eps, steps=7),
}
ROBUST = "pgd-7"  # the source whose robustness is to be inherited
N_BLOCKS = 7  # of the network: a stem and six residual blocks
DEPTHS = {**{f"depth-{k}": k for k in range(N_BLOCKS)}, "depth-all": N_BLOCKS}
_SOURCE = ("source", "model", "model_options", "eps", "source_updates", "source_lr", "batch_size")  # decide a source
_DEPTH = (*_SOURCE, "depth_updates", "depth_lr")
_DIVERGED = -1.0  # a score below anything possible
_ROUNDING = 1e-9  # of a difference of two shares


@dataclass
class Made:
    """A model to be judged, on which images, and what making it took in the target phase."""

    model: nn.Module
    test: Part
    group: str
    passes: Passes
    updates: int = 0
    seconds: float = 0.0
    chosen: dict = field(default_factory=dict)
    trials: list[dict] = field(default_factory=list)


@dataclass
class Trial:
    """A model made with one setting, what training it took, and how it did on validation; None where it diverged."""

    model: nn.Module | None
    report: training.TrainingReport | None
    record: dict


class World(world.World):
    """Source and target of one seed, and the source networks, made when first asked for."""

    @cached_property
    def source(self) -> Splits:
        """The source task."""
        task = self.settings.source
        return self.loaded(task.data, task.data_options)

    @cached_property
    def target(self) -> Splits:
        """The target task, whose scenes share nothing with the source's: not even where things stand."""
        task = self.settings.target
        return self.loaded(task.data, task.data_options, self.stream(10))

    def network(self, task: Task) -> Classifier:
        """The chapter's network with the seed's initial weights for a task's classes."""
        model = build(self.settings.model, n_classes=task.n_classes, seed=self.seed, **self.settings.model_options)
        return model.to(self.device)

    def source_network(self, how: str) -> tuple[Classifier, training.TrainingReport]:
        """A source network, from its finished checkpoint where there is one."""
        s = self.settings
        return self.trained(
            self.about(f"source {how}", *_SOURCE), self.network(s.source), self.source.train, SOURCES[how](s.eps),
            updates=s.source_updates, batch_size=s.batch_size, lr=s.source_lr, seed=self.seed,
        )  # fmt: skip

    def scores(self, model: nn.Module) -> dict[str, float]:
        """N and R on the target's validation part."""
        measured = self.attacked(model, self.target.validation, reference_attack(self.settings.eps))
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}


def judged(world: World, make: Callable[[World], Made]) -> dict:
    """Make a model and attack it; returns the record of the cell."""
    started, s = time.monotonic(), world.settings
    made = make(world)
    under = [world.attacked(made.model, made.test, some) for some in (reference_attack(s.eps), weak_attack(s.eps))]
    return {
        "group": made.group,
        "n": len(made.test),
        "outcomes": {"N": under[0].correct.tolist(), "R": under[0].worst.tolist(), "weak": under[1].worst.tolist()},
        "scalars": training_numbers(made.updates, made.passes, made.seconds),
        "budget": {"train": asdict(made.passes), **costs(*under)},
        "chosen": made.chosen,
        "trials": made.trials,
        "seconds": time.monotonic() - started,
    }


def source(world: World) -> Made:
    """A source network on its own task."""
    return _on_source(world, *world.source_network(world.settings.origin))


def _on_source(world: World, model: nn.Module, report: training.TrainingReport) -> Made:
    group = scenes_group(world.settings.source, world.seed)
    return Made(model, world.source.test, group, report.passes, report.updates, report.seconds)


def _on_target(world: World, model: nn.Module, passes: Passes, **what: Any) -> Made:
    return Made(model, world.target.test, scenes_group(world.settings.target, world.seed), passes, **what)


def _fitted_head(world: World, model: nn.Module, data: Part) -> Made:
    """A linear head on frozen features, its penalty chosen by clean validation accuracy."""
    n_classes, started = world.settings.target.n_classes, time.monotonic()
    with count_passes(model) as passes:
        penalty = training.choose_penalty(
            model, data, world.target.validation, penalties=world.settings.penalties, n_classes=n_classes
        )
        headed = training.linear_head(model, data, n_classes=n_classes, penalty=penalty)
    return _on_target(world, headed, passes, seconds=time.monotonic() - started, chosen={"penalty": penalty})


def head(world: World) -> Made:
    """New head, frozen features, clean images: all of them, or few of every class."""
    model, _ = world.source_network(world.settings.origin)
    return _fitted_head(world, model, _few(world))


def retrained(world: World) -> dict:
    """The record of the last blocks drawn anew and trained on clean images of the source task itself."""
    return world.memory.recall(
        world.about("retrained", *_DEPTH, depth=world.settings.depth), partial(judged, world, _retrain)
    )


def _retrain(world: World) -> Made:
    s = world.settings
    model, _ = world.source_network(ROBUST)
    new, report = training.retrain_last(
        model, world.source.train, s.depth, n_classes=s.source.n_classes, updates=s.depth_updates, lr=s.depth_lr,
        batch_size=s.batch_size, seed=world.stream(11), progress=False,
    )  # fmt: skip
    return _on_source(world, new, report)


def all_retrained(world: World) -> dict:
    """The record of all blocks retrained, with the trend of robustness over every depth."""
    depths = [*DEPTHS.values()]
    records = [retrained(World(world.seed, pick(world.settings, *_DEPTH, depth=k))) for k in depths]
    record = records[depths.index(world.settings.depth)]
    record["scalars"]["trend"] = trend(depths, [np.mean(one["outcomes"]["R"]) for one in records])
    return record


def trend(depths: Sequence[int], robust: Sequence[float]) -> float:
    """Spearman correlation, −1 … 1, of the blocks retrained and the robustness lost; 0 where all are equally robust."""
    if len(set(robust)) == 1:
        return 0.0
    return float(scipy.stats.spearmanr(depths, -np.asarray(robust)).statistic)


def _tried(train: Callable[[], tuple[nn.Module, training.TrainingReport]], world: World, **setting: float) -> Trial:
    """Train with a setting and score on validation; without a model where either diverged."""
    try:
        model, report = train()
        return Trial(model, report, {**setting, **world.scores(model)})
    except NonFiniteOutput:
        return Trial(None, None, {**setting, "N": _DIVERGED, "R": _DIVERGED})


def _kept(world: World, trials: list[Trial], position: int, before: Made | None = None) -> Made:
    """What comes of the trial at ``position``; ``before`` is what was made first and belongs to its cost.

    Raises:
        NonFiniteOutput: it diverged; the rules of choice come to such a trial only if all did.
    """
    best, records = trials[position], [trial.record for trial in trials]
    setting = {key: value for key, value in best.record.items() if key not in ("N", "R")}
    if best.model is None:
        tried = "; ".join(", ".join(f"{key} {record[key]:g}" for key in setting) for record in records)
        raise NonFiniteOutput(f"training diverged at {tried}: put smaller learning rates into the table")
    passes, seconds = best.report.passes, best.report.seconds
    if before is not None:
        passes, seconds = before.passes + passes, before.seconds + seconds
    return _on_target(
        world, best.model, passes, updates=best.report.updates, seconds=seconds, chosen=setting, trials=records
    )


def distilled(world: World) -> Made:
    """End-to-end fine-tuning on clean images, features held near the source's by a strength chosen on validation.

    The strength is the cleanest of those that lose at most a point of robust validation accuracy against frozen
    features, or the most robust if all lose more. Without distillation there is nothing to choose.
    """
    model, _ = world.source_network(ROBUST)
    frozen = _fitted_head(world, model, world.target.train)
    strengths = world.settings.strengths
    trials = [_tried(partial(_distill, one, frozen.model, model, world), world, strength=one) for one in strengths]
    floor = world.scores(frozen.model)["R"] - 0.01
    return _kept(world, trials, choose_strength([trial.record for trial in trials], floor=floor), before=frozen)


def _distill(
    strength: float, frozen: nn.Module, model: nn.Module, world: World
) -> tuple[nn.Module, training.TrainingReport]:
    s = world.settings
    return training.distill(
        model, world.target.train, strength=strength, n_classes=s.target.n_classes,
        updates=s.distill_updates, lr=s.distill_lr, schedule="cosine", head=anatomy.head(frozen),
        batch_size=s.batch_size, seed=world.stream(12), progress=False,
    )  # fmt: skip


def choose_strength(trials: list[dict], *, floor: float) -> int:
    """Position of the cleanest trial that is at least as robust as ``floor``; of the most robust if none is."""
    kept = [i for i, trial in enumerate(trials) if trial["R"] >= floor - _ROUNDING]
    return max(kept, key=lambda i: trials[i]["N"]) if kept else max(range(len(trials)), key=lambda i: trials[i]["R"])


def _few(world: World) -> Part:
    """The target's training images: all, or as many of every class as the arm has."""
    data, per_class = world.target.train, world.settings.images
    return data if per_class is None else training.few(data, per_class, seed=world.stream(13))


def scratch(world: World) -> Made:
    """Free training from new weights on few images."""
    return _free(world.network(world.settings.target), world)


def tuned(world: World) -> Made:
    """Free training on few images, from the robust source with a head fitted to them, whose cost is left out."""
    return _free(head(world).model, world)


def _free(start: nn.Module, world: World) -> Made:
    """Free training in each trial's way; the one with the highest robust validation accuracy is kept."""
    trials = [
        _tried(partial(_free_at, updates, lr, start, world), world, updates=updates, lr=lr)
        for updates, lr in world.settings.few_trials
    ]
    return _kept(world, trials, max(range(len(trials)), key=lambda i: trials[i].record["R"]))


def _free_at(
    updates: int, lr: float, start: nn.Module, world: World
) -> tuple[nn.Module, training.TrainingReport]:  # fmt: skip
    s, model = world.settings, copy.deepcopy(start)
    report = training.train(
        model, _few(world), training.Free(s.eps, replays=8), updates=updates, lr=lr, batch_size=s.batch_size,
        seed=world.stream(14), progress=False,
    )  # fmt: skip
    return model, report


ROUTES = {  # how few images are used: what it is called, how it is made, what else decides it, its look
    "transferred": ("clean head on robust features", head, (*_SOURCE, "penalties"), Look("blue", "o")),
    "scratch": ("Free training from scratch", scratch, (), Look("orange", "^")),
    "tuned": ("Free training from the robust network", tuned, (*_SOURCE, "penalties"), Look("green", "D")),
}


def arms(s: Transfer) -> tuple[Arm, ...]:
    """All arms of the scenes."""
    pairs = {"here": (s.source, s.target), "moved": (s.moved_source, s.moved_target)}

    def arm(name: str, title: str, make: Callable, *names: str, look: Look | None = None, **own: Any) -> Arm:
        settings = pick(s, *dict.fromkeys(names), **own)
        tasks = [settings[key].data for key in ("source", "target") if key in settings]
        return Arm(name, title, World, make, settings, s.seeds, data=tuple(dict.fromkeys(tasks)), look=look)

    def made(name: str, title: str, how: Callable, *names: str, **own: Any) -> Arm:
        return arm(name, title, partial(judged, make=how), *names, **own)

    def headed(name: str, title: str, origin: str, where: str = "here") -> Arm:
        (first, then), names = pairs[where], (*_SOURCE[1:], "penalties")
        return made(name, title, head, *names, source=first, target=then, origin=origin, images=None)

    def deep(name: str, k: int) -> Arm:
        title = {0: "no block retrained", 1: "the last block retrained", N_BLOCKS: "all blocks retrained"}
        make = all_retrained if k == N_BLOCKS else retrained
        return arm(name, title.get(k, f"the last {k} blocks retrained"), make, *_DEPTH, depth=k)

    distillation = (*_SOURCE, "target", "penalties", "distill_updates", "distill_lr")
    few = [
        made(
            f"{route}@{n}", f"{title}, {n} images a class", how, *names, "target", "model", "model_options", "eps",
            *(() if route == "transferred" else ("few_trials", "batch_size")),
            **({} if route == "scratch" else {"origin": ROBUST}), images=n, look=look,
        )
        for n in s.per_class for route, (title, how, names, look) in ROUTES.items()
    ]  # fmt: skip
    return (
        made("natural", "ordinary training", source, *_SOURCE, origin="natural"),
        made("free-8", "Free, m = 8", source, *_SOURCE, origin="free-8"),
        made("pgd-7", "PGD-7 training", source, *_SOURCE, origin="pgd-7"),
        headed("natural-head", "new clean head on natural features", "natural"),
        headed("robust-head", "new clean head on robust features", "pgd-7"),
        headed(
            "natural-head@moved", "new clean head on natural features, other textures and backgrounds", "natural",
            "moved",
        ),
        headed(
            "robust-head@moved", "new clean head on features robust by Free training, other textures and backgrounds",
            "free-8", "moved",
        ),
        *(deep(name, k) for name, k in DEPTHS.items()),
        made("lwf", "fine-tuned with distilled robust features", distilled, *distillation, "strengths"),
        made("fine-tuned", "fine-tuned without distillation, λ = 0", distilled, *distillation, strengths=(0.0,)),
        *few,
    )  # fmt: skip


ARMS = arms(TRANSFER["record"])
