"""MLP-Mixer of any size: timm's class, whose named models cannot be made smaller."""

from __future__ import annotations

from thesis_kit.models.classifier import Classifier


def small_mixer(
    *, n_classes: int = 10, in_channels: int = 3, size: int = 64, patch: int = 8, width: int = 96, depth: int = 6
) -> Classifier:
    """timm's ``MlpMixer`` (Tolstikhin et al. 2021), seeing images at size × size pixels, a multiple of ``patch``.

    Pixels are centered at 0 and doubled, as timm does for it. ``width`` is the number of features of a patch and
    ``depth`` the number of blocks.
    """
    from timm.models.mlp_mixer import MlpMixer  # half a second, and only needed here

    if size % patch:
        raise ValueError(f"the image is cut into patches of {patch} × {patch}: size must be a multiple, got {size}")
    network = MlpMixer(n_classes, size, in_channels, patch, num_blocks=depth, embed_dim=width)
    return Classifier(network, mean=[0.5] * in_channels, std=[0.5] * in_channels, size=size)
