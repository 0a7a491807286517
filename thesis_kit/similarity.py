"""How alike two images look: the structural similarity index (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.checks import check_images

_WINDOW, _SPREAD = 11, 1.5  # a Gaussian window of the paper's size, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # for pixels in [0, 1]


def ssim(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of pairs of images, 1 for equal ones; the mean over channels and whole windows.

    Args:
        x, y: images in [0, 1] of the same shape, at least 11 × 11 pixels.

    Raises:
        ValueError, TypeError: images that cannot be compared.

    Source: Wang et al. 2004, eq. 13, with the paper's constants and window.

    Examples:
        >>> from thesis_kit.similarity import ssim
        >>> x = torch.rand(2, 3, 16, 16)
        >>> ssim(x, x)
        tensor([1., 1.])
    """
    check_images(x), check_images(y)
    if x.shape != y.shape or min(x.shape[-2:]) < _WINDOW:
        seen = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"ssim compares images of one shape with at least {_WINDOW} × {_WINDOW} pixels, got {seen}")
    if x.dtype != y.dtype:
        raise ValueError(f"ssim compares images of one type, got {x.dtype} and {y.dtype}: convert one")
    distance = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    line = torch.exp(-(distance**2) / (2 * _SPREAD**2))
    line = line / line.sum()

    def mean(t: Tensor) -> Tensor:
        flat = t.flatten(0, 1).unsqueeze(1)  # every channel by itself
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    index = (2 * mx * my + _C1) * (2 * both + _C2) / ((mx**2 + my**2 + _C1) * (vx + vy + _C2))
    return index.unflatten(0, x.shape[:2]).mean(dim=(1, 2, 3, 4))
