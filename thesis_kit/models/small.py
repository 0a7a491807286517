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
