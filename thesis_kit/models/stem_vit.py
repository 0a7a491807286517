"""A Vision Transformer that sees through a few convolutions: timm's class behind a convolutional stem."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.extras import needs
from thesis_kit.models.classifier import Classifier


class ConvStem(nn.Module):
    """Images (n, c, s, s) to a grid of tokens (n, (s / patch)², width): 3 × 3 convolutions of stride 2, each with
    BatchNorm and ReLU, then one of 1 × 1.

    Source: Xiao et al. 2021, section 4; their stem ends in 14 × 14 tokens for images of 224 × 224.
    """

    def __init__(self, size: int, in_channels: int, channels: Sequence[int], width: int):
        super().__init__()
        patch = 2 ** len(channels)
        if size % patch:
            raise ValueError(f"{len(channels)} halvings of the size need a multiple of {patch}, got {size}")
        layers = []
        for before, after in pairwise([in_channels, *channels]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))
        self.patch_size, self.grid_size = (patch, patch), (size // patch, size // patch)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t d"]:
        """Tokens, row by row."""
        return self.layers(x).flatten(2).transpose(1, 2)


def stem_vit(
    *, n_classes: int = 10, in_channels: int = 3, size: int = 64, channels: Sequence[int] = (32, 64, 96),
    width: int = 96, depth: int = 4, heads: int = 3,
) -> Classifier:  # fmt: skip
    """timm's ``VisionTransformer`` whose patches are the output of a ``ConvStem``, seeing images at size × size pixels.

    It learns shapes in far fewer updates than a ViT that cuts the image into squares. Pixels are centered at 0 and
    doubled, as timm does for its ViTs. ``channels`` are those of the stem's strided convolutions, as many as there are;
    ``width``, ``depth`` and ``heads`` are the transformer's.
    """
    if width % heads:
        raise ValueError(f"width is cut into {heads} heads and must be a multiple of that, got {width}")
    make = needs("timm.models.vision_transformer").VisionTransformer

    def stem(**given: object) -> ConvStem:
        return ConvStem(size, in_channels, channels, width)

    network = make(
        img_size=size, patch_size=2 ** len(channels), in_chans=in_channels, num_classes=n_classes, embed_dim=width,
        depth=depth, num_heads=heads, embed_layer=stem,
    )  # fmt: skip
    return Classifier(network, mean=[0.5] * in_channels, std=[0.5] * in_channels, size=size)
