"""Boxes of images and intervals of tensors: what bounds are pushed through and pulled back to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import plain
from thesis_kit.checks import check_eps, check_images


@dataclass(frozen=True)
class Box:
    """All images between two corners: ``lower`` ≤ ``upper``, each (n, c, h, w) with pixels in [0, 1].

    Raises:
        ValueError, TypeError: corners outside the pixel range, of different shapes, or in the wrong order.
    """

    lower: Float[Tensor, "n c h w"]
    upper: Float[Tensor, "n c h w"]

    def __post_init__(self) -> None:
        check_images(self.lower), check_images(self.upper)
        if self.lower.shape != self.upper.shape:
            seen = f"{tuple(self.lower.shape)} and {tuple(self.upper.shape)}"
            raise ValueError(f"the corners of a box must have the same shape, got {seen}")
        if (wrong := self.lower > self.upper).any():
            raise ValueError(
                f"lower must not exceed upper, but does in {int(wrong.sum())} of {wrong.numel()} pixels: swap them?"
            )

    @classmethod
    def around(cls, x: Float[Tensor, "n c h w"], eps: float) -> Box:
        """The images within ℓ∞ distance ``eps`` ≥ 0 of ``x`` that have pixels in [0, 1]."""
        return cls(*corners(x, eps))


def outside_inference_mode(bound: Callable) -> Callable:
    """The same bound (model, x, y, …), for callers in ``torch.inference_mode()`` too, where no line can be pulled back.

    There, backward passes give zeros and no error.
    """

    @wraps(bound)
    def outside(model: object, x: Tensor | Box, y: Tensor, *args: object, **knobs: object) -> Tensor:
        if not torch.is_inference_mode_enabled():
            return bound(model, x, y, *args, **knobs)
        with torch.inference_mode(False), torch.no_grad():
            x = Box(plain(x.lower), plain(x.upper)) if isinstance(x, Box) else plain(x)
            return bound(model, x, plain(y), *args, **knobs)

    return outside


class CenteredBox(NamedTuple):
    """All tensors within ``radius`` of ``center``, elementwise."""

    center: Tensor
    radius: Tensor

    @property
    def lower(self) -> Tensor:
        """The least of each element."""
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:
        """The most of each element."""
        return self.center + self.radius

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> CenteredBox:
        """From its ends."""
        center = torch.lerp(lower, upper, 0.5)
        return cls(center, upper - center)

    @classmethod
    def around(cls, x: Tensor, eps: float) -> CenteredBox:
        """The images within ℓ∞ distance ``eps`` of ``x`` that have pixels in [0, 1]."""
        return cls.between(*corners(x, eps))


def corners(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The corners of the box of ℓ∞ radius ``eps`` around images, cut to the pixel range."""
    check_images(x), check_eps(eps, norm="linf")
    return (x - eps).clamp_min(0), (x + eps).clamp_max(1)


def product(a: Tensor, value: Tensor) -> Tensor:
    """a · value, (n, m), for coefficients ``a`` (n, m, *shape) and one ``value`` (n, *shape) an image."""
    return (a.flatten(2) @ value.flatten(1).unsqueeze(2)).squeeze(2)


def least(a: Tensor, interval: CenteredBox) -> Tensor:
    """The minimum of a · value over an interval, (n, m)."""
    return product(a, interval.center) - product(a.abs(), interval.radius)
