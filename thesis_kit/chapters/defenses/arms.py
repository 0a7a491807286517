"""Chapter 1's arms: what each way to train costs and how robust it makes, and where single steps collapse.

Within a cell every learning rate of the table is tried once, the best on the cell's own validation part is kept, and
only that model meets the test part; methods get equal numbers of trials. ``transfer_arms`` has the second half.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn import functional as F

from thesis_kit import training
from thesis_kit.attacks import fgsm
from thesis_kit.chapters import world
from thesis_kit.chapters.defenses import transfer_arms
from thesis_kit.chapters.defenses.settings import DEFENSES, Defenses
from thesis_kit.chapters.world import costs, training_numbers
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Splits, digits
from thesis_kit.data.digits import NAME, test_group
from thesis_kit.data.parts import Part
from thesis_kit.evaluation import accuracy, reference_attack, robust_accuracy, strong_attacks, weak_attack
from thesis_kit.ledger.arm import Arm, Experiment, Look, pick
from thesis_kit.models import Classifier, build

COLLAPSE = 0.20  # robust accuracy lost within two epochs that counts as catastrophic overfitting
_NETWORK = ("model", "model_options", "batch_size")
_JUDGED = ("eps", "learning_rates", "strong_steps", "strong_restarts", "queries")
_LOOKS = {  # color and marker of a method, so that neither carries the meaning alone
    "natural": Look("gray", "s", name="Natural"),
    "fgsm": Look("vermilion", "X", name="FGSM"),
    "fgsm-rs": Look("orange", "^", name="FGSM-RS"),
    "n-fgsm": Look("purple", "v", name="N-FGSM"),
    "pgd": Look("green", "D", name="PGD-7"),
}


class World(world.World):
    """The digits of one seed."""

    @cached_property
    def splits(self) -> Splits:
        """Training, validation and test part."""
        return digits(self.seed)


def method_of(s: Any) -> training.Method:
    """The training method that an arm's settings name, at its radius."""
    radius = {} if s.method == "natural" else {"eps": s.eps}
    return training.METHODS[s.method](**radius, **s.knobs)


def train_and_judge(world: World) -> dict:
    """Train with every learning rate, keep the best on validation, and attack it on the test part."""
    s, parts = world.settings, world.splits
    trials = [_trial(world, lr) for lr in s.learning_rates]
    model, report, chosen = max(trials, key=lambda trial: trial[2]["validation"])
    if model is None:
        raise NonFiniteOutput(f"{s.method} training diverged at every learning rate: add smaller ones to the table")
    strong = strong_attacks(s.eps, steps=s.strong_steps, restarts=s.strong_restarts, queries=s.queries)
    under = [world.attacked(model, parts.test, some) for some in (reference_attack(s.eps), weak_attack(s.eps), strong)]
    return {
        "group": test_group(world.seed),
        "n": len(parts.test),
        "outcomes": {
            "N": under[0].correct.tolist(),
            **{name: found.worst.tolist() for name, found in zip(("R", "weak", "worst"), under, strict=True)},
        },
        "scalars": training_numbers(report.updates, report.passes, report.seconds),
        "budget": {"train": asdict(report.passes), **costs(*under)},
        "survivors": {a.name: int(a.survived.sum()) for a in under[2].attacks},
        "chosen": {"lr": chosen["lr"]},
        "trials": [trial[2] for trial in trials],
    }


def _trial(world: World, lr: float) -> tuple[Classifier | None, training.TrainingReport | None, dict]:
    """Train once; the model, its report, and how it did on validation: R for defenses, N for natural training."""
    s, parts = world.settings, world.splits
    try:
        model, report = fit(method_of(s), world.seed, s, parts.train, lr=lr, updates=s.updates)
        if s.method == "natural":
            score = accuracy(model, parts.validation)
        else:
            score = robust_accuracy(
                model, parts.validation, reference_attack(s.eps), seed=world.seed, progress=False
            ).robust_accuracy
    except NonFiniteOutput:
        return None, None, {"lr": lr, "validation": -1.0, "diverged": True}
    return model, report, {"lr": lr, "validation": score, "diverged": False}


def fit(
    method: training.Method, seed: int, settings: Any, train: Part, *, lr: float, updates: int, **knobs: Any
) -> tuple[Classifier, training.TrainingReport]:
    """The chapter's network, trained by ``method`` from the seed's initial weights."""
    model = build(settings.model, seed=seed, **settings.model_options).to(train.x.device)
    knobs = {"schedule": settings.schedule, "weight_decay": settings.weight_decay, **knobs}
    report = training.train(
        model, train, method, updates=updates, batch_size=settings.batch_size, lr=lr, seed=seed, progress=False, **knobs
    )
    return model, report


def follow_training(world: World) -> dict:
    """Train by single steps with fixed settings, R on the test part after every epoch; nothing is chosen."""
    s, train, test = world.settings, *(_sized(part, world) for part in (world.splits.train, world.splits.test))
    epoch = -(-len(train) // s.batch_size)

    def probe(model: torch.nn.Module) -> dict[str, float]:
        measured = world.attacked(model, test, reference_attack(s.eps))
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}

    model, report = fit(
        method_of(s), world.seed, s, train, lr=s.lr, updates=s.updates, optimizer=s.optimizer, probe=probe,
        probe_every=epoch,
    )  # fmt: skip
    final = world.attacked(model, test, reference_attack(s.eps))
    one_step = world.attacked(model, test, {"FGSM": partial(fgsm, eps=s.eps)})
    fall = largest_fall([point["R"] for point in report.history])
    return {
        "group": test_group(world.seed),
        "n": len(test),
        "outcomes": {"N": final.correct.tolist(), "R": final.worst.tolist(), "one step": one_step.worst.tolist()},
        "scalars": {"collapse": float(fall > COLLAPSE), "largest_fall": fall, "passes": report.passes.backward},
        "curves": {name: [[p["update"] / epoch, p[name]] for p in report.history] for name in ("N", "R")},
        "budget": {"train": asdict(report.passes)},
    }


def _sized(part: Part, world: World) -> Part:
    return part if world.settings.size is None else enlarged(part, world.settings.size)


def enlarged(part: Part, size: int) -> Part:
    """The same images with more pixels (bilinear): nothing new to see, but more directions to attack in."""
    x = F.interpolate(part.x, (size, size), mode="bilinear", align_corners=False)
    return Part(x.clamp(0, 1), part.y, part.ids)


def largest_fall(robust: list[float], *, epochs: int = 2) -> float:
    """The largest drop of robust accuracy within ``epochs`` probes, in 0 … 1."""
    return max((robust[i] - min(robust[i : i + epochs + 1]) for i in range(len(robust))), default=0.0)


def arms(s: Defenses) -> tuple[Arm, ...]:
    """All arms of the digits."""

    def judged(name: str, title: str, method: str, look: Look, *, updates: int = s.updates, **knobs: int) -> Arm:
        own = pick(s, *_NETWORK, *_JUDGED, "schedule", "weight_decay", method=method, knobs=knobs, updates=updates)
        return Arm(name, title, World, train_and_judge, own, s.seeds, data=(NAME,), look=look)

    def strong(method: str, title: str) -> Arm:
        how = {"schedule": s.schedule, "weight_decay": s.weight_decay, "optimizer": "sgd", "size": None}
        sizes = {"eps": s.collapse_eps, "lr": s.learning_rate, "updates": s.updates}
        own = pick(s, *_NETWORK, method=method, knobs={}, **sizes, **how)
        title = f"{title} at the large radius"
        return Arm(f"{method}@strong", title, World, follow_training, own, s.seeds, data=(NAME,), look=_LOOKS[method])

    def large(method: str, title: str) -> Arm:
        how = {"schedule": "constant", "weight_decay": 0.0, "optimizer": "adam", "size": s.enlarged_size}
        sizes = {"eps": s.enlarged_eps, "lr": s.enlarged_learning_rate, "updates": s.enlarged_updates}
        own = pick(s, *_NETWORK, method=method, knobs={}, **sizes, **how)
        name, seeds = f"{method}@enlarged", s.enlarged_seeds
        title = f"{title} on enlarged digits"
        return Arm(name, title, World, follow_training, own, seeds, data=(NAME,), look=_LOOKS[method])

    return (
        judged("natural", "ordinary training", "natural", _LOOKS["natural"]),
        judged("free-2", "Free, m = 2", "free", Look("blue", "o", "none"), replays=2),  # fuller with m
        judged("free-4", "Free, m = 4", "free", Look("blue", "o", "bottom"), replays=4),
        judged("free-8", "Free, m = 8", "free", Look("blue", "o"), replays=8),
        judged(
            "free-8 twice", "Free, m = 8, twice the updates", "free", Look("sky", "P", name="Free, m = 8, 2 × updates"),
            updates=2 * s.updates, replays=8,
        ),
        judged("fgsm-rs", "FGSM-RS", "fgsm-rs", _LOOKS["fgsm-rs"]),
        judged("n-fgsm", "N-FGSM", "n-fgsm", _LOOKS["n-fgsm"]),
        judged("pgd-7", "PGD-7 training", "pgd", _LOOKS["pgd"], steps=7),
        strong("fgsm", "FGSM training"),
        strong("fgsm-rs", "FGSM-RS"),
        strong("n-fgsm", "N-FGSM"),
        large("fgsm", "FGSM training"),
        large("n-fgsm", "N-FGSM"),
    )  # fmt: skip


EXPERIMENTS = {
    "digits": Experiment("defenses", "digits", arms(DEFENSES["record"])),
    "scenes": Experiment("defenses", "scenes", transfer_arms.ARMS),
}
COLLAPSE_ARMS = ("fgsm@strong", "fgsm-rs@strong", "n-fgsm@strong")
ENLARGED_ARMS = ("fgsm@enlarged", "n-fgsm@enlarged")
