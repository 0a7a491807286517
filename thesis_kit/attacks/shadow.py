"""The Shadow Attack: natural-looking images with a wrong label and a certificate for it.

Ghiasi, Shafahi and Goldstein (ICLR 2020). Norm-bounded attacks stay near an image, and a certificate speaks of nothing
else. This attack leaves the ball: it adds a smooth, nearly gray shadow that a person sees through, and steers the
classifier to a wrong class with so much room around the image that the certificate is large. It descends, by plain
gradient steps, on

    L(x + δ, t) + λ_tv TV(δ) + λ_c C(δ) + λ_s D(δ)

for a target t; L is the target's cross-entropy averaged over fixed draws of Gaussian noise (``shadow``) or any loss of
the caller, such as one on interval bounds (``descend``). Unlike the attacks of ``thesis_kit.attacks``, it keeps to no
ball; like them it leaves the pixels in [0, 1] and the model as it was. ``spoofing`` has what a forgery is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import Model, as_module, borrowed, gradients, plain
from thesis_kit.attacks.smoothed import NoiseDraws, chunk_sizes, smoothed_gradient
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    check_images,
    check_labels,
    check_same_device,
)
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
    model, x, ids = checked_input(model, x, target, ids)
    start = random_start(x, ids, target, constants, seed)
    delta = shadowed_from(model, x, target, start, sigma=sigma, constants=constants, seed=seed, ids=ids, chunk=chunk)
    return (x + delta).clamp(0, 1)


def shadowed_from(
    model: nn.Module, x: Tensor, target: Tensor, delta: Tensor, *, sigma: float, constants: ShadowConstants, seed: int,
    ids: Tensor, chunk: int | None, done: int = 0,
) -> Tensor:  # fmt: skip
    """Where δ comes to from ``delta`` when ``done`` steps have been made before."""
    rows_together, together = chunk_sizes(constants.draws if sigma else 1, chunk, x.device)
    found = [delta[:0]]
    with borrowed(model, "the Shadow Attack"):
        for rows in torch.arange(len(x), device=x.device).split(rows_together) if len(x) else ():
            noise = NoiseDraws(ids[rows], x, sigma, constants.draws, seed, renewed=constants.renewed)
            gradient = partial(smoothed_gradient, model, _target_loss, target[rows], noise, together)
            found.append(_descend(gradient, x[rows], delta[rows], constants, done=done))
    return torch.cat(found)


_target_loss = partial(F.cross_entropy, reduction="none")


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
    _, x, ids = checked_input(None, x, target, ids)

    def gradient(x_adv: Tensor, step: int) -> Tensor:
        x_adv = x_adv.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(loss(x_adv, target).sum(), x_adv)[0]

    if not len(x):
        return x.clone()
    with gradients("the Shadow Attack"):
        delta = _descend(gradient, x, random_start(x, ids, target, constants, seed), constants)
    return (x + delta).clamp(0, 1).detach()


def checked_input(
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


def random_start(x: Tensor, ids: Tensor, target: Tensor, constants: ShadowConstants, seed: int) -> Tensor:
    """The δ that an attack begins with, decided by seed, id and target."""
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
