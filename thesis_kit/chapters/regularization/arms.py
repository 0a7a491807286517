"""Chapter 3's recorded runs: regularizers beside adversarial training, under attacks of growing strength.

One cell is one arm and one seed. On digits every arm that is compared gets equal numbers of trials, the best under a
*weak* attack on the cell's validation part is frozen, and only then meets the test part and stronger attacks: this is
how such methods came to look robust. On scenes there is one setting and no trial.

Arms: ordinary training, noise, label smoothing and logit squeezing alone and with noise, two more regularizers with
noise, the better of smoothing and squeezing with noise, and PGD training, which gets as many trials as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import product

import torch
from torch import Tensor, nn

from thesis_kit import training
from thesis_kit.asking import evaluating
from thesis_kit.attacks import fgsm, pgd
from thesis_kit.chapters.regularization.settings import REGULARIZATION, REGULARIZATION_ON_SCENES, Regularization
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits, load
from thesis_kit.data.digits import NAME as DIGITS
from thesis_kit.data.digits import data_hash as digits_hash
from thesis_kit.data.digits import test_group as digits_group
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.distributions import test_group as scenes_group
from thesis_kit.evaluation import (
    Rescaled,
    RobustAccuracy,
    accuracy,
    first_order,
    reference_attack,
    robust_accuracy,
    smallest_eps,
    strong_attacks,
    weak_attack,
)
from thesis_kit.evaluation.robust import Attack
from thesis_kit.ledger.memory import Memory, plain
from thesis_kit.ledger.runner import Experiment
from thesis_kit.models import Classifier, build
from thesis_kit.passes import Passes
from thesis_kit.randomness import ImageRandom, mix_seed

TERMS = {
    "alpha": training.LabelSmoothing,
    "beta": training.LogitSqueezing,
    "similarity": training.LogitSimilarity,
    "pairing": training.CleanLogitPairing,
}
BEST = ("ls+noise", "lsq+noise")  # of which "best+noise" is the better
CHOSEN = ("natural", "noise", "ls", "lsq", *BEST, "similarity+noise", "pairing+noise", "pgd-7")
ARMS = (*CHOSEN, "best+noise")
ARMS_ON_SCENES = ("natural", "noise", *BEST, "pgd-7")
LADDER = ("one step", "weak", "R", "long", "restarts", "worst")  # attacks of growing strength, by their measure
_TWIN, _ATTACK, _DISTANCE = 31, 7, 32  # streams of a seed
_LARGEST = 1.0  # where a radius is infinite: no pixel can move further


def settings_tried(arm: str, s: Regularization) -> list[dict[str, float]]:
    """The trials of an arm."""
    if arm == "pgd-7":
        return [*_grid(lr=s.learning_rates, step_size=s.step_sizes, weight_decay=s.robust_weight_decays)]
    if arm == "natural":
        return [*_grid(lr=s.learning_rates, weight_decay=s.weight_decays)]
    name, _, noise = arm.partition("+")
    alone = {"sigma": s.sigmas} if name == "noise" else _strengths(name, s)
    return [*(_grid(**alone, sigma=s.sigmas, lr=(s.lr,)) if noise else _grid(**alone, lr=s.learning_rates))]


def one_setting(arm: str, s: Regularization) -> dict[str, float]:
    """The setting of an arm where nothing is chosen."""
    name, _, noise = arm.partition("+")
    strength = {"ls": {"alpha": s.alpha}, "lsq": {"beta": s.beta}}.get(name, {})
    noisy = {"sigma": s.sigma} if noise or name == "noise" else {}
    return {"lr": s.lr, **strength, **noisy, **({"step_size": 0.25} if arm == "pgd-7" else {})}


def _strengths(name: str, s: Regularization) -> dict[str, tuple[float, ...]]:
    return {
        "ls": {"alpha": s.alphas},
        "lsq": {"beta": s.betas},
        "similarity": {"similarity": s.similarities},
        "pairing": {"pairing": s.pairings},
    }[name]


def _grid(**values: tuple[float, ...]) -> Iterator[dict[str, float]]:
    return (dict(zip(values, point, strict=True)) for point in product(*values.values()))


def method_of(setting: Mapping[str, float], eps: float) -> tuple[training.Method, list]:
    """How to train with a setting: the method, and the terms beside cross-entropy."""
    if "step_size" in setting:
        method = training.PGD(eps, steps=7, step_size=setting["step_size"] * eps)
    else:
        method = training.Gaussian(setting["sigma"]) if "sigma" in setting else training.Natural()
    return method, [term(setting[name]) for name, term in TERMS.items() if name in setting]


@dataclass
class Made:
    """A trained network, what made it, and what that took."""

    model: Classifier
    setting: dict[str, float]
    passes: Passes
    updates: int
    seconds: float
    trials: list[dict] = field(default_factory=list)


class World:
    """Data and networks of one seed."""

    def __init__(self, seed: int, settings: Regularization, *, device: torch.device | str = "cpu"):
        self.seed, self.settings, self.device, self.memory = seed, settings, torch.device(device), Memory(__name__)

    @cached_property
    def splits(self) -> Splits:
        """The task."""
        return load(self.settings.data, self.seed, **self.settings.data_options).to(self.device)

    @property
    def test(self) -> Part:
        """The seed's own test images."""
        part, n = self.splits.test, self.settings.images
        if n is None:
            return part
        if (self.seed + 1) * n > len(part):
            raise ValueError(f"seed {self.seed} has no block of {n} test images: enlarge n_test")
        return part[self.seed * n : (self.seed + 1) * n]

    @property
    def group(self) -> str:
        """The name of these images."""
        s = self.settings
        if s.data == "digits":
            return digits_group(self.seed)
        options = s.data_options
        name = scenes_group(s.data, options["size"], options["n_test"]) if s.data in DISTRIBUTIONS else s.data
        return f"{name}/block {self.seed}"

    def made(self, arm: str) -> Made:
        """An arm's network, chosen on validation images where there is a choice, and made once.

        The better of two was chosen among the trials of both.
        """
        if arm == "best+noise":
            both = [self.made(other) for other in BEST]
            return replace(max(both, key=_validation), trials=[trial for made in both for trial in made.trials])
        if self.settings.trials:
            return self._kept(arm, lambda: self._choose(arm))
        return self._kept(arm, lambda: self.fit(one_setting(arm, self.settings)))

    def twin(self) -> Classifier:
        """A network trained as the natural arm's is, from another seed: where transferred examples are made."""
        setting = self.made("natural").setting
        return self._kept("twin", lambda: self.fit(setting, seed=mix_seed(self.seed, _TWIN))).model

    def _kept(self, name: str, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once and kept between processes."""
        about = {"network": name, "seed": self.seed, "settings": plain(self.settings)}

        def plainly() -> dict:
            made = make()
            return {**vars(made), "model": made.model.state_dict(), "passes": asdict(made.passes)}

        kept = self.memory.recall_tensors(about, plainly)
        model = self._network(self.seed)
        model.load_state_dict(kept["model"])
        return Made(**{**kept, "model": model.eval(), "passes": Passes(**kept["passes"])})

    def fit(self, setting: Mapping[str, float], *, seed: int | None = None) -> Made:
        """A network trained with one setting."""
        s, seed = self.settings, self.seed if seed is None else seed
        model = self._network(seed)
        method, terms = method_of(setting, s.eps)
        report = training.train(
            model, self.splits.train, method, terms=terms, updates=s.updates, batch_size=s.batch_size,
            lr=setting["lr"], weight_decay=setting.get("weight_decay", s.weight_decay), seed=seed, progress=False,
        )  # fmt: skip
        return Made(model.eval(), dict(setting), report.passes, report.updates, report.seconds)

    def attacked(self, model: nn.Module, part: Part, attacks: dict[str, Attack]) -> RobustAccuracy:
        """A part under attacks, with the seed's random numbers."""
        return robust_accuracy(model, part, attacks, seed=mix_seed(self.seed, _ATTACK), progress=False)

    def _network(self, seed: int) -> Classifier:
        s = self.settings
        shape = {"n_classes": s.n_classes, "in_channels": self.splits.test.x.shape[1]}
        return build(s.model, seed=seed, **shape, **s.model_options).to(self.device)

    def _choose(self, arm: str) -> Made:
        """The best of an arm's trials: by accuracy for ordinary training, else by accuracy under the weak attack."""
        best, trials = None, []
        for setting in settings_tried(arm, self.settings):
            try:
                made = self.fit(setting)
                score = self._score(arm, made.model)
            except NonFiniteOutput:
                trials.append({**setting, "validation": -1.0, "diverged": True})
                continue
            trials.append({**setting, "validation": score, "diverged": False})
            if best is None or score > best[0]:
                best = score, made
        if best is None:
            raise NonFiniteOutput(f"{arm} diverged with every setting: add milder ones to the profile")
        best[1].trials = trials
        return best[1]

    def _score(self, arm: str, model: nn.Module) -> float:
        validation = self.splits.validation
        if arm == "natural":
            return accuracy(model, validation)
        return self.attacked(model, validation, weak_attack(self.settings.eps)).robust_accuracy


def _validation(made: Made) -> float:
    return max((trial["validation"] for trial in made.trials), default=0.0)


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Make and judge one arm with one seed; returns the record of the cell."""
    settings = REGULARIZATION_ON_SCENES if config["on_scenes"] else REGULARIZATION[config["profile"]]
    started, world = time.monotonic(), World(seed, settings)
    made, test = world.made(arm), world.test
    under, budget = _ladder(made.model, world)
    transferred = _transferred(made.model, world)
    scales, curves = _scales(made.model, world)
    linear, values = _linear(made.model, world)
    return {
        "arm": arm,
        "seed": seed,
        "group": world.group,
        "n": len(test),
        "outcomes": {**{k: v.tolist() for k, v in {**under, **transferred, **scales}.items()}},
        "values": {name: [round(v, 6) for v in column.tolist()] for name, column in values.items()},
        "scalars": {
            "updates": made.updates,
            "passes": made.passes.backward,
            "passes_per_update": made.passes.backward / made.updates,
            "train_seconds": made.seconds,
            **linear,
        },
        "curves": curves,
        "budget": {"train": asdict(made.passes), **budget},
        "chosen": made.setting,
        "trials": made.trials,
        "seconds": time.monotonic() - started,
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
    costs = {a.name: {"attacked": a.attacked, **asdict(a.passes)} for r in found.values() for a in r.attacks}
    return {"N": found["R"].correct, **{name: result.worst for name, result in found.items()}}, costs


def _transferred(model: nn.Module, world: World) -> dict[str, Tensor]:
    """Which images survive examples made on the natural twin: PGD on the margin with the strong number of steps."""
    s, test = world.settings, world.test
    random = ImageRandom(mix_seed(world.seed, _ATTACK), test.ids)
    x_adv = pgd(
        world.twin(), test.x, test.y, eps=s.eps, steps=s.strong_steps, step_size=s.eps / 4, loss="margin",
        generator=random,
    )  # fmt: skip
    with evaluating(model), torch.no_grad():
        return {"transfer": (model(x_adv).argmax(dim=1) == test.y) & (model(test.x).argmax(dim=1) == test.y)}


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
    random = ImageRandom(mix_seed(world.seed, _DISTANCE), test.ids)
    distance = smallest_eps(model, test.x, test.y, s.radii, generator=random)
    margin = found.margin.clamp_max(_LARGEST)
    values = {
        "margin": margin,
        "distance": distance.clamp_max(_LARGEST),
        "logit_gap": found.logit_gap,
        "log_gradient_gap": found.gradient_gap.clamp_min(1e-12).log(),
    }
    return {"first_order": margin.median().item()}, values


def _experiment(arena: str) -> Experiment:
    on_scenes = arena == "scenes"
    s = REGULARIZATION_ON_SCENES if on_scenes else REGULARIZATION["record"]
    arms = ARMS_ON_SCENES if on_scenes else ARMS
    return Experiment(
        name="regularization",
        arena=arena,
        config={"profile": "record", "on_scenes": on_scenes, **plain(s)},
        data_hashes=lambda: {s.data: DISTRIBUTIONS[s.data].data_hash()} if on_scenes else {DIGITS: digits_hash()},
        cells=tuple((arm, seed) for seed in s.seeds for arm in arms),
        run=run_cell,
        expected_seconds=partial(_expected_seconds, on_scenes),
    )


def _expected_seconds(on_scenes: bool, arm: str) -> float:
    """On one core, roughly."""
    if on_scenes:
        return 1800 if arm == "pgd-7" else 900
    return 600 if arm == "pgd-7" else 150


EXPERIMENTS = {"digits": _experiment("digits"), "scenes": _experiment("scenes")}
