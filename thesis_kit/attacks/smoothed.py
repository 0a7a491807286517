"""Attacks through noise: on what a classifier answers to noisy copies of an image.

``smoothed_pgd`` is the attack of SmoothAdv (Salman et al., NeurIPS 2019), the strongest known inside an ℓ₂ ball. The
draws of noise belong to (seed, image id), so an image meets the same noise whatever its neighbors or the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import Model, as_module, ask, borrowed, plain
from thesis_kit.attacks.norms import NORMS, l2_norm, over, within_ball
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
)
from thesis_kit.randomness import mix_seed

_NOISE = 1  # stream of an image's random numbers
_CHUNK = {"cpu": 64}  # noisy images in a pass: on a CPU larger ones are slower per image
_LARGE_CHUNK = 2048

PerSample = Callable[[Tensor, Tensor], Tensor]  # (logits (n, k), labels (n,)) -> (n,)


class NoiseDraws:
    """Gaussian draws for some images: the same at every step, or new ones. σ = 0 is a single draw of nothing.

    Args:
        ids: what tells the images apart, (n,) int64. like: images (n, c, h, w), for shape, dtype and device.
        sigma: standard deviation. draws: so many an image. seed: decides the noise with the id.
        renewed: new noise at every step.
    """

    def __init__(self, ids: Tensor, like: Tensor, sigma: float, draws: int, seed: int, *, renewed: bool = False):
        self.ids, self.like, self.sigma, self.draws = ids.tolist(), like, sigma, draws if sigma else 1
        self.seed, self.renewed, self._drawn = seed, renewed, None

    def at(self, step: int) -> Float[Tensor, "n draws c h w"]:
        """The draws of a step."""
        if self._drawn is None or self.renewed:
            step = step if self.renewed else 0
            self._drawn = torch.stack([self._of(image_id, step) for image_id in self.ids])
        return self._drawn

    def _of(self, image_id: int, step: int) -> Tensor:
        shape = (self.draws, *self.like.shape[1:])
        if self.sigma == 0:
            return self.like.new_zeros(shape)
        generator = torch.Generator(self.like.device).manual_seed(mix_seed(self.seed, _NOISE, image_id, step))
        noise = torch.randn(shape, generator=generator, dtype=self.like.dtype, device=self.like.device)
        return noise.mul_(self.sigma)


def chunk_sizes(draws: int, chunk: int | None, device: torch.device) -> tuple[int, int]:
    """How many images, and how many draws of each, go through the model in one pass."""
    chunk = _CHUNK.get(device.type, _LARGE_CHUNK) if chunk is None else chunk
    check_count(chunk, what="chunk")
    together = min(draws, chunk)
    return max(1, chunk // together), together


def smoothed_gradient(
    model: nn.Module, loss: PerSample, labels: Tensor, noise: NoiseDraws, together: int, x_adv: Tensor, step: int, *,
    what: str = "targets",
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """Gradient at the images of a loss of (logits, labels), averaged over a step's draws, ``together`` at a time.

    ``what`` the labels are called where they are refused.
    """
    gradient, draws = torch.zeros_like(x_adv), noise.at(step)  # (n, draws, c, h, w)
    for some in draws.split(together, dim=1):
        noisy = (x_adv[:, None] + some).flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            logits = ask(model, noisy)
            if step == 0:
                check_logits(logits, len(noisy))
                check_labels(labels, len(labels), logits.shape[1], what=what)
            total = loss(logits, labels.repeat_interleave(some.shape[1])).sum() / draws.shape[1]
        gradient += torch.autograd.grad(total, noisy)[0].view_as(some).sum(dim=1)
    return gradient


def smoothed_pgd(
    model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], *, eps: float | Float[Tensor, " n"],
    sigma: float, steps: int = 40, step_size: float | None = None, draws: int = 64,
    target: Int[Tensor, " n"] | None = None, seed: int = 0, ids: Int[Tensor, " n"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """Return images within ℓ₂ distance ``eps`` that the smoothed classifier takes for another class, if there are any.

    Ascends on J = −log of the probability that the base classifier's softmax gives y, averaged over fixed draws of
    noise: steps along the normalized gradient from the image itself, back into the ball and the pixel range after each.

    Args:
        model: pixels to logits, the base classifier of randomized smoothing; used in evaluation mode.
        x: images in [0, 1].
        y: the labels to leave.
        eps: ℓ₂ radius, at least 0; one for all or one an image, such as certified radii.
        sigma: standard deviation of the smoothing noise, at least 0.
        steps: gradient steps. step_size: in units of eps; 2 / steps unless given (the paper's code).
        draws: of noise, for every image.
        target: classes to reach instead, one an image.
        seed, ids, chunk: as for ``shadow``.

    Raises:
        ValueError, TypeError: images, labels or radii that cannot be meant. NonFiniteOutput: NaN or infinity.

    Source: Salman et al. 2019 (arXiv 1906.04584), section 3.

    Examples:
        >>> adversarial = tk.attacks.smoothed_pgd(model, digits.x, digits.y, eps=0.5, sigma=0.25, steps=2, draws=4)
        >>> adversarial.shape
        torch.Size([4, 1, 8, 8])
    """
    model = as_module(model)
    check_images(x), check_labels(y, len(x)), check_same_device(model, x)
    x, y, target = plain(x), plain(y), None if target is None else plain(target)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a number of at least 0, got {sigma}")
    check_count(steps, what="steps", least=0), check_count(draws, what="draws")
    if step_size is not None:
        check_eps(step_size, what="step_size")
    eps = _radii(eps, x)
    ids = torch.arange(len(x), device=x.device) if ids is None else ids
    check_labels(ids, len(x), what="ids")
    if target is not None:
        check_labels(target, len(x), what="targets")
        if (target == y).any():
            raise ValueError(f"{int((target == y).sum())} targets equal the label to leave: aim at other classes")
    if not len(x):
        return x.clone()
    labels, sign, what = (y, 1.0, "labels") if target is None else (target, -1.0, "targets")
    rows, together = chunk_sizes(draws if sigma else 1, chunk, x.device)
    found = []
    with borrowed(model, "PGD through noise"):
        for some in torch.arange(len(x), device=x.device).split(rows):
            noise = NoiseDraws(ids[some], x, sigma, draws, seed)
            x_adv = x[some]
            gradient = partial(smoothed_gradient, model, _probability, labels[some], noise, together, what=what)
            for step in range(steps):
                uphill = -sign * gradient(x_adv, step)
                if not torch.isfinite(uphill).all():
                    raise NonFiniteOutput(f"the gradient at step {step} holds NaN or infinity: look at the model")
                length = ((2 / steps if step_size is None else step_size) * eps[some]).to(x.dtype)
                x_adv = _into_ball(x_adv + length * NORMS["l2"].direction(uphill), x[some], eps[some])
            found.append(within_ball(x_adv, x[some], eps[some], NORMS["l2"]))
    return torch.cat(found)


def _probability(logits: Tensor, y: Tensor) -> Tensor:
    """Of the label, less 1; its mean has the direction of −J's gradient, whatever the number of draws in a pass.

    It is the sum of the others, for the label's own may round to 1 and lose its part of the gradient.
    """
    return -F.softmax(logits, dim=1).scatter(1, y[:, None], 0).sum(dim=1)


def _radii(eps: float | Tensor, x: Tensor) -> Tensor:
    """One radius an image, (n, 1, 1, 1), in float64 whatever the images are in."""
    eps = torch.as_tensor(eps, dtype=torch.float64, device=x.device)
    if eps.shape not in ((), (len(x),)):
        raise ValueError(f"eps must be one number or of shape ({len(x)},), got shape {tuple(eps.shape)}")
    if not (torch.isfinite(eps).all() and (eps >= 0).all()):
        raise ValueError("eps must be finite and at least 0 for every image")
    return eps.expand(len(x)).view(-1, 1, 1, 1)


def _into_ball(x_adv: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    perturbation = x_adv - x
    return (x + perturbation * over(eps.to(x.dtype), l2_norm(perturbation)).clamp_max(1)).clamp(0, 1)
