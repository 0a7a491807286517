"""The loss around an image, on the plane that its gradient's sign and a random sign span.

Where gradients tell an attack the way, the loss rises along the first direction and hardly along the second. Where they
are masked, the surface is flat or rough and the two directions look alike (after the loss surfaces of Tramèr et al.
2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thesis_kit.asking import Model, borrowed
from thesis_kit.attacks.losses import Loss
from thesis_kit.attacks.objective import ascent, prepare, score
from thesis_kit.checks import check_count
from thesis_kit.randomness import ImageRandom, image_random


@dataclass(frozen=True)
class Surface:
    """``values`` (n, p, p): the loss at x + a·u + b·v, rows by a, columns by b, for a and b in ``offsets`` (p,); u is
    the steepest direction at x and v a random one, both of length 1 in the norm. ``fooled`` (n, p, p): whether the
    label has changed there."""

    offsets: Tensor
    values: Tensor
    fooled: Tensor


def loss_surface(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    points: int = 21,
    loss: str | Loss = "margin",
    norm: str = "linf",
    generator: torch.Generator | ImageRandom | None = None,
) -> Surface:
    """The loss on a square grid that reaches from −ε to ε along the gradient's direction and along a random one.

    Args:
        model: pixels in [0, 1] to logits, taken in evaluation mode and left as found.
        x, y: images and their labels.
        eps: how far the grid reaches, in pixel units. Points outside [0, 1] are clipped to it.
        points: of the grid along each direction, odd so that x itself is one.
        loss: "margin", "ce", "dlr" or any callable (logits, y) -> (n,).
        norm: the one in which both directions have length 1, "linf" or "l2".
        generator: of the random directions.

    Raises:
        ValueError, TypeError: as ``attacks.pgd``.

    Examples:
        >>> tk.evaluation.loss_surface(model, digits.x, digits.y, eps=0.1, points=3).values.shape
        torch.Size([4, 3, 3])
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps, norm=norm, loss=loss, target=None)
    check_count(points, what="points", least=3)
    if points % 2 == 0:
        raise ValueError(f"points must be odd, so that the image itself is one of them, got {points}")
    half = points // 2
    offsets = eps * (torch.arange(-half, half + 1, dtype=x.dtype, device=x.device) / half)  # the middle is 0 exactly
    with borrowed(model, "the loss surface"):
        gradient, _, _ = ascent(model, x, goal, check=True)
        steepest = ball.direction(gradient)
        astray = ball.direction(image_random(generator, x).normal(*x.shape[1:], dtype=x.dtype))
        grid = [
            score(model, (x + a * steepest + b * astray).clamp(0, 1), goal) for a in offsets for b in offsets
        ]  # p² passes over n images
    values, fooled = (torch.stack(column, dim=1).view(len(x), points, points) for column in zip(*grid, strict=True))
    return Surface(offsets, values, fooled)
