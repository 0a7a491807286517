"""The linear argument about robustness, image by image: logit gap over gradient gap, beside where an attack succeeds.

To first order, a change of size ε in every pixel moves the margin z_y − z_c by at most ε ‖∇z_y − ∇z_c‖₁. A linear
classifier is therefore safe exactly below min over c of (z_y − z_c) / ‖∇z_y − ∇z_c‖₁ (after Shafahi, Ghiasi, Huang and
Goldstein, arXiv 1910.11585; as recalled). For a network this is a tangent's promise and no bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, borrowed, evaluating, plain
from thesis_kit.attacks import pgd
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
)
from thesis_kit.evaluation.robust import correct
from thesis_kit.randomness import ImageRandom, image_random


@dataclass(frozen=True)
class FirstOrder:
    """What the linear argument says of n images and k classes; column y of each row is infinite or zero.

    ``logit_gaps`` (n, k): z_y − z_c. ``gradient_gaps`` (n, k): ‖∇z_y − ∇z_c‖₁, in logits per unit of pixel value.
    """

    logit_gaps: Tensor
    gradient_gaps: Tensor

    @property
    def margin(self) -> Float[Tensor, " n"]:
        """The ε at which the tangent reaches another class; 0 where the image is misclassified already, or logits
        tie."""
        reached = self.logit_gaps <= 0  # where the gradient gap is 0 as well, 0/0 would be no number
        return (self.logit_gaps / self.gradient_gaps).masked_fill(reached, 0).amin(dim=1)

    @property
    def logit_gap(self) -> Float[Tensor, " n"]:
        """z_y minus the largest other logit."""
        return self.logit_gaps.amin(dim=1)

    @property
    def gradient_gap(self) -> Float[Tensor, " n"]:
        """The largest gradient gap over the other classes."""
        return self.gradient_gaps.amax(dim=1)


def first_order(
    model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], *, batch_size: int = 256
) -> FirstOrder:
    """Logit gaps and gradient gaps at every image; one forward and k − 1 backward passes.

    Args:
        model: pixels in [0, 1] to logits (n, k), taken in evaluation mode and left as found.
        x, y: images and their labels.
        batch_size: images a pass.

    Raises:
        ValueError, TypeError: images, labels or model output that are not what they should be, and a model whose
            output has no gradient at its input.

    Examples:
        >>> tk.evaluation.first_order(model, digits.x, digits.y).logit_gaps.shape
        torch.Size([4, 10])
    """
    model = as_module(model)
    check_images(x), check_labels(y, len(x)), check_same_device(model, x), check_count(batch_size, what="batch_size")
    x, y = plain(x), plain(y)
    with borrowed(model, "the linear argument"):
        parts = [_gaps(model, *some) for some in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    return FirstOrder(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _gaps(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logit gaps and gradient gaps of one batch."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = ask(model, x)
        check_logits(logits, len(x)), check_labels(y, len(x), logits.shape[1])
        if not logits.requires_grad:
            raise ValueError("the model's output has no gradient at its input, so there is no tangent to follow")
        gaps = logits.gather(1, y[:, None]) - logits  # (n, k)
        gradients = torch.zeros_like(gaps, requires_grad=False)
        classes = logits.shape[1]
        for step in range(1, classes):  # for image i the class (y_i + step) mod k, so that no pass is spent on y
            c = (y + step) % classes
            chosen = gaps.gather(1, c[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), x, retain_graph=step < classes - 1)
            gradients.scatter_(1, c[:, None], gradient.abs().flatten(1).sum(dim=1)[:, None].to(gaps))
    if not torch.isfinite(gradients).all():
        raise NonFiniteOutput(
            "the gradient at the images is NaN or infinite: look for roots and divisions at zero in the model"
        )
    gaps = gaps.detach().scatter(1, y[:, None], torch.inf)
    return gaps, gradients


def smallest_eps(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    radii: Iterable[float],
    *,
    steps: int = 40,
    norm: str = "linf",
    batch_size: int = 256,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, " n"]:
    """The smallest of some radii at which PGD on the margin fools the model, image by image.

    An upper bound of the distance to the decision boundary, as fine as the radii are. Each radius is tried on the
    images that no smaller one has turned.

    Args:
        model: pixels in [0, 1] to logits, taken in evaluation mode and left as found.
        x, y: images and their labels.
        radii: what is tried, in pixel units.
        steps: of every PGD run, of size 2.5 ε / steps.
        norm: "linf" or "l2".
        batch_size: images a pass.
        generator: of the random starts.

    Returns:
        One radius an image, (n,), which is 0 where it is misclassified already and infinite where none succeeds.

    Raises:
        ValueError, TypeError: as ``attacks.pgd``.

    Examples:
        >>> tk.evaluation.smallest_eps(model, digits.x, digits.y, [0.05, 0.1, 0.2, 0.4], steps=5).shape
        torch.Size([4])
    """
    model = as_module(model)
    check_images(x), check_labels(y, len(x)), check_same_device(model, x), check_count(steps, what="steps")
    x = plain(x)
    radii, random = sorted(radii), image_random(generator, x)
    for radius in radii:
        check_eps(radius, what="a radius", norm=norm)
    found = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    with evaluating(model):
        found[~correct(model, (x, y), batch_size=batch_size)] = 0
        for stage, radius in enumerate(radii):
            knobs = {"eps": radius, "steps": steps, "step_size": 2.5 * radius / steps, "norm": norm, "loss": "margin"}
            streams, left = random.fork(stage), found.isinf().nonzero()[:, 0]
            for rows in left.split(batch_size) if len(left) else ():
                x_adv = pgd(model, x[rows], y[rows], generator=streams[rows], **knobs)
                with torch.no_grad():
                    fooled = ask(model, x_adv).argmax(dim=1) != y[rows]
                found[rows[fooled]] = radius
    return found
