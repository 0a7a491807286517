"""Chapter 1's recorded runs: what each way to train costs and how robust it makes, and where single steps collapse.

One cell is one method (arm) and one seed. Within a cell every learning rate of the profile is tried once, the best on
the cell's own validation part is kept, and only that model meets the test part; methods get equal numbers of trials.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial

import torch
from torch.nn import functional as F

from thesis_kit import training
from thesis_kit.attacks import fgsm
from thesis_kit.chapters.defenses import transfer_arms
from thesis_kit.chapters.defenses.settings import DEFENSES, Defenses
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import digits
from thesis_kit.data.digits import NAME, data_hash, test_group
from thesis_kit.data.parts import Part
from thesis_kit.evaluation import (
    RobustAccuracy,
    accuracy,
    reference_attack,
    robust_accuracy,
    strong_attacks,
    weak_attack,
)
from thesis_kit.ledger.memory import plain
from thesis_kit.ledger.runner import Experiment
from thesis_kit.models import Classifier, build
from thesis_kit.randomness import mix_seed

ARMS = {
    "natural": lambda eps: training.Natural(),
    "free-2": lambda eps: training.Free(eps, replays=2),
    "free-4": lambda eps: training.Free(eps, replays=4),
    "free-8": lambda eps: training.Free(eps, replays=8),
    "free-8 twice": lambda eps: training.Free(eps, replays=8),
    "fgsm-rs": training.fgsm_rs,
    "n-fgsm": training.n_fgsm,
    "pgd-7": lambda eps: training.PGD(eps, steps=7),
}
TWICE_THE_UPDATES = ("free-8 twice",)
SINGLE_STEP = {"fgsm": training.fgsm, "fgsm-rs": training.fgsm_rs, "n-fgsm": training.n_fgsm}
COLLAPSE_ARMS = tuple(f"{name}@strong" for name in SINGLE_STEP)
ENLARGED_ARMS = ("fgsm@enlarged", "n-fgsm@enlarged")
COLLAPSE = 0.20  # robust accuracy lost within two epochs that counts as catastrophic overfitting
_SECONDS = {"natural": 30, "pgd-7": 150, "fgsm-rs": 60, "n-fgsm": 60, "free-8 twice": 60}


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Train and judge one arm with one seed on digits; returns the record of the cell."""
    settings = DEFENSES[config["profile"]]
    run = _train_and_judge if arm in ARMS else _single_step
    return {"arm": arm, "seed": seed, "group": test_group(seed), **run(arm, seed, settings)}


def _train_and_judge(arm: str, seed: int, settings: Defenses) -> dict:
    parts, started = digits(seed), time.monotonic()
    trials = [_trial(arm, seed, lr, settings, parts.train, parts.validation) for lr in settings.learning_rates]
    model, report, chosen = max(trials, key=lambda trial: trial[2]["validation"])
    if model is None:
        raise NonFiniteOutput(f"{arm} diverged at every learning rate: add smaller ones to the profile")
    reference, weak, strong = _attacked(model, parts.test, settings, seed)
    updates, passes = report.updates, report.passes
    return {
        "n": len(parts.test),
        "outcomes": {
            "N": reference.correct.tolist(),
            "R": reference.worst.tolist(),
            "weak": weak.worst.tolist(),
            "worst": strong.worst.tolist(),
        },
        "scalars": {
            "updates": updates,
            "passes": passes.backward,
            "passes_per_update": passes.backward / updates,
            "train_seconds": report.seconds,
        },
        "budget": {"train": asdict(passes), **{a.name: _cost(a) for r in (reference, weak, strong) for a in r.attacks}},
        "survivors": {a.name: int(a.survived.sum()) for a in strong.attacks},
        "chosen": {"lr": chosen["lr"]},
        "trials": [trial[2] for trial in trials],
        "seconds": time.monotonic() - started,
    }


def _trial(arm: str, seed: int, lr: float, settings: Defenses, train: Part, validation: Part):
    """Train once; the model, its report, and how it did on validation: R for defenses, N for natural training."""
    updates = settings.updates * (2 if arm in TWICE_THE_UPDATES else 1)
    try:
        model, report = fit(ARMS[arm](settings.eps), seed, settings, train, lr=lr, updates=updates)
        if arm == "natural":
            score = accuracy(model, validation)
        else:
            score = robust_accuracy(
                model, validation, reference_attack(settings.eps), seed=seed, progress=False
            ).robust_accuracy
    except NonFiniteOutput:
        return None, None, {"lr": lr, "validation": -1.0, "diverged": True}
    return model, report, {"lr": lr, "validation": score, "diverged": False}


def fit(
    method: training.Method, seed: int, settings: Defenses, train: Part, *, lr: float, updates: int, **knobs: object
) -> tuple[Classifier, training.TrainingReport]:
    """The chapter's network, trained by ``method`` from the seed's initial weights."""
    model = build(settings.model, seed=seed, **settings.model_options).to(train.x.device)
    knobs = {"schedule": settings.schedule, "weight_decay": settings.weight_decay, **knobs}
    report = training.train(
        model, train, method, updates=updates, batch_size=settings.batch_size, lr=lr, seed=seed, progress=False, **knobs
    )
    return model, report


def _attacked(model: Classifier, test: Part, settings: Defenses, seed: int) -> list[RobustAccuracy]:
    """The test part under R, under the weak attack, and under the strong ensemble."""
    strong = strong_attacks(
        settings.eps, steps=settings.strong_steps, restarts=settings.strong_restarts, queries=settings.queries
    )
    attacks = reference_attack(settings.eps), weak_attack(settings.eps), strong
    return [robust_accuracy(model, test, some, seed=mix_seed(seed, 7), progress=False) for some in attacks]


def _cost(outcome) -> dict:
    return {"attacked": outcome.attacked, **asdict(outcome.passes)}


def _single_step(arm: str, seed: int, settings: Defenses) -> dict:
    """Train by single steps with fixed settings, R on the test part after every epoch; nothing is chosen."""
    name, where = arm.split("@")
    parts, started = digits(seed), time.monotonic()
    train, test, knobs = parts.train, parts.test, {"lr": settings.learning_rate, "updates": settings.updates}
    eps = settings.collapse_eps
    if where == "enlarged":
        train, test = (enlarged(part, settings.enlarged_size) for part in (train, test))
        knobs = {"lr": settings.enlarged_learning_rate, "updates": settings.enlarged_updates, "optimizer": "adam",
                 "schedule": "constant", "weight_decay": 0.0}  # fmt: skip
        eps = settings.enlarged_eps
    epoch = -(-len(train) // settings.batch_size)

    def attacked(model: torch.nn.Module, attacks: dict) -> RobustAccuracy:
        return robust_accuracy(model, test, attacks, seed=mix_seed(seed, 7), progress=False)

    def probe(model: torch.nn.Module) -> dict[str, float]:
        measured = attacked(model, reference_attack(eps))
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}

    model, report = fit(SINGLE_STEP[name](eps), seed, settings, train, probe=probe, probe_every=epoch, **knobs)
    final = attacked(model, reference_attack(eps))
    one_step = attacked(model, {"FGSM": partial(fgsm, eps=eps)})
    fall = largest_fall([point["R"] for point in report.history])
    return {
        "n": len(test),
        "outcomes": {"N": final.correct.tolist(), "R": final.worst.tolist(), "one step": one_step.worst.tolist()},
        "scalars": {"collapse": float(fall > COLLAPSE), "largest_fall": fall, "passes": report.passes.backward},
        "curves": {name: [[p["update"] / epoch, p[name]] for p in report.history] for name in ("N", "R")},
        "budget": {"train": asdict(report.passes)},
        "seconds": time.monotonic() - started,
    }


def enlarged(part: Part, size: int) -> Part:
    """The same images with more pixels (bilinear): nothing new to see, but more directions to attack in."""
    x = F.interpolate(part.x, (size, size), mode="bilinear", align_corners=False)
    return Part(x.clamp(0, 1), part.y, part.ids)


def largest_fall(robust: list[float], *, epochs: int = 2) -> float:
    """The largest drop of robust accuracy within ``epochs`` probes, in 0 … 1."""
    return max((robust[i] - min(robust[i : i + epochs + 1]) for i in range(len(robust))), default=0.0)


def _experiment() -> Experiment:
    settings = DEFENSES["record"]
    config = {"profile": "record", **plain(settings)}
    return Experiment(
        name="defenses",
        arena="digits",
        config=config,
        data_hashes=lambda: {NAME: data_hash()},
        cells=tuple(
            (arm, seed)
            for seed in settings.seeds
            for arm in (*ARMS, *COLLAPSE_ARMS, *(ENLARGED_ARMS if seed in settings.enlarged_seeds else ()))
        ),
        run=run_cell,
        expected_seconds=lambda arm: _SECONDS.get(arm, 45),
    )


EXPERIMENTS = {"digits": _experiment(), "scenes": transfer_arms.EXPERIMENT}
