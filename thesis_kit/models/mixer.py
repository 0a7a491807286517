"""MLP-Mixer of any size: timm's class, whose named models cannot be made smaller."""

from __future__ import annotations

from thesis_kit.extras import needs
from thesis_kit.models.classifier import Classifier


def small_mixer(
    *, n_classes: int = 10, in_channels: int = 3, size: int = 64, patch: int = 8, width: int = 96, depth: int = 6
) -> Classifier:
    """timm's ``MlpMixer`` (Tolstikhin et al. 2021), seeing images at size × size pixels, a multiple of ``patch``.

    Pixels are centered at 0 and doubled, as timm does for it. ``width`` is the number of features of a patch and
    ``depth`` the number of blocks.
    """
    if size % patch:
        raise ValueError(f"the image is cut into patches of {patch} × {patch}: size must be a multiple, got {size}")
    make = needs("timm.models.mlp_mixer").MlpMixer
    network = make(n_classes, size, in_channels, patch, num_blocks=depth, embed_dim=width)
    return Classifier(network, mean=[0.5] * in_channels, std=[0.5] * in_channels, size=size)
