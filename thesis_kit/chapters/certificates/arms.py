"""Chapter 2's recorded runs: certificates by noise and by intervals, and the Shadow Attack on both, on scenes.

One cell is one arm and one seed. Every seed trains networks of its own and tests images of its own, a block of the
test part. Where certificates are attacked, natural and forged ones are of the same images: the first of the block whose
smoothed label is right and certified under noise that is used for nothing else. Natural images, forged images and
baselines are then certified anew, each with fresh noise, under one budget; a failed forgery has radius 0.

Arms: ``all@σ`` certifies the first images of the block whatever becomes of them; ``natural@σ`` and ``shadow@σ`` are
compared image by image; ``plain``, ``l2`` and the noise arms change one thing of the attack at one σ; ``published`` is
the attack at its published size on few images, ``economical`` ours on these; ``n=…`` are natural certificates of these
with growing budgets, from nested samples; ``inside …`` attacks certificates where they promise to hold; the last four
are networks trained on interval bounds, ε in 255ths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from thesis_kit import training
from thesis_kit.asking import evaluating
from thesis_kit.attacks.shadow import PUBLISHED, ShadowConstants, Spoofed, shadow, spoof, spoof_bounds, total_variation
from thesis_kit.attacks.smoothed import smoothed_pgd
from thesis_kit.certification import Certificates, certify, certify_nested, predict, verified_error
from thesis_kit.chapters.certificates.settings import CERTIFICATES
from thesis_kit.chapters.certificates.settings import Certificates as Settings
from thesis_kit.data import Part, Splits, load
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.distributions import test_group
from thesis_kit.ledger.memory import Memory, plain
from thesis_kit.ledger.runner import Experiment
from thesis_kit.models import Classifier, build
from thesis_kit.passes import Passes, count_passes
from thesis_kit.randomness import mix_seed
from thesis_kit.similarity import ssim
from thesis_kit.training.augmentation import shade

NETWORKS: dict[str, Callable[[float], training.Method]] = {
    "ibp": training.IBP,
    "crown-ibp": training.CrownIBP,
}
SHADOW = "Shadow"  # the attack's name in a budget
_SELECTION, _NATURAL, _SHADOW, _BASELINE, _INSIDE, _PREDICTION, _TARGETS, _VERIFIER = range(20, 28)  # streams of a seed


@dataclass(frozen=True)
class Forgery:
    """What an attack made of the chosen images, in the words of ``Spoofed``."""

    images: Tensor
    targets: Tensor
    labels: Tensor
    radii: Tensor
    wrong: Tensor
    norms: Tensor
    tv: Tensor

    @classmethod
    def of(cls, spoofed: Spoofed) -> Forgery:
        """From what ``spoof`` returns."""
        some = spoofed.certificates.labels, spoofed.radii, spoofed.wrong, spoofed.norms, spoofed.tv
        return cls(spoofed.images, spoofed.targets, *some)

    def __getitem__(self, rows: slice) -> Forgery:
        return Forgery(*(value[rows] for value in vars(self).values()))


def _on_cpu(made: Forgery) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in vars(made).items()}


class World:
    """Images and networks of one seed."""

    def __init__(self, seed: int, settings: Settings, *, device: torch.device | str = "cpu"):
        self.seed, self.settings, self.device, self.memory = seed, settings, torch.device(device), Memory(__name__)
        self.budget: dict[str, dict[str, int]] = {}  # what went into the network that is certified, and into its attack
        if (seed + 1) * settings.block > settings.task.data_options["n_test"]:
            raise ValueError(f"seed {seed} has no block of {settings.block} test images: enlarge n_test")

    @cached_property
    def splits(self) -> Splits:
        """The task."""
        return load(self.settings.task.data, self.seed, **self.settings.task.data_options).to(self.device)

    @property
    def block(self) -> Part:
        """The seed's own test images."""
        return self.splits.test[self.seed * self.settings.block : (self.seed + 1) * self.settings.block]

    def group(self, what: object) -> str:
        """A name for images of this seed's block."""
        task, options = self.settings.task, self.settings.task.data_options
        drawn = task.data in DISTRIBUTIONS
        name = test_group(task.data, options["size"], options["n_test"]) if drawn else task.data
        return f"{name}/block {self.seed}/{what}"

    def stream(self, which: int) -> int:
        """A seed for one purpose."""
        return mix_seed(self.seed, which)

    def smoothed(self, sigma: float) -> Classifier:
        """The network trained on noise of this σ, in evaluation mode."""
        model, self.budget["train"] = self._trained(f"σ={sigma}", training.Gaussian(sigma), self.seed)
        return model

    def verifier(self, *, shaded: bool = False) -> Classifier:
        """A network that saw no noise and shares no random number with the others; ``shaded`` saw random light."""
        name, how = ("shaded verifier", {"augment": shade}) if shaded else ("verifier", {})
        return self._trained(name, training.Natural(), self.stream(_VERIFIER), **how)[0]

    def bounded(self, method: str, eps: float) -> Classifier:
        """The network trained on interval bounds, for slightly larger boxes, as published."""
        s = self.settings
        trained_for = s.interval_margin * eps
        model, self.budget["train"] = self._trained(
            f"{method}@{eps}", NETWORKS[method](trained_for), self.seed, architecture=s.interval_model,
            options=s.interval_options, updates=s.interval_updates, lr=s.interval_lr, optimizer="adam",
            weight_decay=0.0,
        )  # fmt: skip
        return model

    def _trained(
        self, name: str, method: training.Method, seed: int, *, architecture: str | None = None,
        options: Mapping | None = None, updates: int | None = None, lr: float | None = None, **knobs: object,
    ) -> tuple[Classifier, dict[str, int]]:  # fmt: skip
        s = self.settings
        options = s.model_options if options is None else options
        shape = {"n_classes": s.task.n_classes, "in_channels": self.splits.test.x.shape[1]}
        model = build(architecture or s.model, seed=seed, **shape, **options).to(self.device)
        with self.memory.place({"network": name, "seed": seed, "settings": plain(s)}, ".ckpt") as path:
            report = training.train(
                model, self.splits.train, method, updates=updates or s.updates, lr=lr or s.lr, seed=seed,
                batch_size=s.batch_size, checkpoint=path, progress=False, **knobs,
            )  # fmt: skip
        return model.eval(), asdict(report.passes)

    @contextmanager
    def attacking(self, model: nn.Module, name: str, n: int) -> Iterator[Passes]:
        """Note what the block spends on an attack of n images, beside what was spent on it before."""
        with count_passes(model) as passes:
            yield passes
        before = {key: value for key, value in self.budget.get(name, {}).items() if key != "attacked"}
        self.budget[name] = {"attacked": n, **asdict(Passes(**before) + passes)}

    def certified(self, model: nn.Module, part: Part, sigma: float, which: int) -> Certificates:
        """Certificates under the chapter's budget, with the noise of one purpose."""
        s = self.settings
        return certify(
            model, part.x, sigma=sigma, n0=s.n0, n=s.n, alpha=s.alpha, seed=self.stream(which), ids=part.ids,
            progress=False,
        )  # fmt: skip

    def chosen(self, sigma: float) -> Part:
        """The first images of the block with a right and certified smoothed label."""
        found = self.memory.recall(self._about("chosen", sigma), lambda: self._choose(sigma))
        return self.block[torch.tensor(found, dtype=torch.int64)]

    def _choose(self, sigma: float) -> list[int]:
        s, model, found = self.settings, self.smoothed(sigma), []
        for i in range(len(self.block)):
            one = self.block[i : i + 1]
            certificates = certify(
                model, one.x, sigma=sigma, n0=s.n0, n=s.n_choose, alpha=s.alpha, seed=self.stream(_SELECTION),
                ids=one.ids, progress=False,
            )  # fmt: skip
            found += [i] if certificates[0].label == int(one.y) else []
            if len(found) == s.images:
                break
        return found

    def forged(self, sigma: float) -> Forgery:
        """The Shadow Attack on the chosen images, made once."""

        def make() -> dict:
            made = self.spoofed(self.chosen(sigma), sigma, self.settings.constants)
            return {"forgery": _on_cpu(made), "budget": self.budget[SHADOW]}

        kept = self.memory.recall_tensors(self._about("forged", sigma), make)
        self.budget[SHADOW] = kept["budget"]
        return Forgery(**kept["forgery"])

    def spoofed(self, part: Part, sigma: float, constants: ShadowConstants, **knobs: object) -> Forgery:
        """The Shadow Attack on a part, over all targets, in the chapter's two stages."""
        s, model = self.settings, self.smoothed(sigma)
        stages = {"finalists": s.finalists, "final": s.final, **knobs}
        with self.attacking(model, SHADOW, len(part)):
            made = spoof(
                model, part.x, part.y, sigma=sigma, n0=s.n0, n=s.n, alpha=s.alpha, n_select=s.n_select,
                constants=constants, seed=self.stream(_SHADOW), ids=part.ids, progress=False, **stages,
            )  # fmt: skip
        return Forgery.of(made)

    def _about(self, what: str, sigma: float) -> dict:
        return {"what": what, "sigma": sigma, "seed": self.seed, "settings": plain(self.settings)}


@dataclass
class Measured:
    """What an arm came to: which images, and one number an image for each measure."""

    group: str
    n: int
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Measure one arm with one seed; returns the record of the cell."""
    started, world = time.monotonic(), World(seed, CERTIFICATES[config["profile"]])
    measured = _measure(arm, world)
    return {
        "arm": arm,
        "seed": seed,
        "group": measured.group,
        "n": measured.n,
        "outcomes": {name: values.long().tolist() for name, values in measured.outcomes.items()},
        "values": {name: [round(v, 6) for v in values.tolist()] for name, values in measured.values.items()},
        "scalars": {},
        "budget": world.budget,
        "seconds": time.monotonic() - started,
    }


def _measure(arm: str, world: World) -> Measured:
    what, _, where = arm.partition("@")
    s = world.settings
    if what in NETWORKS:
        return _bounds(what, int(where) / 255, world)
    sigma = float(where or s.sigma)
    world.smoothed(sigma)  # its cost belongs to the record whatever is remembered
    if what in ("all", "natural", "shadow"):
        return {"all": _all, "natural": _natural, "shadow": _shadow}[what](sigma, world)
    if what.startswith("n="):
        return _nested(int(what[2:]), world)
    if what.startswith("inside "):
        return _inside(what.removeprefix("inside "), world)
    return ARMS[what](sigma, world)


def _all(sigma: float, world: World) -> Measured:
    """Natural images, whatever becomes of them."""
    part = world.block[: world.settings.images_all]
    certificates = world.certified(world.smoothed(sigma), part, sigma, _NATURAL)
    right = certificates.labels == part.y.cpu()
    values = {"radius": torch.where(right, certificates.radii, 0.0)}
    return Measured(world.group("all"), len(part), {"certified": right}, values)


def _natural(sigma: float, world: World) -> Measured:
    """Natural images whose certificates are to be beaten, and what the verifier reads in them."""
    part = world.chosen(sigma)
    certificates = world.certified(world.smoothed(sigma), part, sigma, _NATURAL)
    right = certificates.labels == part.y.cpu()
    outcomes = {"certified": right, **_read(world, part.x, part.y)}
    return Measured(_group(world, sigma), len(part), outcomes, {"radius": torch.where(right, certificates.radii, 0.0)})


def _group(world: World, sigma: float) -> str:
    return world.group(f"right at σ = {sigma:g}")


def _read(world: World, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Where each verifier names the true class."""
    verifiers = {"read": world.verifier(), "read_shaded": world.verifier(shaded=True)}
    with torch.no_grad():
        return {name: (verifier(x).argmax(dim=1) == y).cpu() for name, verifier in verifiers.items()}


def _shadow(sigma: float, world: World) -> Measured:
    return _forgery(world.forged(sigma), sigma, world)


def _forgery(made: Forgery, sigma: float, world: World, group: str | None = None) -> Measured:
    """What a forgery of the chosen images is worth, and how it looks."""
    part = world.chosen(sigma)[: len(made.images)]
    outcomes = {"forged": made.wrong, **_read(world, made.images, part.y)}
    values = {
        "radius": made.radii,
        "norm": made.norms,
        "log_tv": made.tv.log(),
        "ssim": ssim(part.x, made.images),
    }
    return Measured(group or _group(world, sigma), len(part), outcomes, values)


def _plain_ascent(sigma: float, world: World) -> Measured:
    """The attack without its penalties on variation and color."""
    bare, final = (replace(stage, tv=0.0, color=0.0) for stage in (world.settings.constants, world.settings.final))
    return _forgery(world.spoofed(world.chosen(sigma), sigma, bare, final=final), sigma, world)


def _l2(sigma: float, world: World) -> Measured:
    """ℓ₂-PGD through as many draws as the final stage, to the class that Shadow chose, of the norm that it needed."""
    s, part, shadowed = world.settings, world.chosen(sigma), world.forged(sigma)
    model = world.smoothed(sigma)
    with world.attacking(model, "ℓ₂-PGD", len(part)):
        images = smoothed_pgd(
            model, part.x, part.y, eps=shadowed.norms.to(part.x), target=shadowed.targets, sigma=sigma,
            steps=s.constants.steps + s.final.steps, draws=s.final.draws, seed=world.stream(_BASELINE), ids=part.ids,
        )  # fmt: skip
    return _forgery(_judged(model, images, shadowed.targets, part, sigma, world), sigma, world)


def _judged(model: nn.Module, images: Tensor, targets: Tensor, part: Part, sigma: float, world: World) -> Forgery:
    """Certify what a baseline made."""
    certificates = world.certified(model, Part(images, part.y, part.ids), sigma, _BASELINE)
    labels, delta = certificates.labels, images - part.x
    wrong = (labels != part.y.cpu()) & (certificates.radii > 0)
    radii = torch.where(wrong, certificates.radii, 0.0)
    return Forgery(images, targets, labels, radii, wrong, delta.flatten(1).norm(dim=1), total_variation(delta))


def _draws(sigma: float, world: World, **change: object) -> Measured:
    """A single-stage attack on a wrong class drawn by lot, the same for all noise arms, with other draws of noise."""
    s, part, model = world.settings, world.chosen(sigma), world.smoothed(sigma)
    lots = torch.Generator().manual_seed(world.stream(_TARGETS))
    step = torch.randint(1, s.task.n_classes, (len(part),), generator=lots).to(part.y)
    targets = (part.y + step) % s.task.n_classes
    constants = replace(s.constants, **{"steps": s.noise_steps, **change})
    with world.attacking(model, SHADOW, len(part)):
        images = shadow(
            model, part.x, targets, sigma=sigma, constants=constants, seed=world.stream(_SHADOW), ids=part.ids
        )  # fmt: skip
    return _forgery(_judged(model, images, targets, part, sigma, world), sigma, world)


def _one_long(sigma: float, world: World) -> Measured:
    """One fixed draw, with as many passes as many draws take."""
    s = world.settings
    return _draws(sigma, world, draws=1, steps=s.noise_steps * s.noise_draws)


def _published(sigma: float, world: World) -> Measured:
    """The published steps and draws on few images; a first stage as short as ours chooses the target."""
    s, constants = world.settings, PUBLISHED["scripts"]
    first = replace(constants, steps=s.constants.steps)
    final = replace(constants, steps=constants.steps - first.steps)
    made = world.spoofed(world.chosen(sigma)[: s.images_few], sigma, first, finalists=1, final=final)
    return _forgery(made, sigma, world, world.group("few"))


def _economical(sigma: float, world: World) -> Measured:
    """The chapter's own steps and draws on these images."""
    return _forgery(world.forged(sigma)[: world.settings.images_few], sigma, world, world.group("few"))


def _nested(n: int, world: World) -> Measured:
    """Natural certificates of few images with n samples, from one draw of the largest n."""
    s, sigma = world.settings, world.settings.sigma
    part = world.chosen(sigma)[: s.images_few]

    def draw() -> dict[str, list]:
        found = certify_nested(
            world.smoothed(sigma), part.x, s.sizes, sigma=sigma, n0=s.n0, alpha=s.alpha, seed=world.stream(_NATURAL),
            ids=part.ids, progress=False,
        )  # fmt: skip
        return {str(size): [one.labels.tolist(), one.radii.tolist()] for size, one in found.items()}

    labels, radii = world.memory.recall(world._about("nested", sigma), draw)[str(n)]
    right = torch.tensor(labels) == part.y.cpu()
    values = {"radius": torch.where(right, torch.tensor(radii, dtype=torch.float64), 0.0)}
    return Measured(world.group("few"), len(part), {"certified": right}, values)


def _inside(whose: str, world: World) -> Measured:
    """Attack the smoothed classifier within certified radii, and ask an independent vote whether a label fell."""
    s, sigma, part = world.settings, world.settings.sigma, world.chosen(world.settings.sigma)
    model = world.smoothed(sigma)
    if whose == "shadow":
        made = world.forged(sigma)
        part, labels, radii = Part(made.images, part.y, part.ids), made.labels, made.radii
    else:
        certificates = world.certified(model, part, sigma, _NATURAL)
        labels, radii = certificates.labels, certificates.radii
    trials = (radii > 0).nonzero()[:, 0]
    part, labels, radii = part[trials.to(part.x.device)], labels[trials], radii[trials]
    kept = torch.ones(len(part), dtype=torch.bool)
    for restart in range(s.inside_restarts):
        with world.attacking(model, "ℓ₂-PGD", len(part)):
            moved = smoothed_pgd(
                model, part.x, labels.to(part.y), eps=radii.to(part.x), sigma=sigma, steps=s.inside_steps,
                draws=s.noise_draws, seed=mix_seed(world.stream(_INSIDE), restart), ids=part.ids,
            )  # fmt: skip
        answers = predict(
            model, moved, sigma=sigma, n=s.n, alpha=s.alpha, seed=mix_seed(world.stream(_PREDICTION), restart),
            ids=part.ids, progress=False,
        )  # fmt: skip
        kept &= (answers == labels) | (answers < 0)
    return Measured(world.group(f"certificates of {whose}"), len(part), {"kept": kept})


def _bounds(method: str, eps: float, world: World) -> Measured:
    """Interval certificates of natural images, and forged ones."""
    s, model = world.settings, world.bounded(method, eps)
    part = world.block[: s.interval_images]
    verified = {b: verified_error(model, part.x, part.y, eps, bound=b, progress=False) for b in ("ibp", "crown-ibp")}
    made = spoof_bounds(
        model, part.x, part.y, eps=eps, constants=s.interval_constants, seed=world.stream(_SHADOW), ids=part.ids,
        progress=False,
    )  # fmt: skip
    with evaluating(model), torch.no_grad():
        right = model(part.x).argmax(dim=1) == part.y
    outcomes = {
        "N": right,
        "verified": verified["ibp"].verified,
        "verified_crown": verified["crown-ibp"].verified,
        "forged": made.wrong,
        **_read(world, made.images, part.y),
    }
    values = {"norm": made.norms, "ssim": ssim(part.x, made.images)}
    return Measured(world.group("bounds"), len(part), outcomes, values)


ARMS: dict[str, Callable[[float, World], Measured]] = {
    "plain": _plain_ascent,
    "l2": _l2,
    "draws": lambda sigma, world: _draws(sigma, world, draws=world.settings.noise_draws),
    "one": partial(_draws, draws=1),
    "one-long": _one_long,
    "one-renewed": partial(_draws, draws=1, renewed=True),
    "published": _published,
    "economical": _economical,
}
INSIDE = ("inside natural", "inside shadow")


def arms(s: Settings) -> Sequence[str]:
    """All arms, in an order in which two cells at a time seldom wait for each other's networks."""
    by_sigma = [f"{what}@{sigma:g}" for what in ("natural", "shadow", "all") for sigma in s.sigmas]
    bounds = [f"{method}@{round(255 * eps)}" for method in NETWORKS for eps in s.interval_eps]
    return (*by_sigma, *ARMS, *(f"n={n}" for n in s.sizes), *INSIDE, *bounds)


def _experiment() -> Experiment:
    s = CERTIFICATES["record"]
    return Experiment(
        name="certificates",
        arena="scenes",
        config={"profile": "record", **plain(s)},
        data_hashes=lambda: {s.task.data: DISTRIBUTIONS[s.task.data].data_hash()},
        cells=tuple((arm, seed) for arm in arms(s) for seed in s.seeds),
        run=run_cell,
        expected_seconds=_expected_seconds,
    )


def _expected_seconds(arm: str) -> float:
    """On one core, roughly."""
    known = {"natural": 250, "shadow": 300, "all": 150, "plain": 300, "published": 700, "n=": 100, "ibp": 600}
    return known.get(arm.split("@")[0], 120)


EXPERIMENTS = {"scenes": _experiment()}
