"""Chapter 1's recorded runs: what each way to train costs and how robust it makes, and where single steps collapse.

One cell is one method (arm) and one seed. Within a cell every learning rate of the profile is tried once, the best on
the cell's own validation part is kept, and only that model meets the test part; methods get equal numbers of trials.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import torch

from thesis_kit import training
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import digits
from thesis_kit.data.digits import NAME, data_hash, test_group
from thesis_kit.data.parts import Part
from thesis_kit.evaluation import (
    RobustAccuracy,
    accuracy,
    correct,
    reference_attack,
    robust_accuracy,
    strong_attacks,
    weak_attack,
)
from thesis_kit.experiments.runner import Experiment
from thesis_kit.models import Classifier, build
from thesis_kit.profiles import DEFENSES, Defenses
from thesis_kit.randomness import mix_seed

ARMS = {
    "natural": lambda eps: training.Natural(),
    "free-2": lambda eps: training.Free(eps, replays=2),
    "free-4": lambda eps: training.Free(eps, replays=4),
    "free-8": lambda eps: training.Free(eps, replays=8),
    "free-10": lambda eps: training.Free(eps, replays=10),
    "free-8 cold": lambda eps: training.Free(eps, replays=8, warm_start=False),
    "free-8 twice": lambda eps: training.Free(eps, replays=8),
    "fgsm-rs": training.fgsm_rs,
    "n-fgsm": training.n_fgsm,
    "pgd-7": lambda eps: training.PGD(eps, steps=7),
}
TWICE_THE_UPDATES = ("free-8 twice",)
COLLAPSE_ARMS = {
    "fgsm@strong": training.fgsm,
    "fgsm-rs@strong": training.fgsm_rs,
    "n-fgsm@strong": training.n_fgsm,
}
_SECONDS = {"natural": 30, "pgd-7": 150, "fgsm-rs": 60, "n-fgsm": 60, "free-8 twice": 60}


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Train and judge one arm with one seed on digits; returns the record of the cell."""
    settings = DEFENSES[config["profile"]]
    run = _collapse if arm in COLLAPSE_ARMS else _train_and_judge
    return {"arm": arm, "seed": seed, "group": test_group(seed), **run(arm, seed, settings)}


def _train_and_judge(arm: str, seed: int, settings: Defenses) -> dict:
    parts, started = digits(seed), time.monotonic()
    trials = [_trial(arm, seed, lr, settings, parts.train, parts.validation) for lr in settings.learning_rates]
    model, report, chosen = max(trials, key=lambda trial: trial[2]["validation"])
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
    except NonFiniteOutput:
        return None, None, {"lr": lr, "validation": -1.0, "diverged": True}
    if arm == "natural":
        score = accuracy(model, validation)
    else:
        score = robust_accuracy(
            model, validation, reference_attack(settings.eps), seed=seed, progress=False
        ).robust_accuracy
    return model, report, {"lr": lr, "validation": score, "diverged": False}


def fit(
    method: training.Natural, seed: int, settings: Defenses, train: Part, *, lr: float, updates: int, **more: object
) -> tuple[Classifier, training.TrainingReport]:
    """The chapter's network, trained by ``method`` from the seed's initial weights."""
    model = build(settings.model, seed=seed, **settings.model_options).to(train.x.device)
    report = training.train(
        model, train, method, updates=updates, batch_size=settings.batch_size, lr=lr, schedule=settings.schedule,
        weight_decay=settings.weight_decay, seed=seed, progress=False, **more,
    )  # fmt: skip
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


def _collapse(arm: str, seed: int, settings: Defenses) -> dict:
    """Train at the large radius with the profile's fixed rate; R on the test part after every epoch; no choice is made."""
    parts, started = digits(seed), time.monotonic()
    epoch = -(-len(parts.train) // settings.batch_size)
    attack = reference_attack(settings.collapse_eps)

    def probe(model: torch.nn.Module) -> dict[str, float]:
        measured = robust_accuracy(model, parts.test, attack, seed=mix_seed(seed, 7), progress=False)
        return {"N": measured.clean_accuracy, "R": measured.robust_accuracy}

    method = COLLAPSE_ARMS[arm](settings.collapse_eps)
    model, report = fit(method, seed, settings, parts.train, lr=settings.learning_rate, updates=settings.updates,
                        probe=probe, probe_every=epoch)  # fmt: skip
    curve = [point["R"] for point in report.history]
    final = robust_accuracy(model, parts.test, attack, seed=mix_seed(seed, 7), progress=False)
    return {
        "n": len(parts.test),
        "outcomes": {"N": correct(model, parts.test).tolist(), "R": final.worst.tolist()},
        "scalars": {"collapse": float(collapsed(curve)), "passes": report.passes.backward,
                    "largest_fall": largest_fall(curve)},  # fmt: skip
        "curves": {name: [[p["update"] / epoch, p[name]] for p in report.history] for name in ("N", "R")},
        "budget": {"train": asdict(report.passes)},
        "seconds": time.monotonic() - started,
    }


def largest_fall(robust: list[float], *, epochs: int = 2) -> float:
    """The largest drop of robust accuracy within ``epochs`` probes, in 0 … 1."""
    return max((robust[i] - min(robust[i : i + epochs + 1]) for i in range(len(robust))), default=0.0)


def collapsed(robust: list[float], *, points: float = 20.0) -> bool:
    """Whether robust accuracy fell by more than ``points`` within two epochs: catastrophic overfitting."""
    return 100 * largest_fall(robust) > points


def _experiment() -> Experiment:
    settings = DEFENSES["record"]
    config = {"profile": "record", **{k: dict(v) if hasattr(v, "items") else v for k, v in vars(settings).items()}}
    return Experiment(
        name="defenses",
        arena="digits",
        config=config,
        data_hashes=lambda: {NAME: data_hash()},
        cells=tuple((arm, seed) for seed in settings.seeds for arm in (*ARMS, *COLLAPSE_ARMS)),
        run=run_cell,
        expected_seconds=lambda arm: _SECONDS.get(arm, 45),
    )


EXPERIMENTS = {"digits": _experiment()}
