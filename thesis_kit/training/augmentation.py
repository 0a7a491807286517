"""Random changes to training images that leave their class as it is, for ``training.train(augment=…)``.

Each draws from the image's own random numbers, so that a resumed run sees the same images again.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.randomness import ImageRandom

_GRID = 6  # patches of light along a side
_STRONGEST = 0.3  # standard deviation of the brightness at the grid's points
_SHIFT, _CONTRAST = 0.25, 0.5  # largest change of a color channel: added, and as a logarithm of its factor
_BLUR = 1 / 40  # largest standard deviation, as a share of the image's shorter side
_NOISE = 0.25  # largest standard deviation


def shift(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Move each image by up to an eighth of its sides, black coming in: at 32 pixels, a crop after padding by 4."""
    n, _, h, w = x.shape
    down, right = (random.integers(1, 1, high=2 * (side // 8) + 1) - side // 8 for side in (h, w))  # (n, 1, 1)
    row = torch.arange(h, device=x.device).view(1, h, 1) - down  # (n, h, 1)
    column = torch.arange(w, device=x.device).view(1, 1, w) - right  # (n, 1, w)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)  # (n, h, w)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    moved = x.permute(0, 2, 3, 1)[image, row.clamp(0, h - 1), column.clamp(0, w - 1)]  # (n, h, w, c)
    return (moved * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def mirror(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Exchange left and right in half of the images."""
    chosen = random.uniform(1, 1, 1, dtype=torch.float64) < 0.5  # (n, 1, 1, 1)
    return torch.where(chosen, x.flip(3), x)


def shift_and_mirror(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Both, as CIFAR-10 networks are commonly trained."""
    return mirror(shift(x, random), random)


def shade(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Add a smooth gray field, between none and strong, and clip to [0, 1]: an object under other light (ours).

    The field is normal noise on a grid of 6 × 6 points, enlarged by bicubic interpolation, times a strength drawn
    uniformly for each image.
    """
    field = random.normal(1, _GRID, _GRID, dtype=x.dtype)
    strength = random.uniform(1, 1, 1, low=0.0, high=_STRONGEST, dtype=x.dtype)
    smooth = F.interpolate(field, x.shape[-2:], mode="bicubic", align_corners=False)
    return (x + strength * smooth).clamp(0, 1)


def recolor(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Stretch and shift each color channel for itself, and clip to [0, 1] (ours; ColorShift is alike, and stronger)."""
    channels = x.shape[1]
    added = random.uniform(channels, 1, 1, low=-_SHIFT, high=_SHIFT, dtype=x.dtype)
    factor = random.uniform(channels, 1, 1, low=-_CONTRAST, high=_CONTRAST, dtype=x.dtype).exp()
    return (x.sub(0.5) * factor + (0.5 + added)).clamp(0, 1)


def blur(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Blur each image by a Gaussian, between none and strong, the border going on as it ends."""
    strongest = _BLUR * min(x.shape[-2:])
    reach = max(1, math.ceil(2 * strongest))
    width = random.uniform(1, 1, 1, high=strongest, dtype=x.dtype).clamp_min(1e-3)  # (n, 1, 1, 1)
    distance = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = (-0.5 * (distance / width).square()).softmax(dim=3)  # (n, 1, 1, 2 · reach + 1)
    if len(x) == 0:
        return x
    for dim, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        side, padded = x.shape[dim], F.pad(x, border, mode="replicate")
        x = sum(weights[..., i, None] * padded.narrow(dim, i, side) for i in range(2 * reach + 1))
    return x


def noise(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Add normal noise, between none and strong, and clip to [0, 1]."""
    strength = random.uniform(1, 1, 1, high=_NOISE, dtype=x.dtype)
    return (x + strength * random.normal(*x.shape[1:], dtype=x.dtype)).clamp(0, 1)


def disturb(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Other colors, blur and noise, in this order."""
    return noise(blur(recolor(x, random), random), random)


def blur_and_noise(x: Float[Tensor, "n c h w"], random: ImageRandom) -> Float[Tensor, "n c h w"]:
    """Both, and every color as it is: for images of which something is said that names their colors."""
    return noise(blur(x, random), random)


AUGMENTATIONS = {
    "shift": shift,
    "mirror": mirror,
    "shift and mirror": shift_and_mirror,
    "shade": shade,
    "recolor": recolor,
    "blur": blur,
    "noise": noise,
    "disturb": disturb,
    "blur and noise": blur_and_noise,
}
