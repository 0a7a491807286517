"""A random turn, shift and scale of images, in some of the copies and with the border going on as it ends.

What the inversion of CLIP shows its network (Kazemi et al. 2024, released code): ±30°, a tenth of a side, 0.7 to 1.2,
in half of the copies. ``Affine`` is that of feature visualization: no shift, in all copies, gray outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.synthesis.augmentations import Moment


@dataclass(frozen=True)
class RandomAffine:
    """Turn, shift and scale about the middle, bilinearly; outside the image its border goes on.

    Args:
        degrees: largest angle either way. shift: largest shift along each side, as a share of it.
        scale: smallest and largest factor. share: of the copies that are moved; the others stay as they are.
    """

    degrees: float = 30.0
    shift: float = 0.1
    scale: tuple[float, float] = (0.7, 1.2)
    share: float = 0.5

    def __post_init__(self) -> None:
        if not (self.degrees >= 0 and 0 < self.scale[0] <= self.scale[1]):
            raise ValueError(f"degrees must be at least 0 and scales positive and in order, got {self}")
        if not (0 <= self.shift <= 1 and 0 <= self.share <= 1):
            raise ValueError(f"shift and share must lie in [0, 1], got {self}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        n, e, _, height, width = x.shape
        drawn = moment.random.uniform(e, 5, dtype=x.dtype)  # (n, e, 5)
        moved = (drawn[..., 4] < self.share).to(x.dtype)
        angle = moved * math.radians(self.degrees) * (2 * drawn[..., 0] - 1)
        factor = 1 + moved * (self.scale[0] + (self.scale[1] - self.scale[0]) * drawn[..., 1] - 1)
        right, down = (2 * self.shift * moved * (2 * drawn[..., place] - 1) for place in (2, 3))  # sides are 2 long
        cos, sin, aspect = angle.cos() / factor, angle.sin() / factor, height / width
        rows = torch.stack([cos, -sin * aspect, right], -1), torch.stack([sin / aspect, cos, down], -1)
        grid = F.affine_grid(torch.stack(rows, -2).flatten(0, 1), [n * e, 1, height, width], align_corners=False)
        seen = F.grid_sample(x.flatten(0, 1), grid.to(x.dtype), align_corners=False, padding_mode="border")
        return seen.view_as(x)
