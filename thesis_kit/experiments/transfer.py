"""Chapter 1's second half, recorded on scenes: robustness that is inherited rather than trained.

A source network learns classes A; the target is classes B of the same world, which it has never seen. One cell is one
arm and one seed; source networks and the models that a trend needs are made once a seed and kept. Hyper-parameters are
chosen on validation images, with equal numbers of trials for all arms that a claim compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property

from scipy.stats import spearmanr
from torch import nn

from thesis_kit import training
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits, load
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.distributions import test_group
from thesis_kit.evaluation import RobustAccuracy, reference_attack, robust_accuracy, weak_attack
from thesis_kit.experiments.memory import Memory
from thesis_kit.experiments.runner import Experiment
from thesis_kit.models import Classifier, anatomy, build
from thesis_kit.passes import Passes, count_passes
from thesis_kit.profiles import TRANSFER, Transfer
from thesis_kit.randomness import mix_seed

SOURCES: dict[str, Callable[[float], training.Natural]] = {
    "natural": lambda eps: training.Natural(),
    "free-8": lambda eps: training.Free(eps, replays=8),
    "pgd-7": lambda eps: training.PGD(eps, steps=7),
}
HEADS = {"natural-head": "natural", "robust-head": "pgd-7"}
ROBUST = "pgd-7"  # the source whose robustness is to be inherited
N_BLOCKS = 7  # of the network: a stem and six residual blocks
DEPTHS = {**{f"depth-{k}": k for k in range(N_BLOCKS)}, "depth-all": N_BLOCKS}


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


class World:
    """Source and target of one seed, and the source networks, made when first asked for."""

    def __init__(self, seed: int, settings: Transfer):
        self.seed, self.settings, self.memory = seed, settings, Memory(__name__)

    def _load(self, name: str, n_train: int | None) -> Splits:
        counts = {"n_train": n_train, "n_validation": self.settings.n_validation, "n_test": self.settings.n_test}
        return load(name, self.seed, size=self.settings.size, **counts)

    @cached_property
    def source(self) -> Splits:
        """The source task: an endless stream of classes A."""
        return self._load(self.settings.source, None)

    @cached_property
    def target(self) -> Splits:
        """The target task: a stored training part of classes B."""
        return self._load(self.settings.target, self.settings.n_target)

    def group(self, name: str) -> str:
        """The name of a task's test images."""
        return test_group(name, self.settings.size, self.settings.n_test)

    def network(self, task: str) -> Classifier:
        """The chapter's network with the seed's initial weights for a task's classes."""
        n_classes = len(DISTRIBUTIONS[task].classes)
        return build(self.settings.model, n_classes=n_classes, seed=self.seed, **self.settings.model_options)

    def trained(self, arm: str) -> tuple[Classifier, training.TrainingReport]:
        """A source network, from its finished checkpoint where there is one."""
        s = self.settings
        model, method = self.network(s.source), SOURCES[arm](s.eps)
        with self.memory.place({"network": arm, "seed": self.seed, **_plain(s)}, ".ckpt") as path:
            report = training.train(
                model, self.source.train, method, updates=s.source_updates, batch_size=s.batch_size, lr=s.source_lr,
                seed=self.seed, checkpoint=path, progress=False,
            )  # fmt: skip
        return model.eval(), report

    def robust(self, model: nn.Module, part: Part, attack: dict | None = None) -> RobustAccuracy:
        """A part under an attack, PGD-20 unless given."""
        attack = attack or reference_attack(self.settings.eps)
        return robust_accuracy(model, part, attack, seed=mix_seed(self.seed, 7), progress=False)

    def scores(self, model: nn.Module) -> dict[str, float]:
        """N and R on the target's validation part; below anything possible for a model that diverged."""
        try:
            measured = self.robust(model, self.target.validation)
        except NonFiniteOutput:
            return {"N": -1.0, "R": -1.0}
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Make and judge one arm with one seed; returns the record of the cell."""
    settings, started = TRANSFER[config["profile"]], time.monotonic()
    world = World(seed, settings)
    record = world.memory.recall({"arm": arm, "seed": seed, **_plain(settings)}, lambda: _judged(arm, world))
    if arm == "depth-all":
        record["scalars"]["trend"] = _trend(world)
    return {"arm": arm, "seed": seed, **record, "seconds": time.monotonic() - started}


def _plain(settings: Transfer) -> dict:
    return {key: dict(value) if hasattr(value, "items") else value for key, value in vars(settings).items()}


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
    made = _make(arm, world)
    reference, weak = (world.robust(made.model, made.test, a) for a in (None, weak_attack(world.settings.eps)))
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
    }


def _source(arm: str, world: World) -> Made:
    """A source network on its own task."""
    model, report = world.trained(arm)
    name = world.settings.source
    return Made(model, world.source.test, world.group(name), report.passes, report.updates, report.seconds)


def _on_target(world: World, model: nn.Module, passes: Passes, **what: object) -> Made:
    return Made(model, world.target.test, world.group(world.settings.target), passes, **what)


def _fitted_head(world: World, model: nn.Module, data: Part) -> tuple[nn.Module, Passes, dict]:
    """A linear head on frozen features, its penalty chosen by clean validation accuracy."""
    n_classes = len(DISTRIBUTIONS[world.settings.target].classes)
    with count_passes(model) as passes:
        penalty = training.choose_penalty(
            model, data, world.target.validation, penalties=world.settings.penalties, n_classes=n_classes
        )
        headed = training.linear_head(model, data, n_classes=n_classes, penalty=penalty)
    return headed, passes, {"penalty": penalty}


def _head(source: str, world: World) -> Made:
    """New head, frozen features, clean images."""
    model, _ = world.trained(source)
    headed, passes, chosen = _fitted_head(world, model, world.target.train)
    return _on_target(world, headed, passes, chosen=chosen)


def _retrained(k: int, world: World) -> Made:
    """The last k blocks drawn anew and trained on clean images of the source task itself."""
    s = world.settings
    model, _ = world.trained(ROBUST)
    n_classes = len(DISTRIBUTIONS[s.source].classes)
    new, report = training.retrain_last(
        model, world.source.train, k, n_classes=n_classes, updates=s.depth_updates, lr=s.depth_lr,
        batch_size=s.batch_size, seed=mix_seed(world.seed, 11), progress=False,
    )  # fmt: skip
    return Made(new, world.source.test, world.group(s.source), report.passes, report.updates, report.seconds)


def _trend(world: World) -> float:
    """Spearman correlation of blocks retrained and robustness lost, over one seed's models."""
    robust = []
    for arm in DEPTHS:
        settings = {"arm": arm, "seed": world.seed, **_plain(world.settings)}
        bits = world.memory.recall(settings, lambda arm=arm: _judged(arm, world))["outcomes"]["R"]
        robust.append(sum(bits) / len(bits))
    return float(spearmanr(list(DEPTHS.values()), [-share for share in robust]).statistic)


def _distilled(arm: str, world: World) -> Made:
    """End-to-end fine-tuning on clean images, features held near the source's by a strength chosen on validation.

    Of the strengths that lose at most a point of robust validation accuracy against frozen features, the one with the
    highest clean accuracy; if all lose more, the most robust. Without distillation there is nothing to choose.
    """
    s = world.settings
    source, _ = world.trained(ROBUST)
    frozen, passes, _ = _fitted_head(world, source, world.target.train)
    floor = world.scores(frozen)["R"] - 0.01
    strengths = s.strengths if arm == "lwf" else (0.0,)
    tried = []
    for strength in strengths:
        model, report = training.distill(
            source, world.target.train, strength=strength, n_classes=len(DISTRIBUTIONS[s.target].classes),
            updates=s.distill_updates, lr=s.distill_lr, head=anatomy.head(frozen), batch_size=s.batch_size,
            seed=mix_seed(world.seed, 12), progress=False,
        )  # fmt: skip
        tried.append((model, report, {"strength": strength, **world.scores(model)}))
    kept = [one for one in tried if one[2]["R"] >= floor]
    model, report, best = max(kept, key=lambda t: t[2]["N"]) if kept else max(tried, key=lambda t: t[2]["R"])
    return _on_target(
        world, model, passes + report.passes, updates=report.updates, seconds=report.seconds,
        chosen={"strength": best["strength"]}, trials=[t[2] for t in tried],
    )  # fmt: skip


def _few(per_class: int, world: World) -> Part:
    return training.few(world.target.train, per_class, seed=mix_seed(world.seed, 13))


def _transferred(per_class: int, world: World) -> Made:
    """Few clean images, frozen robust features, a new head."""
    model, _ = world.trained(ROBUST)
    headed, passes, chosen = _fitted_head(world, model, _few(per_class, world))
    return _on_target(world, headed, passes, chosen=chosen)


def _scratch(per_class: int, world: World) -> Made:
    """Free training from new weights on few images."""
    return _free(world.network(world.settings.target), per_class, world)


def _tuned(per_class: int, world: World) -> Made:
    """Free training on few images, from the robust source with a head fitted to them."""
    model, _ = world.trained(ROBUST)
    headed, _, _ = _fitted_head(world, model, _few(per_class, world))
    return _free(headed, per_class, world)


def _free(start: nn.Module, per_class: int, world: World) -> Made:
    """Free training at each learning rate; the one with the highest robust validation accuracy is kept."""
    s, tried = world.settings, []
    initial = {key: value.clone() for key, value in start.state_dict().items()}
    for lr in s.few_lrs:
        start.load_state_dict(initial)
        report = training.train(
            start, _few(per_class, world), training.Free(s.eps, replays=8), updates=s.few_updates, lr=lr,
            batch_size=s.batch_size, seed=mix_seed(world.seed, 14), progress=False,
        )  # fmt: skip
        weights = {key: value.clone() for key, value in start.state_dict().items()}
        tried.append((weights, report, {"lr": lr, **world.scores(start)}))
    weights, report, best = max(tried, key=lambda t: t[2]["R"])
    start.load_state_dict(weights)
    return _on_target(
        world, start, report.passes, updates=report.updates, seconds=report.seconds, chosen={"lr": best["lr"]},
        trials=[t[2] for t in tried],
    )  # fmt: skip


FEW = {"transferred": _transferred, "scratch": _scratch, "tuned": _tuned}


def _experiment() -> Experiment:
    s = TRANSFER["record"]
    few = [f"{how}@{n}" for n in s.per_class for how in FEW]
    arms = (*SOURCES, *HEADS, *DEPTHS, "lwf", "fine-tuned", *few)
    return Experiment(
        name="defenses",
        arena="scenes",
        config={"profile": "record", **_plain(s)},
        data_hashes=lambda: {name: DISTRIBUTIONS[name].data_hash() for name in (s.source, s.target)},
        cells=tuple((arm, seed) for arm in arms for seed in s.seeds),
        run=run_cell,
        expected_seconds=_expected_seconds,
    )


def _expected_seconds(arm: str) -> float:
    """On one core, roughly."""
    known = {"natural": 200, "free-8": 200, "pgd-7": 1500, "natural-head": 60, "robust-head": 60, "lwf": 700}
    return known.get(arm, 60 if arm.startswith("transferred") else 200)


EXPERIMENTS = {"scenes": _experiment()}
