"""One form for every classifier: pixels in [0, 1] in, logits out.

Attacks, certificates and inversions speak of pixels; a network that wants normalized or resized input gets these as its
first layers, so that a radius means the same for every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.checks import check_form_of_logits
from thesis_kit.models.seen import check_has_classes, check_normalizes_once

Statistics = Sequence[float] | np.ndarray | Tensor  # one number a channel


class Classifier(nn.Module):
    """A network from pixels in [0, 1], shape (n, c, h, w), to logits (n, k).

    Images are brought to the precision of the network's first parameter. The network is never given the caller's own
    tensor, for some write into it.

    Args:
        network: maps normalized images (n, c, h, w) to logits (n, k); an output of another form is refused.
        mean, std: one number a channel, in units of pixels in [0, 1]; None means that the network takes pixels as they
            are.
        size: side length (or height and width) the network expects; images of another size are resized (bilinear,
            antialiased), differentiably. None leaves them as they are.

    ``least`` is the side length of the smallest images it takes: 1 unless somebody who knows the network sets it.

    Raises:
        ValueError: statistics that cannot be meant, a network without a classifier, or one that begins with a
            normalization and would get a second one.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Statistics | None = None,
        std: Statistics | None = None,
        size: int | tuple[int, int] | None = None,
    ):
        super().__init__()
        mean, std = _checked_statistics(mean, std)
        check_has_classes(network)
        if mean is not None:
            check_normalizes_once(network)
        self.network = network
        self.size = (size, size) if isinstance(size, int) else size
        self.least = 1
        self.normalizes = mean is not None
        for name, numbers in (("mean", mean or [0.0]), ("std", std or [1.0])):
            tensor = torch.tensor(numbers, dtype=_precision(network) or torch.float32)
            self.register_buffer(name, tensor.view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits (n, k) of images (n, c, h, w)."""
        if not x.is_floating_point():
            raise TypeError(f"images must be a floating-point tensor, got {x.dtype}: convert with x.float() / 255")
        if self.normalizes and x.shape[1] != self.mean.shape[1]:
            raise ValueError(f"the model takes {self.mean.shape[1]} channels, got images of shape {tuple(x.shape)}")
        given = x
        x = x.to(_precision(self.network) or x.dtype)
        if self.size is not None and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        if min(x.shape[-2:]) < self.least:
            raise ValueError(
                f"the network tells nothing apart in images smaller than {self.least} × {self.least} pixels, got "
                f"{x.shape[-2]} × {x.shape[-1]}: give larger ones"
            )
        if self.normalizes:
            x = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        logits = self.network(x.clone() if x is given else x)
        check_form_of_logits(logits, len(given))
        return logits


def _precision(network: nn.Module) -> torch.dtype | None:
    """The precision of a network's first parameter; None if it has none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)


def _checked_statistics(
    mean: Statistics | None, std: Statistics | None
) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std as plain numbers, a pair of one length in units of pixels in [0, 1]."""
    if mean is None and std is None:
        return None, None
    counts = [len(numbers) if hasattr(numbers, "__len__") else 0 for numbers in (mean, std)]
    if counts[0] != counts[1] or not all(counts):
        raise ValueError("mean and std belong together: give both, with one number a channel, or neither")
    mean, std = [float(number) for number in mean], [float(number) for number in std]
    if min(std) <= 0:
        raise ValueError(f"std must be positive in every channel, got {std}")
    if not all(0 <= number <= 1 for number in (*mean, *std)):
        raise ValueError(
            f"mean and std must be in units of pixels in [0, 1], got mean {mean} and std {std}: divide both by 255 "
            "where they are of pixels up to 255"
        )
    return mean, std
