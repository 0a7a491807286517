"""The threat models: what a perturbation may be, as three small operations each.

An attack needs to start somewhere in the ball, to turn a gradient into the steepest step of unit size, and to
come back into ball and pixel range after a step; everything else is the same for every norm (Madry et al.
2018, section 2.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from thesis_kit.randomness import ImageRandom


def l2_norm(t: Tensor) -> Tensor:
    """Euclidean norm of each image: (n, c, h, w) -> (n, 1, 1, 1)."""
    return t.flatten(1).norm(dim=1).view(-1, *[1] * (t.ndim - 1))


def over(t: Tensor, length: Tensor) -> Tensor:
    """t / length, and zero where both are: the smallest normal number of the dtype stands in for zero."""
    return t / length.clamp_min(torch.finfo(t.dtype).tiny)


class Linf:
    """Every pixel may move by at most ε."""

    name = "linf"

    def random_start(self, random: ImageRandom, x: Tensor, eps: float) -> Tensor:
        """Uniform in the cube of side 2ε around x, clipped to the pixel range."""
        return (x + random.uniform(*x.shape[1:], low=-eps, high=eps, dtype=x.dtype)).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest unit step: the gradient's sign."""
        return gradient.sign()

    def project(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The nearest point in the cube and the pixel range."""
        return torch.clamp(torch.clamp(x_adv, x - eps, x + eps), 0, 1)

    def size(self, perturbation: Tensor) -> Tensor:
        """Norm of each perturbation: (n, …) -> (n,)."""
        return perturbation.flatten(1).abs().amax(dim=1)


class L2:
    """The whole perturbation may have Euclidean length at most ε."""

    name = "l2"

    def random_start(self, random: ImageRandom, x: Tensor, eps: float) -> Tensor:
        """Uniform in the ball of radius ε around x, clipped to the pixel range."""
        direction = random.normal(*x.shape[1:], dtype=x.dtype)
        radius = random.uniform(1, dtype=x.dtype).view(-1, 1, 1, 1) ** (1 / x[0].numel())
        return (x + eps * radius * self.direction(direction)).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest unit step: the gradient over its length (zero where it is zero)."""
        largest = gradient.flatten(1).abs().amax(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        gradient = over(gradient, largest)  # the squares of a saturated model's gradient would underflow
        return over(gradient, l2_norm(gradient))

    def project(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """Shrink to the ball, then clip to the pixel range: as x lies in it, this cannot leave the ball."""
        perturbation = x_adv - x
        length = l2_norm(perturbation)
        scale = over(torch.full_like(length, eps), length).clamp_max(1)
        return (x + perturbation * scale).clamp(0, 1)

    def size(self, perturbation: Tensor) -> Tensor:
        """Norm of each perturbation: (n, …) -> (n,)."""
        return perturbation.flatten(1).norm(dim=1)


NORMS: dict[str, Linf | L2] = {norm.name: norm for norm in (Linf(), L2())}


def within_ball(x_adv: Tensor, x: Tensor, eps: float | Tensor, norm: Linf | L2) -> Tensor:
    """Make ball and range exact for the numbers as stored: ‖δ‖ ≤ ε(1 + 1e-6) + 1e-7, measured in float64.

    Rounding ``x + δ`` to the image's dtype can push a perturbation a hair outside, in half precision by far
    more. The few pixels (or images) concerned are moved toward x until the bound holds. ``eps`` may be one radius an
    image, (n, 1, 1, 1).
    """
    if x_adv.numel() == 0:
        return x_adv
    bound = eps * (1 + 1e-6) + 1e-7
    x_adv, exact = x_adv.clamp(0, 1), x.double()
    for _ in range(64):
        perturbation = x_adv.double() - exact
        outside = perturbation.abs() > bound if norm.name == "linf" else (l2_norm(perturbation) > bound)
        if not outside.any():
            return x_adv
        x_adv = torch.where(outside, _toward(x_adv, x), x_adv)
    return torch.where(outside, x, x_adv)


def _toward(x_adv: Tensor, x: Tensor) -> Tensor:
    """The dtype's next number from x_adv toward x; for pixels ≥ 0 the bit patterns are ordered."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x_adv.element_size()]
    x_adv, x = x_adv.abs(), x.abs()  # -0.0 has the bit pattern of a negative number
    bits = x_adv.contiguous().view(integer)
    return (bits + (x > x_adv).to(integer) - (x < x_adv).to(integer)).view(x_adv.dtype)
