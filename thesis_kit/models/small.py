"""A small convolutional network for small images: what the book trains live on two cores."""

from __future__ import annotations

from torch import nn


def small_cnn(*, n_classes: int = 10, in_channels: int = 1, width: int = 32) -> nn.Sequential:
    """Two convolution blocks, a pooled grid of 2 × 2 and two linear layers; any image of at least 4 × 4 pixels.

    No batch normalization: a forward pass depends on the image alone, in training as in evaluation.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, n_classes),
    )


def strided_cnn(*, n_classes: int = 10, in_channels: int = 1, width: int = 16, size: int = 32) -> nn.Sequential:
    """Two strided convolutions and two linear layers: the smallest networks of the CROWN-IBP paper, cheap to bound.

    For images of size × size pixels, a multiple of four. The paper's have widths 16 and 32 in the first layer and 128
    or 256 hidden units (Zhang et al. 2020, released configurations).
    """
    if size < 4 or size % 4:
        raise ValueError(f"the network halves its image twice: size must be a multiple of 4, got {size}")
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 4, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 8 * width),
        nn.ReLU(),
        nn.Linear(8 * width, n_classes),
    )
