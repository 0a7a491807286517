"""Is a classifier robust, or does it only look so? A diagnosis by many attacks that should agree, and often do not.

An attack that follows gradients measures robustness only if the gradients lead somewhere. Where they do not (*masked
gradients*, Athalye, Carlini and Wagner 2018) the measured accuracy is that of a lost attacker. The report runs attacks
that are lost in different ways: few and many steps, several losses, no gradients at all, examples made on another
network, an attack without a bound, random search. What it calls a sign are their list's and Mosbach et al.'s (2018);
the thresholds are ours and stand below.

Logits are first divided by their usual spread, since their scale is not a property of the decision: a model and
the same model with logits a thousand times as large get the same findings. What the scale *as it is* does to an attack
on cross-entropy is reported beside them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import scipy
import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, device_of, evaluating, frozen, gradients, plain
from thesis_kit.attacks import apgd, apgd_targeted, fab_targeted, pgd, square
from thesis_kit.attacks.losses import cross_entropy
from thesis_kit.attacks.norms import NORMS
from thesis_kit.checks import check_count, check_eps, choose
from thesis_kit.data.forms import Labelled, gathered
from thesis_kit.data.parts import Part
from thesis_kit.evaluation.accuracy import chunks, correct
from thesis_kit.evaluation.robust import AttackOutcome, RobustAccuracy, robust_accuracy, weak_attack
from thesis_kit.evaluation.surface import Surface, loss_surface
from thesis_kit.evaluation.trials import Attack
from thesis_kit.randomness import ImageRandom

SCALES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # of the logits, in units of their usual spread
MARGIN, CHANCE = 0.05, 0.01  # what one attack must be ahead of another, in accuracy and in a one-sided sign test
LOSSES = 0.20  # the same for losses: on networks that mask nothing the margin is ahead of cross-entropy by up to 0.14
GAP = 0.10  # what a weak attack may leave to a strong one
LOST = 0.10  # share of images without any gradient that is a sign
ASTRAY = 0.25  # share of images for which a random direction does as well as the gradient's that is a sign
UNBOUNDED = 0.02  # share of images that may withstand an attack without bound
DRAWS = 16  # passes averaged where answers are random (expectation over transformation)
UNGUIDED = ("Square", "random points", "transfer")  # attacks that ask the model for no gradient
_WIDTH = 78  # of printed text, as many columns as a page of the book has
_NOISES = 100  # random points tried in the ball
SIGNS = {
    "no gradients": "the gradient is zero or missing on many images",
    "unbounded attack fails": "an attack without any bound should turn every image and does not",
    "transfer wins": "examples made on another network turn more images than those made on this one",
    "gradient-free search wins": "an attack that asks for no gradient turns more images than one that follows it",
    "random points win": "random points of the ball turn more images than the gradient does",
    "gradient leads nowhere": "a random direction raises the loss as much as the gradient's",
    "loss matters": "attacks on another loss turn far more images than those on cross-entropy",
}
WARNINGS = {
    "more effort helps": "a weak attack leaves many images that a strong one turns",
    "random answers": "the same image gets different logits each time",
    "constant answers": "all images get the same logits, whatever they show",
    "no better than chance": "without any attack the answers are no better than chance, so there is nothing to lose",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is so (None where it could not be looked at), and the numbers that say so."""

    name: str
    found: bool | None
    evidence: str

    @property
    def meaning(self) -> str:
        """What it means if found."""
        return {**SIGNS, **WARNINGS}[self.name]


@dataclass(frozen=True)
class MaskingReport:
    """A diagnosis with its evidence; ``print`` it to read it, ``record()`` for JSON.

    ``robust`` has every attack's outcome image by image, each attack on all images, and the worst case; ``as_given`` is
    the accuracy under a weak attack (``weak_attack``) on the logits as they are, ``rescaled`` on the logits over their
    usual spread, which is ``scale``; ``by_scale`` the accuracy under PGD-20 on cross-entropy at other scales;
    ``surface`` the loss around some images. Without gradients these are None or empty.
    """

    eps: float
    norm: str
    robust: RobustAccuracy
    as_given: float | None
    rescaled: float | None
    scale: float
    by_scale: Mapping[float, float]
    findings: tuple[Finding, ...]
    surface: Surface | None = None

    def __getitem__(self, name: str) -> Finding:
        return choose(name, {finding.name: finding for finding in self.findings}, "finding")

    @property
    def masked(self) -> bool:
        """Whether any sign of masked gradients was found."""
        return any(finding.found for finding in self.findings if finding.name in SIGNS)

    @property
    def conclusion(self) -> str:
        """What to believe, in a few sentences."""
        low, high = self.robust.interval
        n = len(self.robust.correct)
        said = [
            f"At most {self.robust.robust_accuracy:.1%} of the images withstand changes of {self.eps:.4g} "
            f"({self.norm}): the worst case over {len(self.robust.attacks)} attacks (95% interval {low:.1%} to "
            f"{high:.1%}, {n} images)."
        ]
        signs = [finding for finding in self.findings if finding.found and finding.name in SIGNS]
        if self.as_given is not None and self.as_given - self.robust.robust_accuracy > MARGIN:
            said.append(f"A weak attack on the logits as they are would have said {self.as_given:.1%}.")
            if self.as_given - self.rescaled > MARGIN:
                said.append(
                    f"Part of that is their scale alone, {self.scale:.3g} times the usual: on rescaled logits the same "
                    f"attack says {self.rescaled:.1%}."
                )
        if signs:
            said.append(f"Signs of masked gradients: {'; '.join(finding.meaning for finding in signs)}.")
            said.append("Expect better attacks to lower the number further.")
        elif self["more effort helps"].found:
            said.append("No sign of masked gradients was found; it takes a strong attack to see how far they lead.")
        else:
            said.append("No sign of masked gradients was found.")
        if self["no gradients"].found:
            transferred = "transfer" in [outcome.name for outcome in self.robust.attacks]
            advice = "it is the twin that counts" if transferred else "give one that can be differentiated as `twin`"
            said.append(f"Attacks that follow gradients say nothing here: {advice}.")
        if self["random answers"].found:
            said.append(f"Its answers are random: attacks and accuracy are those of the mean over {DRAWS} passes.")
        if self["constant answers"].found:
            said.append("All images get the same logits: nothing was learned that could be attacked.")
        elif self["no better than chance"].found:
            said.append("Without any attack the model is no better than chance: its robustness means nothing.")
        return " ".join(said)

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        words = {True: "yes", False: "no", None: "?"}
        rows = [_wrapped(f"{f.name:<{width}}  {words[f.found]:<3}  ", f.evidence) for f in self.findings]
        scales = [f"{scale:g}: {accuracy:.0%}" for scale, accuracy in self.by_scale.items()]
        if scales:
            rows += ["", _wrapped("PGD-20 on cross-entropy, logits times  ", "  ".join(scales))]
        return "\n".join([str(self.robust), "", *rows, "", _wrapped("", self.conclusion)])

    def record(self) -> dict:
        """Everything but the images' loss surface, as JSON has it."""
        low, high = self.robust.interval
        return {
            "eps": self.eps,
            "norm": self.norm,
            "images": len(self.robust.correct),
            "clean_accuracy": self.robust.clean_accuracy,
            "robust_accuracy": {"value": self.robust.robust_accuracy, "low": low, "high": high},
            "weak_attack": {"logits as given": self.as_given, "logits rescaled": self.rescaled},
            "scale_of_logits": self.scale,
            "accuracy_by_scale": {f"{scale:g}": value for scale, value in self.by_scale.items()},
            "attacks": {a.name: _attack_record(a) for a in self.robust.attacks},
            "findings": {
                f.name: {"found": f.found, "meaning": f.meaning, "evidence": f.evidence} for f in self.findings
            },
            "masked": self.masked,
            "conclusion": self.conclusion,
        }


def _wrapped(head: str, text: str) -> str:
    """The text after a head, on as many lines as it takes, all of them to the right of the head."""
    indent = " " * len(head)
    lines = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return head + "\n".join(lines).removeprefix(indent)


def _attack_record(outcome: AttackOutcome) -> dict:
    low, high = outcome.interval
    spent = {"forward": outcome.passes.forward_images, "backward": outcome.passes.backward_images}
    return {"accuracy": outcome.accuracy, "low": low, "high": high, "attacked": outcome.attacked, "passes": spent}


def masking_report(
    model: Model,
    data: Labelled,
    *,
    eps: float,
    norm: str = "linf",
    twin: Model | None = None,
    steps: int = 100,
    restarts: int = 5,
    queries: int = 1000,
    images_shown: int = 4,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool | None = None,
) -> MaskingReport:
    """Diagnose whether a classifier is robust or only hard to attack with gradients.

    Every attack is run on all images, so that attacks can be compared; the robust accuracy is the worst case over all
    of them. A model whose answers are random is attacked, and judged, by its mean logits over 16 passes; one without
    gradients by Square, random points and the twin alone.

    Args:
        model: pixels in [0, 1] to logits, a module or a function; evaluated in evaluation mode, left as found.
        data: a ``Part``, a pair (x, y) of tensors or arrays, a map-style ``Dataset``, or minibatches (x, y); 200 images
            give intervals of some ± 7 points.
        eps: radius of the ball, in pixel units.
        norm: "linf" or "l2".
        twin: another classifier of the same task, trained in the ordinary way, on which examples to transfer are made
            (``training.natural_twin`` trains one); without it that sign is not looked at.
        steps: of the strongest gradient attacks. restarts: of PGD. queries: of Square.
        images_shown: how many images' loss surfaces to keep.
        batch_size: images per call of an attack.
        seed: of all random numbers.
        progress: show a bar; None follows the session.

    Raises:
        ValueError, TypeError: images, labels or model output that are not what they should be.

    Examples:
        >>> effort = {"steps": 10, "restarts": 1, "queries": 10, "images_shown": 0, "progress": False}
        >>> report = tk.evaluation.masking_report(model, digits, eps=0.2, **effort)
        >>> report.masked
        False
    """
    choose(norm, NORMS, "norm"), check_eps(eps, norm=norm), check_count(steps, what="steps", least=10)
    check_count(restarts, what="restarts"), check_count(queries, what="queries")
    check_count(images_shown, what="images_shown", least=0)
    if eps == 0:
        raise ValueError("a report needs an eps above 0: within radius 0 there is nothing to look at")
    model, twin = as_module(model), None if twin is None else as_module(twin)
    part = gathered(data, device_of(model))
    part = replace(part, x=plain(part.x), y=plain(part.y))
    options = {"independent": True, "batch_size": batch_size, "seed": seed}
    with gradients("a masking report", model), _own_randomness(seed, part.x.device), evaluating(model):
        for network in (model,) if twin is None else (model, twin):
            correct(network, part, batch_size=batch_size)  # says now what is wrong with images, labels or answers
        first, second = _logits(model, part, batch_size), _logits(model, part, batch_size)
        random_answers, constant = _looked_at_twice(first, second)
        scale = _spread(first)
        subject = Rescaled(Averaged(model, DRAWS) if random_answers else model, scale)
        lost = _without_gradient(subject, part, batch_size)
        guided = lost < 1.0
        effort = _grid(10, 1), _grid(steps, 1)
        attacks = _attacks(eps, norm, steps, restarts, queries, guided, twin)
        robust = robust_accuracy(subject, part, attacks, **options, progress=progress)
        weak, rescaled, by_scale, surface, astray, unbounded = None, None, {}, None, None, None
        if guided:
            unbounded = _unbounded_accuracy(subject, part, norm, steps, options)
            usual = weak_attack(eps, norm=norm)
            weak, rescaled = (
                robust_accuracy(m, part, usual, **options, progress=False).robust_accuracy for m in (model, subject)
            )
            by_scale = _accuracies_by_scale(subject, part, eps, norm, options)
            surface = _surface(subject, part, eps, norm, images_shown, seed)
            astray = _astray(subject, part, robust.correct, eps, norm, batch_size, seed)
    findings = (
        *_findings(robust, lost, unbounded, astray, effort),
        Finding("random answers", random_answers, "two passes over the same images were compared"),
        Finding("constant answers", constant, "the logits of all images were compared"),
        _chance_finding(robust.correct, first.shape[1]),
    )
    return MaskingReport(eps, norm, robust, weak, rescaled, scale, by_scale, findings, surface)


class Rescaled(nn.Module):
    """A model with its logits divided by ``scale``: the same decisions, other probabilities."""

    def __init__(self, model: nn.Module, scale: float):
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, got {scale}")
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, k) over the scale."""
        return self.model(x) / self.scale


class Averaged(nn.Module):
    """A model with random answers by its mean logits over ``draws`` passes (expectation over transformation)."""

    def __init__(self, model: nn.Module, draws: int):
        super().__init__()
        check_count(draws, what="draws")
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (n, k)."""
        logits = self.model(x.repeat(self.draws, 1, 1, 1))  # (draws · n, k)
        return logits.view(self.draws, len(x), logits.shape[-1]).mean(dim=0)


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """What a model draws from torch's generators inside the block depends on the seed alone; the caller's come back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _logits(model: nn.Module, part: Part, batch_size: int) -> Tensor:
    """The logits of all images, (n, k)."""
    with torch.no_grad():
        return torch.cat([ask(model, some.x) for some in chunks(part, batch_size)])


def _looked_at_twice(first: Tensor, second: Tensor) -> tuple[bool, bool]:
    """Whether two passes over the same images gave different logits, by more than rounding; and whether all images got
    the same."""
    rounding = 1e-6 * float(first.abs().amax())
    random_answers = not torch.allclose(first, second, rtol=1e-4, atol=rounding)
    return random_answers, len(first) > 1 and bool(((first - first[:1]).abs() <= rounding).all())


def _spread(logits: Tensor) -> float:
    """The median over images of the logits' standard deviation over classes; 1 where all logits are alike."""
    spread = logits.double().std(dim=1).median().item()
    return spread if spread > 0 else 1.0


def _without_gradient(model: nn.Module, part: Part, batch_size: int) -> float:
    """Share of the images at which cross-entropy has no gradient at all."""
    lost = []
    with frozen(model), torch.enable_grad():
        for x, y in zip(part.x.split(batch_size), part.y.split(batch_size), strict=True):
            x = x.detach().requires_grad_()
            value = cross_entropy(ask(model, x), y).sum()
            if not value.requires_grad:
                return 1.0
            (gradient,) = torch.autograd.grad(value, x)
            lost.append((gradient == 0).flatten(1).all(dim=1))
    return torch.cat(lost).double().mean().item()


def _attacks(
    eps: float, norm: str, steps: int, restarts: int, queries: int, guided: bool, twin: nn.Module | None
) -> dict[str, Attack]:
    """The attacks by name: those that follow the model's gradient only where it has one."""
    ball = {"eps": eps, "norm": norm}
    found: dict[str, Attack] = {}
    if guided:
        for count in dict.fromkeys((10, min(40, steps), steps)):
            for starts in dict.fromkeys((1, restarts)):
                found[_grid(count, starts)] = partial(
                    pgd, **ball, steps=count, restarts=starts, step_size=2.5 * eps / count
                )
        long = {"steps": steps, "step_size": 2.5 * eps / steps}
        found["PGD margin"] = partial(pgd, **ball, **long, loss="margin")
        found["PGD DLR"] = partial(pgd, **ball, **long, loss="dlr")
        found["APGD-CE"] = partial(apgd, **ball, steps=steps)
        found["APGD-DLR targeted"] = partial(apgd_targeted, **ball, steps=steps)
        if norm == "l2":
            found["FAB targeted"] = partial(fab_targeted, **ball, steps=steps)
    found["Square"] = partial(square, **ball, queries=queries)
    found["random points"] = partial(_random_points, **ball)
    if twin is not None:
        found["transfer"] = partial(_transferred, twin=twin, **ball, steps=steps, step_size=2.5 * eps / steps)
    return found


def _grid(steps: int, restarts: int) -> str:
    return f"PGD-{steps} × {restarts}"


def _random_points(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str, generator: ImageRandom) -> Tensor:
    """Random points on the ball's edge, an image's first misclassified one, or its last."""
    ball, found = NORMS[norm], x.clone()
    left = torch.arange(len(x), device=x.device)
    for attempt in range(_NOISES):
        direction = generator.fork(attempt)[left].normal(*x.shape[1:], dtype=x.dtype)
        found[left] = ball.project(x[left] + eps * ball.direction(direction), x[left], eps)
        with torch.no_grad():
            left = left[ask(model, found[left]).argmax(dim=1) == y[left]]
        if len(left) == 0:
            break
    return found


def _transferred(
    model: nn.Module, x: Tensor, y: Tensor, *, twin: nn.Module, generator: ImageRandom, **knobs: object
) -> Tensor:
    """Examples made on the twin, by PGD on the margin; the model is not asked."""
    with evaluating(twin):
        return pgd(twin, x, y, loss="margin", generator=generator, **knobs)


def _unbounded_accuracy(model: nn.Module, part: Part, norm: str, steps: int, options: dict) -> float:
    """Accuracy where an attack may change everything: the worst case over cross-entropy and margin."""
    eps = 1.0 if norm == "linf" else math.sqrt(part.x[0].numel())
    knobs = {"eps": eps, "norm": norm, "steps": steps, "step_size": 2.5 * eps / steps}
    attacks = {loss: partial(pgd, **knobs, loss=loss) for loss in ("ce", "margin")}
    return robust_accuracy(model, part, attacks, **{**options, "independent": False}, progress=False).robust_accuracy


def _accuracies_by_scale(model: nn.Module, part: Part, eps: float, norm: str, options: dict) -> dict[float, float]:
    """Accuracy under PGD-20 on cross-entropy with the logits at other scales."""
    attack = {"PGD-20": partial(pgd, eps=eps, norm=norm, steps=20)}
    return {
        scale: robust_accuracy(Rescaled(model, 1 / scale), part, attack, **options, progress=False).robust_accuracy
        for scale in SCALES
    }


def _surface(model: nn.Module, part: Part, eps: float, norm: str, images: int, seed: int) -> Surface | None:
    if images == 0:
        return None
    some = part[:images]
    return loss_surface(model, some.x, some.y, eps=eps, norm=norm, generator=ImageRandom(seed, some.ids))


def _astray(
    model: nn.Module, part: Part, right: Tensor, eps: float, norm: str, batch_size: int, seed: int
) -> float | None:
    """Share of the rightly classified images whose margin falls further along a random direction than along the
    gradient's, at a tenth of ε, where the gradient should still be right. Images around which it does not change by
    more than rounding say nothing and are left out; None if there are no others."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), part.x.dtype)
    worse, rounding = [right.new_zeros(0)], 100 * torch.finfo(dtype).eps
    for rows in right.nonzero()[:, 0].split(batch_size):
        some, random = part[rows], ImageRandom(seed, rows).fork(1)
        surface = loss_surface(model, some.x, some.y, eps=eps / 10, norm=norm, points=3, generator=random)
        here, guided, random_ones = (surface.values[:, 1, 1], surface.values[:, 2, 1], surface.values[:, 1, [0, 2]])
        moved = torch.cat([guided[:, None], random_ones], dim=1) - here[:, None]
        looked_at = moved.abs().amax(dim=1) > rounding * here.abs().clamp_min(1)
        worse.append((random_ones.amax(dim=1) > guided)[looked_at])
    found = torch.cat(worse)
    return found.double().mean().item() if len(found) else None


def _findings(
    robust: RobustAccuracy, lost: float, unbounded: float | None, astray: float | None,
    effort: tuple[str, str],
) -> tuple[Finding, ...]:  # fmt: skip
    """Every sign and warning; ``effort`` names PGD on cross-entropy with few steps and with many."""
    weak, single = effort
    following = [outcome for outcome in robust.attacks if outcome.name not in UNGUIDED]
    guide = min(following, key=lambda outcome: outcome.accuracy).name if following else ""
    no_gradient = Finding("no gradients", lost >= LOST, f"{lost:.0%} of the images have no gradient")
    if unbounded is None:
        missing = (*SIGNS, "more effort helps")[1:]
        return no_gradient, *(Finding(name, None, "there is no gradient to follow") for name in missing)
    least = robust[weak].accuracy, robust.robust_accuracy
    return (
        no_gradient,
        Finding("unbounded attack fails", unbounded > UNBOUNDED, f"{unbounded:.1%} of the images withstand it"),
        _ahead("transfer wins", robust, ["transfer"], single),
        _ahead("gradient-free search wins", robust, ["Square"], guide),
        _ahead("random points win", robust, ["random points"], guide),
        _astray_finding(astray, robust.correct),
        _ahead("loss matters", robust, ["PGD margin", "PGD DLR"], single, by=LOSSES),
        Finding(
            "more effort helps",
            least[0] - least[1] >= GAP,
            f"{weak} leaves {least[0]:.1%}, the worst case {least[1]:.1%}",
        ),
    )


def _chance_finding(right: Tensor, n_classes: int) -> Finding:
    """Whether clean accuracy could be that of guessing."""
    luck = scipy.stats.binomtest(int(right.sum()), len(right), 1 / n_classes, alternative="greater").pvalue
    said = f"{right.double().mean().item():.1%} are right, chance is {1 / n_classes:.1%}"
    return Finding("no better than chance", bool(luck >= CHANCE), said)


def _astray_finding(astray: float | None, right: Tensor) -> Finding:
    if astray is None:
        why = "the loss is flat around every image" if right.any() else "no image is classified rightly"
        return Finding("gradient leads nowhere", None, why)
    return Finding("gradient leads nowhere", astray >= ASTRAY, f"it does for {astray:.0%} of the images")


def _ahead(name: str, robust: RobustAccuracy, others: list[str], usual: str, *, by: float = MARGIN) -> Finding:
    """Whether the best of other attacks leaves clearly fewer images than the usual one."""
    outcomes = {outcome.name: outcome for outcome in robust.attacks}
    if others[0] not in outcomes:
        return Finding(name, None, "no twin was given")
    best = min((outcomes[other] for other in others), key=lambda outcome: outcome.accuracy)
    mine, theirs = outcomes[usual].survived, best.survived
    only_theirs, only_mine = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    discordant = only_theirs + only_mine
    luck = scipy.stats.binomtest(only_theirs, discordant, alternative="greater").pvalue if discordant else 1.0
    ahead = outcomes[usual].accuracy - best.accuracy >= by and luck < CHANCE
    return Finding(name, bool(ahead), f"{best.name} leaves {best.accuracy:.1%}, {usual} {outcomes[usual].accuracy:.1%}")
