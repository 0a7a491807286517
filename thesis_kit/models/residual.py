"""The residual networks of the robustness papers, for 32 × 32 images, and a small one of their kind for two cores.

PreActResNet-18 (He et al. 2016, as used by Wong et al. 2020) and the wide residual network that the Free-training paper
calls WRN-32-10: three stages of five blocks, widths 160, 320, 640, leaky ReLU of slope 0.1, each image standardized
inside the network. Counted in convolutions it is 34 layers deep, and later tables list it as WRN-34-10.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.checks import check_count


class PreActivationBlock(nn.Module):
    """BatchNorm, activation, convolution, twice, plus the input (projected where the shape changes)."""

    def __init__(self, in_width: int, width: int, stride: int, activation: Callable[[], nn.Module]):
        super().__init__()
        self.norm1, self.act1 = nn.BatchNorm2d(in_width), activation()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2, self.act2 = nn.BatchNorm2d(width), activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes = stride != 1 or in_width != width
        self.shortcut = nn.Conv2d(in_width, width, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """(n, in_width, h, w) -> (n, width, h/stride, w/stride)."""
        activated = self.act1(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(activated)
        return skipped + self.conv2(self.act2(self.norm2(self.conv1(activated))))


class PerImageStandardization(nn.Module):
    """Subtract each image's mean and divide by its standard deviation, held above 1/√(number of values)."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """(n, c, h, w) -> (n, c, h, w)."""
        flat = x.flatten(1)
        floor = flat.shape[1] ** -0.5
        std = flat.std(dim=1, correction=0).clamp_min(floor)
        return (x - flat.mean(dim=1).view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def _residual_network(
    stem: list[nn.Module], widths: list[int], blocks: int, activation: Callable[[], nn.Module], n_classes: int
) -> nn.Sequential:
    """Stem, one stage a width (the first keeps the size, each later one halves it), pooled linear head."""
    layers, in_width = list(stem), stem[-1].out_channels
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(PreActivationBlock(in_width, width, stride, activation))
            in_width = width
    head = [nn.BatchNorm2d(in_width), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(in_width, n_classes))


def preact_resnet18(*, n_classes: int = 10, in_channels: int = 3, width: int = 64) -> nn.Sequential:
    """Pre-activation ResNet-18: four stages of two blocks, widths 64 to 512, ReLU."""
    stem = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False)]
    return _residual_network(stem, [width, 2 * width, 4 * width, 8 * width], 2, nn.ReLU, n_classes)


def wrn_32_10(*, n_classes: int = 10, in_channels: int = 3, width: int = 160) -> nn.Sequential:
    """The wide residual network of Shafahi et al. 2019; ``width`` 160 is ten times the original 16."""
    stem = [PerImageStandardization(), nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]

    def activation() -> nn.Module:
        return nn.LeakyReLU(0.1)

    return _residual_network(stem, [width, 2 * width, 4 * width], 5, activation, n_classes)


def small_resnet(*, n_classes: int = 10, in_channels: int = 3, width: int = 24, blocks: int = 2) -> nn.Sequential:
    """Pre-activation residual network of three stages of ``blocks`` blocks, widths w, 2w, 4w, ReLU.

    Its first convolution has stride 2, so that 32 × 32 images cost a quarter; 64 × 64 images fit as well.
    """
    check_count(width, what="width")
    check_count(blocks, what="blocks")
    stem = [nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)]
    return _residual_network(stem, [width, 2 * width, 4 * width], blocks, nn.ReLU, n_classes)
