"""Chapter 3's arms: regularizers beside adversarial training, under attacks of growing strength.

On digits every arm that is compared gets equal numbers of trials, the best under a *weak* attack on the cell's
validation part is frozen, and only then meets the test part and stronger attacks. On scenes there is one setting and no
trial. Ordinary training, noise, label smoothing and logit squeezing come alone and with noise; two more regularizers
with noise; the better of smoothing and squeezing with noise; and PGD training, which gets as many trials as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.attacks import fgsm, pgd
from thesis_kit.chapters.regularization.settings import REGULARIZATION, REGULARIZATION_ON_SCENES, Regularization
from thesis_kit.chapters.regularization.world import TRAINING, Setting, World
from thesis_kit.chapters.world import costs, training_numbers
from thesis_kit.data import Part
from thesis_kit.data.digits import NAME as DIGITS
from thesis_kit.evaluation import Rescaled, first_order, reference_attack, smallest_eps, strong_attacks, weak_attack
from thesis_kit.ledger.arm import Arm, Experiment, Look, pick
from thesis_kit.randomness import ImageRandom

LADDER = ("one step", "weak", "R", "long", "restarts", "worst")  # attacks of growing strength, by their measure
_JUDGED = ("strong_steps", "strong_restarts", "queries", "temperatures", "radii", "images")
_ATTACK, _DISTANCE = 7, 32  # streams of a seed
_LARGEST = 1.0  # where a radius is infinite: no pixel can move further


@dataclass(frozen=True)
class Way:
    """A way to train: by which term beside cross-entropy (a strength of ``world.TERMS``), on noise or not, against
    PGD or not; how it is called and drawn."""

    title: str
    look: Look
    term: str | None = None
    noise: bool = False
    robust: bool = False


WAYS = {
    "natural": Way("ordinary training", Look("gray", "s")),
    "noise": Way("training on noisy images", Look("sky", "v", name="noise"), noise=True),
    "ls": Way("label smoothing", Look("purple", "<"), "alpha"),
    "lsq": Way("logit squeezing", Look("green", ">"), "beta"),
    "ls+noise": Way(
        "label smoothing with noise", Look("vermilion", "^", name="smoothing + noise"), "alpha", noise=True
    ),
    "lsq+noise": Way("logit squeezing with noise", Look("orange", "o", name="squeezing + noise"), "beta", noise=True),
    "similarity+noise": Way(
        "logit similarity (ours) with noise", Look("purple", "P", name="similarity (ours) + noise"), "similarity",
        noise=True,
    ),
    "pairing+noise": Way(
        "clean logit pairing with noise", Look("green", "X", name="logit pairing + noise"), "pairing", noise=True
    ),
    "pgd-7": Way("PGD-7 training", Look("blue", "D"), robust=True),
}  # fmt: skip
BEST = ("ls+noise", "lsq+noise")  # of which "best+noise" is the better
_TRIED = {"alpha": "alphas", "beta": "betas", "similarity": "similarities", "pairing": "pairings"}


def settings_tried(way: Way, s: Regularization) -> list[Setting]:
    """The trials of a way to train: over its own strength and that of the noise, or over learning rates where it has
    only one knob."""
    if way.robust:
        return [*_grid(lr=s.learning_rates, step_size=s.step_sizes, weight_decay=s.robust_weight_decays)]
    strength = {way.term: getattr(s, _TRIED[way.term])} if way.term else {}
    noise = {"sigma": s.sigmas} if way.noise else {}
    if not strength and not noise:
        return [*_grid(lr=s.learning_rates, weight_decay=s.weight_decays)]
    return [*_grid(**strength, **noise, lr=(s.lr,) if strength and noise else s.learning_rates)]


def one_setting(way: Way, s: Regularization) -> Setting:
    """The setting of a way to train where nothing is chosen."""
    strength = {way.term: getattr(s, way.term)} if way.term else {}
    noise = {"sigma": s.sigma} if way.noise else {}
    return {"lr": s.lr, **strength, **noise, **({"step_size": 0.25} if way.robust else {})}


def _grid(**knobs: tuple[float, ...]) -> Iterator[dict[str, float]]:
    return (dict(zip(knobs, point, strict=True)) for point in product(*knobs.values()))


def make_and_judge(world: World) -> dict:
    """Train as the arm says and attack it in every way; returns the record of the cell."""
    s, test = world.settings, world.test
    made = world.made(s.grids, by=s.by)
    under, budget = _ladder(made.model, world)
    scales, curves = _scales(made.model, world)
    linear, values = _linear(made.model, world)
    outcomes = {**under, "transfer": _transferred(made.model, world), **scales}
    return {
        "group": world.group,
        "n": len(test),
        "outcomes": {name: column.tolist() for name, column in outcomes.items()},
        "values": {name: [round(v, 6) for v in column.tolist()] for name, column in values.items()},
        "scalars": {**training_numbers(made.updates, made.passes, made.seconds), **linear},
        "curves": curves,
        "budget": {"train": asdict(made.passes), **budget},
        "chosen": made.setting,
        "trials": made.trials,
    }


def _ladder(model: nn.Module, world: World) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """Which images survive attacks of growing strength, each alone, and what these cost."""
    s, test = world.settings, world.test
    long = partial(pgd, eps=s.eps, steps=s.strong_steps, step_size=s.eps / 4)
    rungs = {
        "one step": {"FGSM": partial(fgsm, eps=s.eps)},
        "weak": weak_attack(s.eps),
        "R": reference_attack(s.eps),
        "long": {"PGD long": long},
        "restarts": {"PGD restarts": partial(long, restarts=s.strong_restarts)},
        "worst": strong_attacks(s.eps, steps=s.strong_steps, restarts=s.strong_restarts, queries=s.queries),
    }
    found = {name: world.attacked(model, test, attacks) for name, attacks in rungs.items()}
    return {"N": found["R"].correct, **{name: one.worst for name, one in found.items()}}, costs(*found.values())


def _transferred(model: nn.Module, world: World) -> Tensor:
    """Which images survive examples made on the natural twin: PGD on the margin with the strong number of steps."""
    s, test = world.settings, world.test
    random = ImageRandom(world.stream(_ATTACK), test.ids)
    x_adv = pgd(
        world.twin(s.ordinary), test.x, test.y, eps=s.eps, steps=s.strong_steps, step_size=s.eps / 4, loss="margin",
        generator=random,
    )  # fmt: skip
    with evaluating(model), torch.no_grad():
        return (model(x_adv).argmax(dim=1) == test.y) & (model(test.x).argmax(dim=1) == test.y)


def _scales(model: nn.Module, world: World) -> tuple[dict[str, Tensor], dict[str, list]]:
    """PGD-20 on the logits over temperatures, with two losses.

    The temperatures at which most and fewest images survive are found on validation images; the outcomes are of the
    test images there. The curves are of the test images at all of them.
    """
    s, outcomes, curves = world.settings, {}, {}
    for loss in ("ce", "dlr"):
        attack = {"PGD-20": partial(pgd, eps=s.eps, steps=20, step_size=s.eps / 4, loss=loss)}

        def under(part: Part, attack: dict = attack) -> dict[float, Tensor]:
            return {t: world.attacked(Rescaled(model, t), part, attack).worst for t in s.temperatures}

        validation = {t: kept.double().mean().item() for t, kept in under(world.splits.validation).items()}
        test = under(world.test)
        outcomes[f"{loss}_high"] = test[max(validation, key=validation.get)]
        outcomes[f"{loss}_low"] = test[min(validation, key=validation.get)]
        curves[loss] = [[t, kept.double().mean().item()] for t, kept in test.items()]
    return outcomes, curves


def _linear(model: nn.Module, world: World) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The first-order margin and its two parts, and where PGD on the margin really succeeds."""
    s, test = world.settings, world.test
    found = first_order(model, test.x, test.y)
    random = ImageRandom(world.stream(_DISTANCE), test.ids)
    distance = smallest_eps(model, test.x, test.y, s.radii, generator=random)
    margin = found.margin.clamp_max(_LARGEST)
    values = {
        "margin": margin,
        "distance": distance.clamp_max(_LARGEST),
        "logit_gap": found.logit_gap,
        "log_gradient_gap": found.gradient_gap.clamp_min(1e-12).log(),
    }
    return {"first_order": margin.median().item()}, values


def arms_on_digits(s: Regularization) -> tuple[Arm, ...]:
    """Every way to train with its trials, and the better of smoothing and squeezing with noise."""
    tried = {name: settings_tried(way, s) for name, way in WAYS.items()}
    best = {"grids": [tried[name] for name in BEST], "by": "weak"}
    title = "the better of smoothing and squeezing, with noise"
    return (
        *(
            _arm(name, way.title, s, DIGITS, tried["natural"], look=way.look, grids=[tried[name]], by=_judge_of(name))
            for name, way in WAYS.items()
        ),
        _arm("best+noise", title, s, DIGITS, tried["natural"], **best),
    )


def arms_on_scenes(s: Regularization) -> tuple[Arm, ...]:
    """The ways of the chapter's claims, each with one setting."""
    single = {name: [one_setting(WAYS[name], s)] for name in ("natural", "noise", *BEST, "pgd-7")}
    return tuple(
        _arm(name, way.title, s, s.data, single["natural"], look=way.look, grids=[single[name]], by=_judge_of(name))
        for name, way in WAYS.items() if name in single
    )  # fmt: skip


def _judge_of(name: str) -> str:
    return "accuracy" if name == "natural" else "weak"


def _arm(
    name: str, title: str, s: Regularization, data: str, ordinary: list[Setting], look: Look | None = None, **own: Any
) -> Arm:
    settings = pick(s, *TRAINING, *_JUDGED, ordinary=ordinary, **own)
    return Arm(name, title, World, make_and_judge, settings, s.seeds, data=(data,), look=look)


EXPERIMENTS = {
    "digits": Experiment("regularization", "digits", arms_on_digits(REGULARIZATION["record"])),
    "scenes": Experiment("regularization", "scenes", arms_on_scenes(REGULARIZATION_ON_SCENES)),
}
