"""Random changes to images while they are optimized: the prior of Plug-In Inversion is in these alone.

An augmentation is a callable ``(x, moment) -> x`` on x of shape (n, e, c, h, w): e copies of each of n targets. What is
drawn before ``Ensemble`` is shared by a target's copies, what is drawn after it is each copy's own. All numbers come
from the moment's streams, one a target, so that a target's draws depend on nothing but the seed, its id and the step.

Source, unless said otherwise: Ghiasi et al., ICML 2022, and its released code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.asking import plain
from thesis_kit.checks import check_count, choose
from thesis_kit.randomness import ImageRandom


@dataclass(frozen=True)
class Moment:
    """Where a synthesis stands: streams of this step and of the whole stage, and the share of the stage done."""

    random: ImageRandom
    stage_random: ImageRandom
    progress: float


Augmentation = Callable[[Tensor, Moment], Tensor]


def augment(x: Float[Tensor, "n c h w"], augmentations: Sequence[Augmentation], moment: Moment) -> Tensor:
    """Images after all augmentations, each with streams of its own: (n, c, h, w) -> (n, e, c, h, w)."""
    x = x[:, None]
    for place, augmentation in enumerate(augmentations):
        own = Moment(moment.random.fork(place), moment.stage_random.fork(place), moment.progress)
        x = augmentation(x, own)
    return x


def preview(
    x: Float[Tensor, "n c h w"], augmentations: Sequence[Augmentation], *, seed: int = 0
) -> Float[Tensor, "n e c h w"]:
    """What a network may see of images at the beginning of a stage with these augmentations: e copies of each.

    ``seed`` decides the random numbers, which are none of a synthesis's.

    Examples:
        >>> tk.synthesis.preview(digits.x, [tk.synthesis.Ensemble(3)]).shape
        torch.Size([4, 3, 1, 8, 8])
    """
    random = ImageRandom(seed, torch.arange(len(x), device=x.device))
    return augment(plain(x), augmentations, Moment(random.fork(0), random.fork(1), 0.0))


@dataclass(frozen=True)
class Ensemble:
    """``copies`` copies of every target, over whose losses the mean is taken."""

    copies: int

    def __post_init__(self) -> None:
        check_count(self.copies, what="copies")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n f c h w"]:
        return x.repeat_interleave(self.copies, dim=1)


@dataclass(frozen=True)
class Jitter:
    """Roll the image around its edges by up to ``limit`` pixels along each side.

    The published limit is 32 pixels at 224; ``Jitter.for_size`` scales it.
    """

    limit: int

    def __post_init__(self) -> None:
        check_count(self.limit, what="limit", least=0)

    @classmethod
    def for_size(cls, size: int) -> Jitter:
        """32 pixels at 224, in proportion."""
        return cls(round(32 * size / 224))

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        shifts = moment.random.integers(x.shape[1], 2, high=2 * self.limit + 1) - self.limit  # (n, e, 2)
        for axis in (-2, -1):
            length = x.shape[axis]
            places = (torch.arange(length, device=x.device) - shifts[..., axis, None]) % length  # (n, e, length)
            places = places[:, :, None, :, None] if axis == -2 else places[:, :, None, None, :]
            x = x.gather(axis, places.expand_as(x))
        return x


_FORMS = ("multiply", "divide")
_EVERY = ("step", "stage")


@dataclass(frozen=True)
class ColorShift:
    """Other colors and contrast: x' = σ x + μ in every channel, μ ~ U(−α, α), σ = exp(U(−β, β)); not clipped.

    Args:
        alpha: range of the shift. beta: range of the logarithm of the scale.
        form: "multiply" as above (the final version), or "divide" for x' = (x − μ) / σ (the older one).
        every: draw anew at every "step", or once a "stage" (the published runs on robust networks).
    """

    alpha: float = 1.0
    beta: float = 1.0
    form: str = "multiply"
    every: str = "step"

    def __post_init__(self) -> None:
        if not all(0 <= range_ < math.inf for range_ in (self.alpha, self.beta)):
            raise ValueError(f"alpha and beta must be at least 0, got {self.alpha} and {self.beta}")
        choose(self.form, _FORMS, "form of ColorShift")
        choose(self.every, _EVERY, "moment of drawing")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        random = moment.random if self.every == "step" else moment.stage_random
        drawn = random.uniform(*x.shape[1:3], 2, low=-1, high=1, dtype=x.dtype)[..., None, None]  # (n, e, c, 2, 1, 1)
        shift, scale = self.alpha * drawn[:, :, :, 0], (self.beta * drawn[:, :, :, 1]).exp()
        return scale * x + shift if self.form == "multiply" else (x - shift) / scale


_PER = ("pixel", "channel")


@dataclass(frozen=True)
class GaussianNoise:
    """Add normal noise; its standard deviation goes from ``start`` towards ``end`` along a line through each stage.

    Args:
        start, end: standard deviations; equal unless ``end`` is given.
        per: "pixel", or "channel" for one number a channel, as the released code for ViTs has it (0.5 to 0).
    """

    start: float
    end: float | None = None
    per: str = "pixel"

    def __post_init__(self) -> None:
        if not all(0 <= spread < math.inf for spread in (self.start, self.end or 0.0)):
            raise ValueError(f"standard deviations must be at least 0, got {self.start} and {self.end}")
        choose(self.per, _PER, "unit of noise")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        end = self.start if self.end is None else self.end
        spread = self.start + (end - self.start) * moment.progress
        shape = x.shape[1:] if self.per == "pixel" else (*x.shape[1:3], 1, 1)
        return x + spread * moment.random.normal(*shape, dtype=x.dtype)


@dataclass(frozen=True)
class Pad:
    """A border of ``pixels`` on every side, filled with ``value``, as lucid (Olah et al., Distill 2017) pads."""

    pixels: int
    value: float = 0.5

    def __post_init__(self) -> None:
        check_count(self.pixels, what="pixels", least=0)

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c g v"]:
        return F.pad(x, (self.pixels,) * 4, value=self.value)


@dataclass(frozen=True)
class Affine:
    """Turn and scale about the middle, bilinearly; what comes from outside the image is ``fill``.

    Args:
        degrees: largest angle either way.
        scale: smallest and largest factor.
        fill: the value outside.

    Source: the transforms of feature visualization (Olah et al. 2017), whose usual ranges are 10° and 0.9 to 1.1.
    """

    degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    fill: float = 0.5

    def __post_init__(self) -> None:
        if not (self.degrees >= 0 and 0 < self.scale[0] <= self.scale[1]):
            raise ValueError(f"degrees must be at least 0 and scales positive and in order, got {self}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        n, e, _, height, width = x.shape
        drawn = moment.random.uniform(e, 2, dtype=x.dtype)  # (n, e, 2)
        angle = math.radians(self.degrees) * (2 * drawn[..., 0] - 1)
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * drawn[..., 1]
        cos, sin, zero = angle.cos() / factor, angle.sin() / factor, torch.zeros_like(angle)
        aspect = height / width
        rows = torch.stack([cos, -sin * aspect, zero], -1), torch.stack([sin / aspect, cos, zero], -1)
        grid = F.affine_grid(torch.stack(rows, -2).flatten(0, 1), [n * e, 1, height, width], align_corners=False)
        moved = F.grid_sample((x - self.fill).flatten(0, 1), grid.to(x.dtype), align_corners=False)
        return moved.view_as(x) + self.fill


@dataclass(frozen=True)
class Crop:
    """A square of a random place and side, brought to the image's size.

    Args:
        share: smallest and largest side as a share of the image's. MACO's are about 0.2 to 0.25.
    """

    share: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"shares of a side must lie in (0, 1] and be in order, got {self.share}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        n, e, _, height, width = x.shape
        drawn = moment.random.uniform(e, 3, dtype=x.dtype)
        side = self.share[0] + (self.share[1] - self.share[0]) * drawn[..., 0]
        middle = (1 - side)[..., None] * (2 * drawn[..., 1:] - 1)  # in [-1, 1], such that the square stays inside
        zero = torch.zeros_like(side)
        rows = torch.stack([side, zero, middle[..., 0]], -1), torch.stack([zero, side, middle[..., 1]], -1)
        grid = F.affine_grid(torch.stack(rows, -2).flatten(0, 1), [n * e, 1, height, width], align_corners=False)
        return F.grid_sample(x.flatten(0, 1), grid.to(x.dtype), align_corners=False, padding_mode="border").view_as(x)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of standard deviation ``sigma`` in pixels, on a line towards ``end`` through each stage; ours."""

    sigma: float
    end: float | None = None

    def __post_init__(self) -> None:
        if not all(0 <= spread < math.inf for spread in (self.sigma, self.end or 0.0)):
            raise ValueError(f"standard deviations must be at least 0, got {self.sigma} and {self.end}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        sigma = self.sigma + ((self.sigma if self.end is None else self.end) - self.sigma) * moment.progress
        flat = x.flatten(0, 2)[:, None]  # (n·e·c, 1, h, w)
        for axis in (-1, -2):
            reach = min(math.ceil(3 * sigma), x.shape[axis] - 1)
            if reach:
                offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
                kernel = (-0.5 * (offsets / sigma) ** 2).exp()
                kernel = (kernel / kernel.sum()).view((1, 1, 1, -1) if axis == -1 else (1, 1, -1, 1))
                border = (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach)
                flat = F.conv2d(F.pad(flat, border, mode="reflect"), kernel)
        return flat.view_as(x)
