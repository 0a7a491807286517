"""Chapter 1's second half, recorded on scenes: robustness that is inherited rather than trained.

A source network learns classes A; the target is classes B of the same world, which it has never seen. In a second pair
of worlds the classes stay and textures and backgrounds change; its robust source is trained by Free, an eighth of the
cost. One cell is one arm and one seed; source networks and the models that a trend needs are made once a seed and kept.

Hyper-parameters are chosen on validation images, with as many penalties for every head, and as many trials of updates
and learning rate for every Free training, as the profile has. The strength of distillation is what its claim is about,
and has more values.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import scipy
import torch
from torch import nn

from thesis_kit import training
from thesis_kit.chapters.defenses.settings import TRANSFER, Transfer
from thesis_kit.chapters.tasks import Task
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits, load
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.distributions import test_group
from thesis_kit.evaluation import RobustAccuracy, reference_attack, robust_accuracy, weak_attack
from thesis_kit.evaluation.robust import Attack
from thesis_kit.ledger.memory import Memory, plain
from thesis_kit.ledger.runner import Experiment
from thesis_kit.models import Classifier, anatomy, build
from thesis_kit.passes import Passes, count_passes
from thesis_kit.randomness import mix_seed

SOURCES: dict[str, Callable[[float], training.Method]] = {
    "natural": lambda eps: training.Natural(),
    "free-8": lambda eps: training.Free(eps, replays=8),
    "pgd-7": lambda eps: training.PGD(eps, steps=7),
}
HEADS = {  # arm → the source under its new head; "@moved" is the pair of worlds that differ in looks, not in classes
    "natural-head": "natural",
    "robust-head": "pgd-7",
    "natural-head@moved": "natural",
    "robust-head@moved": "free-8",
}
ROBUST = "pgd-7"  # the source whose robustness is to be inherited
N_BLOCKS = 7  # of the network: a stem and six residual blocks
DEPTHS = {**{f"depth-{k}": k for k in range(N_BLOCKS)}, "depth-all": N_BLOCKS}
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


class World:
    """Source and target of one seed, and the source networks, made when first asked for."""

    def __init__(self, seed: int, settings: Transfer, *, device: torch.device | str = "cpu"):
        self.seed, self.settings, self.device, self.memory = seed, settings, torch.device(device), Memory(__name__)

    def _load(self, task: Task, seed: int) -> Splits:
        return load(task.data, seed, **task.data_options).to(self.device)

    @cached_property
    def source(self) -> Splits:
        """The source task."""
        return self._load(self.settings.source, self.seed)

    @cached_property
    def target(self) -> Splits:
        """The target task, whose scenes share nothing with the source's: not even where things stand."""
        return self._load(self.settings.target, mix_seed(self.seed, 10))

    def network(self, task: Task) -> Classifier:
        """The chapter's network with the seed's initial weights for a task's classes."""
        model = build(self.settings.model, n_classes=task.n_classes, seed=self.seed, **self.settings.model_options)
        return model.to(self.device)

    def trained(self, arm: str) -> tuple[Classifier, training.TrainingReport]:
        """A source network, from its finished checkpoint where there is one."""
        s = self.settings
        model, method = self.network(s.source), SOURCES[arm](s.eps)
        with self.memory.place({"network": arm, "seed": self.seed, **plain(s)}, ".ckpt") as path:
            report = training.train(
                model, self.source.train, method, updates=s.source_updates, batch_size=s.batch_size, lr=s.source_lr,
                seed=self.seed, checkpoint=path, progress=False,
            )  # fmt: skip
        return model.eval(), report

    def attacked(
        self, model: nn.Module, part: Part, attack: Callable[[float], dict[str, Attack]] = reference_attack
    ) -> RobustAccuracy:
        """A part under an attack at the profile's radius, PGD-20 unless given."""
        seed = mix_seed(self.seed, 7)
        return robust_accuracy(model, part, attack(self.settings.eps), seed=seed, progress=False)

    def scores(self, model: nn.Module) -> dict[str, float]:
        """N and R on the target's validation part."""
        measured = self.attacked(model, self.target.validation)
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}


def group_of(task: Task, seed: int) -> str:
    """The name of a task's test images: cells with the same group test the same images."""
    options = task.data_options
    if task.data not in DISTRIBUTIONS:  # photographs: the seed says which are used
        return f"{task.data}/{seed}"
    return test_group(task.data, options["size"], options["n_test"])


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Make and judge one arm with one seed; returns the record of the cell."""
    settings = TRANSFER[config["profile"]]
    if arm.endswith("@moved"):
        settings = replace(settings, source=settings.moved_source, target=settings.moved_target)
    world = World(seed, settings)
    record = _recalled(arm, world)
    if arm == "depth-all":
        robust = [np.mean(_recalled(other, world)["outcomes"]["R"]) for other in DEPTHS]
        record["scalars"]["trend"] = trend(list(DEPTHS.values()), robust)
    return {"arm": arm, "seed": seed, **record}


def _recalled(arm: str, world: World) -> dict:
    """An arm's record, from memory where it was made before."""
    settings = {"arm": arm, "seed": world.seed, **plain(world.settings)}
    return world.memory.recall(settings, lambda: _judged(arm, world))


def trend(depths: Sequence[int], robust: Sequence[float]) -> float:
    """Spearman correlation, −1 … 1, of the blocks retrained and the robustness lost; 0 where all are equally robust."""
    if len(set(robust)) == 1:
        return 0.0
    return float(scipy.stats.spearmanr(depths, -np.asarray(robust)).statistic)


def _make(arm: str, world: World) -> Made:
    if arm in SOURCES:
        return _source(arm, world)
    if arm in HEADS:
        return _head(HEADS[arm], world)
    if arm in DEPTHS:
        return _retrained(DEPTHS[arm], world)
    if arm in ("lwf", "fine-tuned"):
        return _distilled(arm, world)
    how, per_class = arm.split("@")
    return FEW[how](int(per_class), world)


def _judged(arm: str, world: World) -> dict:
    started = time.monotonic()
    made = _make(arm, world)
    reference, weak = (world.attacked(made.model, made.test, attack) for attack in (reference_attack, weak_attack))
    return {
        "group": made.group,
        "n": len(made.test),
        "outcomes": {"N": reference.correct.tolist(), "R": reference.worst.tolist(), "weak": weak.worst.tolist()},
        "scalars": {
            "updates": made.updates,
            "passes": made.passes.backward,
            "passes_per_update": made.passes.backward / max(made.updates, 1),
            "train_seconds": made.seconds,
        },
        "budget": {
            "train": asdict(made.passes),
            **{a.name: {"attacked": a.attacked, **asdict(a.passes)} for r in (reference, weak) for a in r.attacks},
        },
        "chosen": made.chosen,
        "trials": made.trials,
        "seconds": time.monotonic() - started,
    }


def _source(arm: str, world: World) -> Made:
    """A source network on its own task."""
    model, report = world.trained(arm)
    return _on_source(world, model, report)


def _on_source(world: World, model: nn.Module, report: training.TrainingReport) -> Made:
    group = group_of(world.settings.source, world.seed)
    return Made(model, world.source.test, group, report.passes, report.updates, report.seconds)


def _on_target(world: World, model: nn.Module, passes: Passes, **what: object) -> Made:
    return Made(model, world.target.test, group_of(world.settings.target, world.seed), passes, **what)


def _fitted_head(world: World, model: nn.Module, data: Part) -> Made:
    """A linear head on frozen features, its penalty chosen by clean validation accuracy."""
    n_classes, started = world.settings.target.n_classes, time.monotonic()
    with count_passes(model) as passes:
        penalty = training.choose_penalty(
            model, data, world.target.validation, penalties=world.settings.penalties, n_classes=n_classes
        )
        headed = training.linear_head(model, data, n_classes=n_classes, penalty=penalty)
    return _on_target(world, headed, passes, seconds=time.monotonic() - started, chosen={"penalty": penalty})


def _head(source: str, world: World) -> Made:
    """New head, frozen features, clean images."""
    model, _ = world.trained(source)
    return _fitted_head(world, model, world.target.train)


def _retrained(k: int, world: World) -> Made:
    """The last k blocks drawn anew and trained on clean images of the source task itself."""
    s = world.settings
    model, _ = world.trained(ROBUST)
    new, report = training.retrain_last(
        model, world.source.train, k, n_classes=s.source.n_classes, updates=s.depth_updates, lr=s.depth_lr,
        batch_size=s.batch_size, seed=mix_seed(world.seed, 11), progress=False,
    )  # fmt: skip
    return _on_source(world, new, report)


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
        raise NonFiniteOutput(f"training diverged at {tried}: put smaller learning rates into the profile")
    passes, seconds = best.report.passes, best.report.seconds
    if before is not None:
        passes, seconds = before.passes + passes, before.seconds + seconds
    return _on_target(
        world, best.model, passes, updates=best.report.updates, seconds=seconds, chosen=setting, trials=records
    )


def _distilled(arm: str, world: World) -> Made:
    """End-to-end fine-tuning on clean images, features held near the source's by a strength chosen on validation.

    The strength is the cleanest of those that lose at most a point of robust validation accuracy against frozen
    features, or the most robust if all lose more. Without distillation there is nothing to choose.
    """
    source, _ = world.trained(ROBUST)
    frozen = _fitted_head(world, source, world.target.train)
    strengths = world.settings.strengths if arm == "lwf" else (0.0,)
    trials = [_tried(partial(_distill, one, frozen.model, source, world), world, strength=one) for one in strengths]
    floor = world.scores(frozen.model)["R"] - 0.01
    return _kept(world, trials, choose_strength([trial.record for trial in trials], floor=floor), before=frozen)


def _distill(
    strength: float, frozen: nn.Module, source: nn.Module, world: World
) -> tuple[nn.Module, training.TrainingReport]:
    s = world.settings
    return training.distill(
        source, world.target.train, strength=strength, n_classes=s.target.n_classes,
        updates=s.distill_updates, lr=s.distill_lr, schedule="cosine", head=anatomy.head(frozen),
        batch_size=s.batch_size, seed=mix_seed(world.seed, 12), progress=False,
    )  # fmt: skip


def choose_strength(trials: list[dict], *, floor: float) -> int:
    """Position of the cleanest trial that is at least as robust as ``floor``; of the most robust if none is."""
    kept = [i for i, trial in enumerate(trials) if trial["R"] >= floor - _ROUNDING]
    return max(kept, key=lambda i: trials[i]["N"]) if kept else max(range(len(trials)), key=lambda i: trials[i]["R"])


def _few(per_class: int, world: World) -> Part:
    return training.few(world.target.train, per_class, seed=mix_seed(world.seed, 13))


def _transferred(per_class: int, world: World) -> Made:
    """Few clean images, frozen robust features, a new head."""
    model, _ = world.trained(ROBUST)
    return _fitted_head(world, model, _few(per_class, world))


def _scratch(per_class: int, world: World) -> Made:
    """Free training from new weights on few images."""
    return _free(world.network(world.settings.target), per_class, world)


def _tuned(per_class: int, world: World) -> Made:
    """Free training on few images, from the robust source with a head fitted to them, whose cost is left out."""
    model, _ = world.trained(ROBUST)
    return _free(_fitted_head(world, model, _few(per_class, world)).model, per_class, world)


def _free(start: nn.Module, per_class: int, world: World) -> Made:
    """Free training in each trial's way; the one with the highest robust validation accuracy is kept."""
    trials = [
        _tried(partial(_free_at, updates, lr, start, per_class, world), world, updates=updates, lr=lr)
        for updates, lr in world.settings.few_trials
    ]
    return _kept(world, trials, max(range(len(trials)), key=lambda i: trials[i].record["R"]))


def _free_at(
    updates: int, lr: float, start: nn.Module, per_class: int, world: World
) -> tuple[nn.Module, training.TrainingReport]:
    s, model = world.settings, copy.deepcopy(start)
    report = training.train(
        model, _few(per_class, world), training.Free(s.eps, replays=8), updates=updates, lr=lr,
        batch_size=s.batch_size, seed=mix_seed(world.seed, 14), progress=False,
    )  # fmt: skip
    return model, report


FEW = {"transferred": _transferred, "scratch": _scratch, "tuned": _tuned}


def _experiment() -> Experiment:
    s = TRANSFER["record"]
    few = [f"{how}@{n}" for n in s.per_class for how in FEW]
    arms = (*SOURCES, *HEADS, *DEPTHS, "lwf", "fine-tuned", *few)
    return Experiment(
        name="defenses",
        arena="scenes",
        config={"profile": "record", **plain(s)},
        data_hashes=lambda: {
            task.data: DISTRIBUTIONS[task.data].data_hash()
            for task in (s.source, s.target, s.moved_source, s.moved_target)
        },
        cells=tuple((arm, seed) for arm in arms for seed in s.seeds),
        run=run_cell,
        expected_seconds=_expected_seconds,
    )


def _expected_seconds(arm: str) -> float:
    """On one core, roughly."""
    known = {"natural": 200, "free-8": 200, "pgd-7": 1500, "natural-head": 60, "robust-head": 60, "lwf": 700}
    return known.get(arm, 60 if arm.startswith("transferred") else 200)


EXPERIMENT = _experiment()
