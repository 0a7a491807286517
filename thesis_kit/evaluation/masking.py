"""Is a classifier robust, or does it only look so? A diagnosis by many attacks that should agree, and often do not.

An attack that follows gradients measures robustness only if the gradients lead somewhere. Where they do not (*masked
gradients*, Athalye, Carlini and Wagner 2018) the measured accuracy is that of a lost attacker. The report runs attacks
that are lost in different ways: few and many steps, several losses, no gradients at all, examples made on another
network, an attack without a bound, random search. ``findings`` has what it calls a sign, with thresholds.

Logits are first divided by their usual spread, since their scale is not a property of the decision: a model and
the same model with logits a thousand times as large get the same findings. What the scale *as it is* does to an attack
on cross-entropy is reported beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

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
from thesis_kit.evaluation.findings import DRAWS, Finding, MaskingReport, chance, findings_of
from thesis_kit.evaluation.robust import robust_accuracy, weak_attack
from thesis_kit.evaluation.surface import Surface, loss_surface
from thesis_kit.evaluation.trials import Attack
from thesis_kit.randomness import ImageRandom

SCALES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # of the logits, in units of their usual spread
_NOISES = 100  # random points tried in the ball
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
        *findings_of(robust, lost, unbounded, astray, effort),
        Finding("random answers", random_answers, "two passes over the same images were compared"),
        Finding("constant answers", constant, "the logits of all images were compared"),
        chance(robust.correct, first.shape[1]),
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
