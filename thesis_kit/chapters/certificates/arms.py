"""Chapter 2's arms: certificates by noise and by intervals, and the Shadow Attack on both, on scenes.

Natural images, forged images and baselines are certified anew, each with fresh noise, under one budget; a failed
forgery has radius 0. ``all@σ`` certifies the first images of the block whatever becomes of them; ``natural@σ`` and
``shadow@σ`` are compared image by image; ``plain``, ``l2`` and the noise arms change one thing of the attack at one σ;
``published`` is the attack at its published size on few images, ``economical`` ours on these; ``n=…`` are natural
certificates of these with growing budgets, from nested samples; ``inside …`` attacks certificates where they promise to
hold; the last four are networks trained on interval bounds, ε in 255ths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.attacks.shadow import PUBLISHED, shadow, total_variation
from thesis_kit.attacks.smoothed import smoothed_pgd
from thesis_kit.attacks.spoofing import spoof_bounds
from thesis_kit.certification import certify_nested, predict, verified_error
from thesis_kit.chapters.certificates.settings import CERTIFICATES, BrokenCertificates
from thesis_kit.chapters.certificates.world import (
    BASELINE,
    BOUNDED,
    CHOICE,
    FORGERY,
    INSIDE,
    NATURAL,
    NETWORKS,
    PREDICTION,
    SHADOW,
    SHADOWED,
    TARGETS,
    TRAINING,
    Forgery,
    World,
)
from thesis_kit.data import Part
from thesis_kit.ledger.arm import Arm, Experiment, pick
from thesis_kit.randomness import mix_seed
from thesis_kit.similarity import ssim


@dataclass
class Measured:
    """What an arm came to: which images, and one number an image for each measure."""

    group: str
    n: int
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


def under_noise(world: World, how: Callable[[World], Measured]) -> dict:
    """The record of an arm of smoothed classifiers."""
    world.smoothed(world.settings.sigma)  # its cost belongs to the record whatever is remembered
    return recorded(world, how)


def recorded(world: World, how: Callable[[World], Measured]) -> dict:
    """Measure; returns the record of the cell."""
    measured = how(world)
    return {
        "group": measured.group,
        "n": measured.n,
        "outcomes": {name: values.long().tolist() for name, values in measured.outcomes.items()},
        "values": {name: [round(v, 6) for v in values.tolist()] for name, values in measured.values.items()},
        "budget": world.budget,
    }


def everything(world: World) -> Measured:
    """Natural images, whatever becomes of them."""
    sigma, part = world.settings.sigma, world.block[: world.settings.images_all]
    right, radii = _right(world, part, sigma)
    return Measured(world.group("all"), len(part), {"certified": right}, {"radius": radii})


def _right(world: World, part: Part, sigma: float) -> tuple[Tensor, Tensor]:
    """Where natural images get the right certified label, and its radius, 0 elsewhere."""
    certificates = world.certified(world.smoothed(sigma), part, sigma, NATURAL)
    right = certificates.labels == part.y.cpu()
    return right, torch.where(right, certificates.radii, 0.0)


def natural(world: World) -> Measured:
    """Natural images whose certificates are to be beaten, and what the verifier reads in them."""
    part = world.chosen(world.settings.sigma)
    right, radii = _right(world, part, world.settings.sigma)
    return Measured(_group(world), len(part), {"certified": right, **_read(world, part.x, part.y)}, {"radius": radii})


def _group(world: World) -> str:
    return world.group(f"right at σ = {world.settings.sigma:g}")


def _read(world: World, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Where each verifier names the true class."""
    verifiers = {"read": world.verifier(), "read_shaded": world.verifier(shaded=True)}
    with torch.no_grad():
        return {name: (verifier(x).argmax(dim=1) == y).cpu() for name, verifier in verifiers.items()}


def shadowed(world: World) -> Measured:
    """Forged images."""
    return _forgery(world.forged(world.settings.sigma), world)


def _forgery(made: Forgery, world: World, group: str | None = None) -> Measured:
    """What a forgery of the chosen images is worth, and how it looks."""
    part = world.chosen(world.settings.sigma)[: len(made.images)]
    outcomes = {"forged": made.wrong, **_read(world, made.images, part.y)}
    values = {
        "radius": made.radii,
        "norm": made.norms,
        "log_tv": made.tv.log(),
        "ssim": ssim(part.x, made.images),
    }
    return Measured(group or _group(world), len(part), outcomes, values)


def forged_anew(world: World) -> Measured:
    """The attack with other constants than the chapter's, on all chosen images."""
    return _forgery(world.spoofed(world.chosen(world.settings.sigma), world.settings.sigma), world)


def baseline(world: World) -> Measured:
    """ℓ₂-PGD through as many draws as the final stage, to the class that Shadow chose, of the norm that it needed."""
    s, sigma = world.settings, world.settings.sigma
    part, forgery, model = world.chosen(sigma), world.forged(sigma), world.smoothed(sigma)
    with world.attacking(model, "ℓ₂-PGD", len(part)):
        images = smoothed_pgd(
            model, part.x, part.y, eps=forgery.norms.to(part.x), target=forgery.targets, sigma=sigma,
            steps=s.constants.steps + s.final.steps, draws=s.final.draws, seed=world.stream(BASELINE), ids=part.ids,
        )  # fmt: skip
    return _forgery(_judged(model, images, forgery.targets, part, world), world)


def _judged(model: nn.Module, images: Tensor, targets: Tensor, part: Part, world: World) -> Forgery:
    """Certify what a baseline made."""
    certificates = world.certified(model, Part(images, part.y, part.ids), world.settings.sigma, BASELINE)
    labels, delta = certificates.labels, images - part.x
    wrong = (labels != part.y.cpu()) & (certificates.radii > 0)
    radii = torch.where(wrong, certificates.radii, 0.0)
    return Forgery(images, targets, labels, radii, wrong, delta.flatten(1).norm(dim=1), total_variation(delta))


def single_stage(world: World) -> Measured:
    """A single-stage attack on a wrong class drawn by lot, the same for all noise arms, with the arm's draws."""
    s, sigma = world.settings, world.settings.sigma
    part, model = world.chosen(sigma), world.smoothed(sigma)
    lots = torch.Generator().manual_seed(world.stream(TARGETS))
    step = torch.randint(1, s.task.n_classes, (len(part),), generator=lots).to(part.y)
    targets = (part.y + step) % s.task.n_classes
    with world.attacking(model, SHADOW, len(part)):
        images = shadow(
            model, part.x, targets, sigma=sigma, constants=s.constants, seed=world.stream(SHADOWED), ids=part.ids
        )  # fmt: skip
    return _forgery(_judged(model, images, targets, part, world), world)


def published(world: World) -> Measured:
    """The published steps and draws on few images; a first stage as short as ours chooses the target."""
    s = world.settings
    return _forgery(world.spoofed(world.chosen(s.sigma)[: s.images_few], s.sigma), world, world.group("few"))


def economical(world: World) -> Measured:
    """The chapter's own steps and draws on these images."""
    return _forgery(world.forged(world.settings.sigma)[: world.settings.images_few], world, world.group("few"))


def nested(world: World) -> Measured:
    """Natural certificates of few images with the arm's samples, from one draw of the largest number."""
    s = world.settings
    part = world.chosen(s.sigma)[: s.images_few]

    def draw() -> dict[str, list]:
        found = certify_nested(
            world.smoothed(s.sigma), part.x, s.sizes, sigma=s.sigma, n0=s.n0, alpha=s.alpha,
            seed=world.stream(NATURAL), ids=part.ids, progress=False,
        )  # fmt: skip
        return {str(size): [one.labels.tolist(), one.radii.tolist()] for size, one in found.items()}

    about = world.about("nested", *CHOICE, "images_few", "sizes", sigma=s.sigma)
    labels, radii = world.memory.recall(about, draw)[str(s.samples)]
    right = torch.tensor(labels) == part.y.cpu()
    values = {"radius": torch.where(right, torch.tensor(radii, dtype=torch.float64), 0.0)}
    return Measured(world.group("few"), len(part), {"certified": right}, values)


def inside(world: World) -> Measured:
    """Attack the smoothed classifier within certified radii, and ask an independent vote whether a label fell."""
    s, sigma, part = world.settings, world.settings.sigma, world.chosen(world.settings.sigma)
    model = world.smoothed(sigma)
    if s.whose == "shadow":
        made = world.forged(sigma)
        part, labels, radii = Part(made.images, part.y, part.ids), made.labels, made.radii
    else:
        certificates = world.certified(model, part, sigma, NATURAL)
        labels, radii = certificates.labels, certificates.radii
    trials = (radii > 0).nonzero()[:, 0]
    part, labels, radii = part[trials.to(part.x.device)], labels[trials], radii[trials]
    kept = torch.ones(len(part), dtype=torch.bool)
    for restart in range(s.inside_restarts):
        kept &= _stands(model, part, labels, radii, restart, world)
    return Measured(world.group(f"certificates of {s.whose}"), len(part), {"kept": kept})


def _stands(model: nn.Module, part: Part, labels: Tensor, radii: Tensor, restart: int, world: World) -> Tensor:
    """Where the vote keeps the certified label, or abstains, after an attack within the certified radius."""
    s, sigma = world.settings, world.settings.sigma
    with world.attacking(model, "ℓ₂-PGD", len(part)):
        moved = smoothed_pgd(
            model, part.x, labels.to(part.y), eps=radii.to(part.x), sigma=sigma, steps=s.inside_steps,
            draws=s.noise_draws, seed=mix_seed(world.stream(INSIDE), restart), ids=part.ids,
        )  # fmt: skip
    answers = predict(
        model, moved, sigma=sigma, n=s.n, alpha=s.alpha, seed=mix_seed(world.stream(PREDICTION), restart),
        ids=part.ids, progress=False,
    )  # fmt: skip
    return (answers == labels) | (answers < 0)


def intervals(world: World) -> Measured:
    """Interval certificates of natural images, and forged ones."""
    s, model = world.settings, world.bounded(world.settings.method, world.settings.eps)
    part = world.block[: s.interval_images]
    verified = {b: verified_error(model, part.x, part.y, s.eps, bound=b, progress=False) for b in ("ibp", "crown-ibp")}
    made = spoof_bounds(
        model, part.x, part.y, eps=s.eps, constants=s.interval_constants, seed=world.stream(SHADOWED), ids=part.ids,
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


def arms(s: BrokenCertificates) -> tuple[Arm, ...]:
    """All arms, in an order in which two cells at a time seldom wait for each other's networks."""
    data = (s.task.data,)

    def noisy(name: str, title: str, how: Callable, *names: str, sigma: float = s.sigma, **own: Any) -> Arm:
        settings = pick(s, *(n for n in dict.fromkeys(names) if n not in own), sigma=sigma, **own)
        return Arm(name, title, World, partial(under_noise, how=how), settings, s.seeds, data)

    def bounded(method: str, eps: float) -> Arm:
        names = dict.fromkeys((*TRAINING, *BOUNDED, "block", "interval_images", "interval_constants"))
        name, steps = f"{method}@{round(255 * eps)}", round(255 * eps)
        title, settings = f"{method.upper()} training, ε = {steps}/255", pick(s, *names, method=method, eps=eps)
        return Arm(name, title, World, partial(recorded, how=intervals), settings, s.seeds, data)

    draws = {"steps": s.noise_steps, "draws": s.noise_draws}
    one = {**draws, "draws": 1}
    first = replace(PUBLISHED["scripts"], steps=s.constants.steps)
    bare = {"constants": replace(s.constants, tv=0.0, color=0.0), "final": replace(s.final, tv=0.0, color=0.0)}

    def lot(name: str, title: str, **change: Any) -> Arm:
        return noisy(name, title, single_stage, *CHOICE, "n", constants=replace(s.constants, **change))

    return (
        *(noisy(f"natural@{x:g}", f"natural images, σ = {x:g}", natural, *CHOICE, "n", sigma=x) for x in s.sigmas),
        *(noisy(f"shadow@{x:g}", f"Shadow images, σ = {x:g}", shadowed, *FORGERY, sigma=x) for x in s.sigmas),
        *(
            noisy(
                f"all@{x:g}", f"all images, σ = {x:g}", everything, *TRAINING, "block", "images_all", "n0", "n",
                "alpha", sigma=x,
            )
            for x in s.sigmas
        ),
        noisy("plain", "Shadow without penalties on variation and color", forged_anew, *FORGERY, **bare),
        noisy("l2", "ℓ₂-PGD of the same norm", baseline, *FORGERY),
        lot("draws", f"{s.noise_draws} fixed draws of noise", **draws),
        lot("one", "1 fixed draw", **one),
        lot("one-long", "1 fixed draw and as many passes", **{**one, "steps": s.noise_steps * s.noise_draws}),
        lot("one-renewed", "1 draw, new at every step", **one, renewed=True),
        noisy(
            "published", "Shadow with the published steps and draws", published, *FORGERY, "images_few",
            constants=first, finalists=1,
            final=replace(PUBLISHED["scripts"], steps=PUBLISHED["scripts"].steps - first.steps),
        ),
        noisy("economical", "Shadow with this chapter's", economical, *FORGERY, "images_few"),
        *(
            noisy(f"n={n}", f"{n:,} samples", nested, *CHOICE, "images_few", "sizes", samples=n) for n in s.sizes
        ),
        noisy(
            "inside natural", "certificates of natural images", inside, *CHOICE, "n", "inside_steps",
            "inside_restarts", "noise_draws", whose="natural",
        ),
        noisy(
            "inside shadow", "certificates of Shadow images", inside, *FORGERY, "inside_steps", "inside_restarts",
            "noise_draws", whose="shadow",
        ),
        *(bounded(method, eps) for method in NETWORKS for eps in s.interval_eps),
    )  # fmt: skip


EXPERIMENTS = {"scenes": Experiment("certificates", "scenes", arms(CERTIFICATES["record"]))}
INSIDE_ARMS = ("inside natural", "inside shadow")
