"""One form for every classifier: pixels in [0, 1] in, logits out.

Attacks, certificates and inversions speak of pixels; a network that wants normalized or resized input gets these as its
first layers, so that a radius means the same for every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """A network from pixels in [0, 1], shape (n, c, h, w), to logits (n, k).

    Args:
        network: maps normalized images (n, c, h, w) to logits (n, k); an output with more dimensions is refused.
        mean, std: one number a channel, in pixel units; None means that the network takes pixels as they are.
        size: side length (or height and width) the network expects; images of another size are resized (bilinear,
            antialiased), differentiably. None leaves them as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
    ):
        super().__init__()
        if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std)):
            raise ValueError("mean and std belong together: give both, with one number a channel, or neither")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std must be positive in every channel, got {list(std)}")
        self.network = network
        self.size = (size, size) if isinstance(size, int) else size
        self.normalizes = mean is not None
        for name, numbers in (("mean", mean or [0.0]), ("std", std or [1.0])):
            self.register_buffer(name, torch.tensor(numbers).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits (n, k) of images (n, c, h, w)."""
        if self.normalizes and x.shape[1] != self.mean.shape[1]:
            raise ValueError(f"the model takes {self.mean.shape[1]} channels, got images of shape {tuple(x.shape)}")
        if self.size is not None and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        if self.normalizes:
            x = (x - self.mean) / self.std
        logits = self.network(x)
        if logits.ndim != 2:
            raise ValueError(f"the network must return logits of shape (n, k), got {tuple(logits.shape)}")
        return logits
