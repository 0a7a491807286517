"""Certificates for wrong labels: the Shadow Attack on every wrong class, and what its best forgery is certified for.

Ghiasi, Shafahi and Goldstein (ICLR 2020), sections 3 and 5: ``spoof`` forges certificates of a smoothed classifier,
``spoof_bounds`` those of interval bounds. ``shadow`` has the attack itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import Model, ask, borrowed, evaluating
from thesis_kit.attacks.shadow import (
    PUBLISHED,
    ShadowConstants,
    checked_input,
    color_shift,
    descend,
    dissimilarity,
    random_start,
    shadowed_from,
    total_variation,
)
from thesis_kit.certification import ABSTAIN, Budget, Certificates, certify
from thesis_kit.certification.bounds import BOUNDS_OF_STEPS, CenteredBox, steps_of
from thesis_kit.checks import check_count, check_eps, check_labels, check_logits, choose
from thesis_kit.progress import track
from thesis_kit.randomness import mix_seed


@dataclass(frozen=True)
class Forged:
    """Images with a certificate for a wrong class, and what it took, one row an image.

    ``images`` (n, c, h, w) are the attacked ones, ``targets`` (n,) the classes aimed at in the end, and ``wrong`` (n,)
    bool where a wrong class is certified. ``norms`` (n,) are ℓ₂ norms of what was added; ``tv``, ``color`` and
    ``dissimilarity`` (n,) its penalties without their weights.
    """

    images: Tensor
    targets: Tensor
    wrong: Tensor
    norms: Tensor
    tv: Tensor
    color: Tensor
    dissimilarity: Tensor


@dataclass(frozen=True)
class Spoofed(Forged):
    """Forged for a smoothed classifier: ``certificates`` are what it certifies, with noise that chose nothing."""

    certificates: Certificates

    @property
    def radii(self) -> Tensor:
        """Certified radii of wrong labels, 0 where the attack failed."""
        return torch.where(self.wrong, self.certificates.radii, 0.0)

    def __str__(self) -> str:
        return (
            f"{int(self.wrong.sum())} of {len(self.wrong)} images certified with a wrong label, mean radius "
            f"{self.radii.mean():.3f} ({self.certificates.budget})"
        )


@dataclass(frozen=True)
class SpoofedBounds(Forged):
    """Forged for bounds of margins: ``least`` (n,) is the least lower bound of the target's margins, above 0 if proved
    in the whole box of ℓ∞ radius ``eps``."""

    least: Tensor
    eps: float

    def __str__(self) -> str:
        return f"{int(self.wrong.sum())} of {len(self.wrong)} images verified with a wrong label at ε = {self.eps:.3g}"


def spoof(
    model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], *, sigma: float, n0: int = 100,
    n: int = 100_000, alpha: float = 0.001, constants: ShadowConstants = PUBLISHED["scripts"], n_select: int = 200,
    targets: Sequence[int] | None = None, finalists: int = 1, final: ShadowConstants | None = None, seed: int = 0,
    ids: Int[Tensor, " n"] | None = None, chunk: int | None = None, progress: bool | None = None,
) -> Spoofed:  # fmt: skip
    """Attack every image with every wrong class and keep the one whose certificate is strongest.

    Args:
        model, x, sigma, constants, ids, chunk: as for ``shadow``.
        y: true labels.
        n0, n, alpha: budget of the certificates that are reported.
        n_select: samples of the certificates that choose among targets.
        targets: classes to try, all unless given; an image's own is left out.
        finalists, final: so many of an image's targets, the best, are attacked further with the constants ``final``,
            from where they are, before one is chosen. Nothing is attacked further unless given.
        seed: decides all noise; what chooses, what is attacked and what is reported have noise of their own.
        progress: show a bar; None follows the session.

    Raises:
        ValueError, TypeError: as for ``shadow`` and ``certify``, or an image without any wrong class to try.

    Examples:
        >>> from dataclasses import replace
        >>> few = replace(tk.attacks.PUBLISHED["scripts"], steps=1, draws=2)
        >>> sampling = {"sigma": 0.25, "n0": 10, "n": 20, "n_select": 20}
        >>> tk.attacks.spoof(model, digits.x, digits.y, constants=few, **sampling).images.shape
        torch.Size([4, 1, 8, 8])
    """
    check_count(finalists, what="finalists")
    if final is not None and final.one_channel != constants.one_channel:
        raise ValueError("constants and final must agree on one_channel, for one goes on where the other stopped")
    (model, x, ids), budget = checked_input(model, x, y, ids), Budget(sigma, n0, n, alpha)
    aims_of = _wrong_classes(model, x, y, targets)
    select = {"sigma": sigma, "n0": n0, "n": Budget(sigma, n0, n_select, alpha).n, "alpha": alpha, "progress": False}
    own = {"sigma": sigma, "seed": mix_seed(seed, 1), "chunk": chunk}

    def attack(rows: Tensor, aims: Tensor, delta: Tensor, **knobs: object) -> tuple[Tensor, Tensor]:
        """Perturbations, and how strongly each image is certified with a wrong label; −1 for not at all."""
        delta = shadowed_from(model, x[rows], aims, delta, ids=ids[rows], **own, **knobs)
        images = (x[rows] + delta).clamp(0, 1)
        certificates = certify(model, images, seed=mix_seed(seed, 2), ids=ids[rows], **select)
        return delta, torch.where(_wrong(certificates, y[rows]), certificates.radii, -1.0)

    images, chosen = x.clone(), y.clone()
    with track("attacking", len(x), progress) as bar:
        for i, aims in enumerate(aims_of):
            rows = torch.full_like(aims, i)
            delta, strength = attack(
                rows, aims, random_start(x[rows], ids[rows], aims, constants, own["seed"]), constants=constants
            )
            if final is not None:
                best = strength.argsort(descending=True, stable=True)[:finalists].to(x.device)
                further = attack(rows[best], aims[best], delta[best], constants=final, done=constants.steps)
                delta, strength = torch.cat([delta, further[0]]), torch.cat([strength, further[1]])
                aims = torch.cat([aims, aims[best]])
            best = int(strength.argmax())
            images[i], chosen[i] = (x[i] + delta[best]).clamp(0, 1), aims[best]
            bar.advance()
    certificates = certify(
        model, images, sigma=budget.sigma, n0=n0, n=n, alpha=alpha, seed=mix_seed(seed, 3), ids=ids, progress=progress
    )
    return Spoofed(images, chosen, _wrong(certificates, y), *_sizes(images - x), certificates)


def spoof_bounds(
    model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], *, eps: float,
    constants: ShadowConstants = PUBLISHED["crown-ibp"], bound: str = "ibp", targets: Sequence[int] | None = None,
    seed: int = 0, ids: Int[Tensor, " n"] | None = None, chunk: int = 64, progress: bool | None = None,
) -> SpoofedBounds:  # fmt: skip
    """Attack certificates of bounds: seek images for which a wrong class is proved in the whole ℓ∞ box of radius eps.

    For every wrong class the robust cross-entropy of that class, its cross-entropy under the lower bounds of its
    margins, takes the place of the smoothed one; pixels are clipped to [0, 1] at every step, and the gradient passes
    straight through. The class with the largest least bound is kept.

    Args:
        model: pixels to logits, of layers that bounds are known for; used in evaluation mode.
        x, y, targets, seed, ids, progress: as for ``spoof``.
        eps: ℓ∞ radius of the certificates, at least 0.
        constants: of the attack; ``draws`` and ``renewed`` have no meaning here.
        bound: "ibp" (the released code's), "crown-ibp", "crown" or "crown-pure"; it is attacked and it judges.
        chunk: images attacked together.

    Raises:
        ValueError, TypeError: as for ``shadow`` and ``ibp_margins``. UnsupportedLayer, UnknownName: as for
            ``verified_error``.

    Source: Ghiasi et al. 2020, section 5 (CROWN-IBP), and the released code.

    Examples:
        >>> from dataclasses import replace
        >>> few = replace(tk.attacks.PUBLISHED["scripts"], steps=1, draws=1)
        >>> tk.attacks.spoof_bounds(model, digits.x, digits.y, eps=0.01, constants=few).images.shape
        torch.Size([4, 1, 8, 8])
    """
    check_labels(y, len(x))
    margins, (model, x, ids) = choose(bound, BOUNDS_OF_STEPS, "bound"), checked_input(model, x, y, ids)
    check_eps(eps, norm="linf"), check_count(chunk, what="chunk")

    def loss(x_adv: Tensor, target: Tensor) -> Tensor:
        bounds = margins(network, CenteredBox.around(_Clipped.apply(x_adv), eps), target)  # 0 for the target itself
        return F.cross_entropy(-bounds, target, reduction="none")

    images, chosen, least = x.clone(), y.clone(), x.new_full((len(x),), -math.inf)
    with borrowed(model, "the Shadow Attack"), track("attacking", len(x), progress) as bar:
        rows = [(i, int(aim)) for i, aims in enumerate(_wrong_classes(model, x, y, targets)) for aim in aims]
        network = steps_of(model, x, eps)
        for first in range(0, len(rows), chunk):
            owner, aim = torch.tensor(rows[first : first + chunk], device=x.device).unbind(1)
            made = descend(loss, x[owner], aim, constants=constants, seed=seed, ids=ids[owner])
            with torch.no_grad():
                bounds = margins(steps_of(model, made, eps), CenteredBox.around(made, eps), aim)
                proved = bounds.scatter(1, aim[:, None], math.inf).amin(dim=1)
            for row, i in enumerate(owner.tolist()):
                if proved[row] > least[i]:
                    images[i], chosen[i], least[i] = made[row], aim[row], proved[row]
            bar.advance(len(owner) / len(rows) * len(x))
    return SpoofedBounds(images, chosen, least > 0, *_sizes(images - x), least, eps)


class _Clipped(torch.autograd.Function):
    """Pixels clipped to [0, 1]; the gradient passes as if they were not."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def _sizes(delta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Norms and penalties of what was added, (n,) each."""
    return delta.flatten(1).norm(dim=1), total_variation(delta), color_shift(delta), dissimilarity(delta)


def _wrong_classes(model: nn.Module, x: Tensor, y: Tensor, targets: Sequence[int] | None) -> list[Tensor]:
    """The classes to aim at, for each image (n, c, h, w) with its class y."""
    if not len(x):
        return []
    with evaluating(model), torch.no_grad():
        logits = ask(model, x[:1])
    check_logits(logits, 1)
    n_classes = logits.shape[1]
    check_labels(y, len(x), n_classes)
    known = torch.tensor(list(range(n_classes) if targets is None else targets), dtype=torch.int64, device=x.device)
    check_labels(known, len(known), n_classes, what="targets")
    found = [known[known != label] for label in y]
    for aims, label in zip(found, y.tolist(), strict=True):
        if not len(aims):
            raise ValueError(f"an image of class {label} has no other class to aim at in {known.tolist()}: give more")
    return found


def _wrong(certificates: Certificates, y: Tensor) -> Tensor:
    """Where a label is certified that is not the true one, (n,) bool."""
    return (certificates.labels != y.cpu()) & (certificates.labels != ABSTAIN)
