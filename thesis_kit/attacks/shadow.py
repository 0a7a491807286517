"""The Shadow Attack: natural-looking images with a wrong label and a certificate for it.

Ghiasi, Shafahi and Goldstein (ICLR 2020). Norm-bounded attacks stay near an image, and a certificate speaks of nothing
else. This attack leaves the ball: it adds a smooth, nearly gray shadow that a person sees through, and steers the
classifier to a wrong class with so much room around the image that the certificate is large. It descends, by plain
gradient steps, on

    L(x + δ, t) + λ_tv TV(δ) + λ_c C(δ) + λ_s D(δ)

for a target t; L is the target's cross-entropy averaged over fixed draws of Gaussian noise (``shadow``) or any loss of
the caller, such as one on interval bounds (``descend``). Unlike the attacks of ``thesis_kit.attacks``, it keeps to no
ball; like them it leaves the pixels in [0, 1] and the model as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import Model, as_module, ask, borrowed, evaluating, gradients, plain
from thesis_kit.attacks.smoothed import NoiseDraws, chunk_sizes, smoothed_gradient
from thesis_kit.certification import ABSTAIN, Budget, Certificates, certify
from thesis_kit.certification.bounds import BOUNDS_OF_STEPS, Interval, steps_of
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
    choose,
)
from thesis_kit.progress import track
from thesis_kit.randomness import ImageRandom, mix_seed

_START = 0  # stream of an image's random numbers; smoothed.py has the other
_MOST_CLASSES = 1 << 20


def total_variation(delta: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """TV(δ): the sum of squared differences of neighbors, over rows, columns and channels.

    Examples:
        >>> from thesis_kit.attacks.shadow import total_variation
        >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor([2.])
    """
    right, down = delta.diff(dim=3).square().sum(dim=(1, 2, 3)), delta.diff(dim=2).square().sum(dim=(1, 2, 3))
    return right + down


def color_shift(delta: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """C(δ): the squared norm of the channels' mean absolute values.

    Examples:
        >>> from thesis_kit.attacks.shadow import color_shift
        >>> color_shift(torch.ones(1, 3, 2, 2))
        tensor([3.])
    """
    return delta.abs().mean(dim=(2, 3)).square().sum(dim=1)


def dissimilarity(delta: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """D(δ): how unlike the three channels are; 0 for a gray δ.

    At every pixel s = (r − g)² + (g − b)² + (r − b)², and D is the 2-norm of the map s.

    Examples:
        >>> from thesis_kit.attacks.shadow import dissimilarity
        >>> bool(dissimilarity(torch.ones(1, 3, 2, 2)) < 1e-6)
        True
    """
    if delta.shape[1] == 1:
        return torch.zeros_like(delta[:, 0, 0, 0])
    s = (delta - delta.roll(1, dims=1)).square().sum(dim=1)  # (n, h, w)
    return s.square().sum(dim=(1, 2)).clamp_min(1e-30).sqrt()


@dataclass(frozen=True)
class ShadowConstants:
    """The attack's constants.

    Args:
        tv, color, dissimilarity: weights λ of the penalties, at least 0. length: weight of ‖δ‖₂ beside them.
        steps: gradient steps. step_size: what a gradient is multiplied with, a third of that from each of ``drops`` on.
        draws: fixed draws of noise that the loss is averaged over.
        one_channel: one gray δ for all channels, whose dissimilarity is 0.
        start: δ begins uniform in [−start, start].
        renewed: draw new noise for every step (ours; the paper's is fixed).
    """

    tv: float = 0.3
    color: float = 1.0
    dissimilarity: float = 0.5
    steps: int = 300
    step_size: float = 0.1
    draws: int = 400
    one_channel: bool = True
    start: float = 0.5
    renewed: bool = False
    length: float = 0.0
    drops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tv", "color", "dissimilarity", "step_size", "start", "length"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        check_count(self.steps, what="steps", least=0)
        check_count(self.draws, what="draws")

    def penalty(self, delta: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """λ_tv TV + λ_c C + λ_s D of δ as it is added to the images, and its length's part."""
        total = self.tv * total_variation(delta) + self.color * color_shift(delta)
        if self.length:
            total = total + self.length * delta.flatten(1).norm(dim=1)
        if self.dissimilarity and not self.one_channel:
            total = total + self.dissimilarity * dissimilarity(delta)
        return total


PUBLISHED: Mapping[str, ShadowConstants] = MappingProxyType({
    "scripts": ShadowConstants(),  # the released runs' command lines: the paper's results
    "function": ShadowConstants(tv=0.1, color=20.0, dissimilarity=10.0, one_channel=False),  # the released defaults
    "art": ShadowConstants(one_channel=False),  # the defaults of ART's class, 1.3.3 to 1.20.1
    # The released attack on CROWN-IBP sums over a batch of normalized images; this is the same for a single image in
    # pixel units, with a batch of 512 (released configurations have 512 and 600) and a standard deviation of 0.2.
    "crown-ibp": ShadowConstants(
        tv=9e-6 * 512 / 0.2**2, color=0.0, dissimilarity=0.0, length=0.02 * 512**0.5 / 0.2, start=0.5 * 0.2, draws=1,
        step_size=200.5 / 512 * 0.2**2, drops=(150, 250),
    ),
})  # fmt: skip


def shadow(
    model: Model, x: Float[Tensor, "n c h w"], target: Int[Tensor, " n"], *, sigma: float,
    constants: ShadowConstants = PUBLISHED["scripts"], seed: int = 0, ids: Int[Tensor, " n"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """Return images that a smoothed classifier gives the target labels, with radii as large as the attack finds.

    Args:
        model: pixels to logits, the base classifier of randomized smoothing; used in evaluation mode.
        x: images in [0, 1]; repeat an image to attack it with several targets.
        target: the wrong class to be certified, one an image.
        sigma: standard deviation of the smoothing noise, positive; 0 attacks the model without noise.
        constants: of the attack; ``PUBLISHED`` holds the published sets by name.
        seed: with an image's id it decides the noise and, with the target, where δ starts.
        ids: what tells images apart, (n,) int64; rows of one image should share an id, and then share their noise.
            Their positions unless given.
        chunk: noisy images in one pass; chosen for the device unless given. It changes results by rounding only.

    Raises:
        ValueError, TypeError: images, targets or constants that cannot be meant. NonFiniteOutput: the attack diverged.

    Source: Ghiasi et al. 2020, sections 2 and 3, and the released code.

    Examples:
        >>> from dataclasses import replace
        >>> from thesis_kit.attacks.shadow import PUBLISHED, shadow
        >>> few = replace(PUBLISHED["scripts"], steps=2, draws=2)
        >>> shadow(model, digits.x, (digits.y + 1) % 10, sigma=0.25, constants=few).shape
        torch.Size([4, 1, 8, 8])
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a number of at least 0, got {sigma}")
    model, x, ids = _check(model, x, target, ids)
    start = _start(x, ids, target, constants, seed)
    delta = _shadowed(model, x, target, start, sigma=sigma, constants=constants, seed=seed, ids=ids, chunk=chunk)
    return (x + delta).clamp(0, 1)


def _shadowed(
    model: nn.Module, x: Tensor, target: Tensor, delta: Tensor, *, sigma: float, constants: ShadowConstants, seed: int,
    ids: Tensor, chunk: int | None, done: int = 0,
) -> Tensor:  # fmt: skip
    """Where δ comes from ``delta`` when ``done`` steps have been made before."""
    rows_together, together = chunk_sizes(constants.draws if sigma else 1, chunk, x.device)
    found = [delta[:0]]
    with borrowed(model, "the Shadow Attack"):
        for rows in torch.arange(len(x), device=x.device).split(rows_together) if len(x) else ():
            noise = NoiseDraws(ids[rows], x, sigma, constants.draws, seed, renewed=constants.renewed)
            gradient = partial(smoothed_gradient, model, _target_loss, target[rows], noise, together)
            found.append(_descend(gradient, x[rows], delta[rows], constants, done=done))
    return torch.cat(found)


_target_loss = partial(F.cross_entropy, reduction="none")


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
    (model, x, ids), budget = _check(model, x, y, ids), Budget(sigma, n0, n, alpha)
    aims_of = _wrong_classes(model, x, y, targets)
    select = {"sigma": sigma, "n0": n0, "n": Budget(sigma, n0, n_select, alpha).n, "alpha": alpha, "progress": False}
    own = {"sigma": sigma, "seed": mix_seed(seed, 1), "chunk": chunk}

    def attack(rows: Tensor, aims: Tensor, delta: Tensor, **knobs: object) -> tuple[Tensor, Tensor]:
        """Perturbations, and how strongly each image is certified with a wrong label; −1 for not at all."""
        delta = _shadowed(model, x[rows], aims, delta, ids=ids[rows], **own, **knobs)
        images = (x[rows] + delta).clamp(0, 1)
        certificates = certify(model, images, seed=mix_seed(seed, 2), ids=ids[rows], **select)
        return delta, torch.where(_wrong(certificates, y[rows]), certificates.radii, -1.0)

    images, chosen = x.clone(), y.clone()
    with track("attacking", len(x), progress) as bar:
        for i, aims in enumerate(aims_of):
            rows = torch.full_like(aims, i)
            delta, strength = attack(
                rows, aims, _start(x[rows], ids[rows], aims, constants, own["seed"]), constants=constants
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
    margins, (model, x, ids) = choose(bound, BOUNDS_OF_STEPS, "bound"), _check(model, x, y, ids)
    check_eps(eps, norm="linf"), check_count(chunk, what="chunk")

    def loss(x_adv: Tensor, target: Tensor) -> Tensor:
        bounds = margins(network, Interval.around(_Clipped.apply(x_adv), eps), target)  # 0 for the target itself
        return F.cross_entropy(-bounds, target, reduction="none")

    images, chosen, least = x.clone(), y.clone(), x.new_full((len(x),), -math.inf)
    with borrowed(model, "the Shadow Attack"), track("attacking", len(x), progress) as bar:
        rows = [(i, int(aim)) for i, aims in enumerate(_wrong_classes(model, x, y, targets)) for aim in aims]
        network = steps_of(model, x, eps)
        for first in range(0, len(rows), chunk):
            owner, aim = torch.tensor(rows[first : first + chunk], device=x.device).unbind(1)
            made = descend(loss, x[owner], aim, constants=constants, seed=seed, ids=ids[owner])
            with torch.no_grad():
                bounds = margins(steps_of(model, made, eps), Interval.around(made, eps), aim)
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


def descend(
    loss: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "n c h w"], target: Int[Tensor, " n"], *,
    constants: ShadowConstants, seed: int = 0, ids: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """The attack with a loss of one's own, ``(images, target) -> (n,)``, that is differentiable in the images.

    With the target's robust cross-entropy under interval bounds this is the attack on CROWN-IBP. Arguments as for
    ``shadow``.

    Examples:
        >>> from dataclasses import replace
        >>> from thesis_kit.attacks.shadow import PUBLISHED, descend
        >>> few = replace(PUBLISHED["scripts"], steps=2)
        >>> descend(lambda x, y: x.sum(dim=(1, 2, 3)), digits.x, digits.y, constants=few).shape
        torch.Size([4, 1, 8, 8])
    """
    _, x, ids = _check(None, x, target, ids)

    def gradient(x_adv: Tensor, step: int) -> Tensor:
        x_adv = x_adv.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(loss(x_adv, target).sum(), x_adv)[0]

    if not len(x):
        return x.clone()
    with gradients("the Shadow Attack"):
        delta = _descend(gradient, x, _start(x, ids, target, constants, seed), constants)
    return (x + delta).clamp(0, 1).detach()


def _check(
    model: Model | None, x: Tensor, target: Tensor, ids: Tensor | None
) -> tuple[nn.Module | None, Tensor, Tensor]:
    """Look at what an attack was given; return the model as a module, the images without graph, and the ids."""
    check_images(x)
    check_labels(target, len(x), what="targets")
    if model is not None:
        check_same_device(model := as_module(model), x)
    if ids is not None:
        check_labels(ids, len(x), what="ids")
    return model, plain(x), torch.arange(len(x), device=x.device) if ids is None else ids


def _start(x: Tensor, ids: Tensor, target: Tensor, constants: ShadowConstants, seed: int) -> Tensor:
    shape = (1 if constants.one_channel else x.shape[1], *x.shape[2:])
    random = ImageRandom(mix_seed(seed, _START), ids * _MOST_CLASSES + target)
    return random.uniform(*shape, low=-constants.start, high=constants.start, dtype=x.dtype)


def _descend(
    gradient: Callable[[Tensor, int], Tensor], x: Tensor, delta: Tensor, constants: ShadowConstants, *, done: int = 0
) -> Tensor:
    """Plain descent on δ with the gradient of a loss at (images, step), ``done`` steps after the first.

    Pixels are not clipped. δ has one channel where the constants want one.
    """
    for step in range(constants.steps):
        own = delta.clone().requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(constants.penalty(own.expand_as(x)).sum(), own)[0]
        climb = gradient(x + delta, done + step)
        slope = slope + (climb.sum(dim=1, keepdim=True) if constants.one_channel else climb)
        delta = delta - constants.step_size / 3 ** sum(step >= drop for drop in constants.drops) * slope
        if not torch.isfinite(delta).all():
            raise NonFiniteOutput(f"the attack diverged at step {step}: take a smaller step_size or smaller penalties")
    return delta
