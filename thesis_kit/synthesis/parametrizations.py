"""What is optimized: n images at once, as pixels, as colors and frequencies, or as phases alone.

A parametrization holds one leaf tensor with a row a target and turns it into images. Rows never mix, so a target's
result does not depend on its neighbors. Every stage of a synthesis starts with one, made from the images that the stage
before has reached.

``Pixels`` is what Plug-In Inversion optimizes (Ghiasi et al., ICML 2022). ``Fourier`` follows Olah, Mordvintsev and
Schubert (Distill 2017): frequencies scaled by 1/f and decorrelated colors, which makes steps of equal length more
equal in what they change. ``Phases`` keeps the magnitudes of a spectrum measured on data and optimizes the phases alone
(MACO, Fel et al., NeurIPS 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import plain
from thesis_kit.checks import check_images
from thesis_kit.randomness import ImageRandom
from thesis_kit.synthesis.canvas import Canvas, Size

_MIDDLE = 1e-4  # of the range: how near to 0 and 1 a pixel may come before it is turned into a logit


class Parametrization(Canvas):
    """How images in [0, 1] are stored while they are optimized."""

    def check(self, inputs: Float[Tensor, "n c h w"]) -> None:
        """Require images with pixels in [0, 1]."""
        check_images(inputs)


@dataclass(frozen=True)
class Pixels(Parametrization):
    """Pixels themselves, uniform noise at first and clipped to [0, 1] after every step."""

    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """Uniform noise."""
        return random.uniform(channels, *size, dtype=torch.float64).to(like)

    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The images."""
        return images.clone()

    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """What is stored."""
        return stored

    def project(self, stored: Tensor) -> None:
        """Clip to the pixel range."""
        stored.clamp_(0, 1)


# Columns are axes of color along which natural images vary independently, the first one gray; ours: a normalized
# opponent basis in place of a matrix measured on ImageNet, so that nothing depends on a data set that is not here.
_COLORS = torch.tensor(
    [[1 / math.sqrt(3), 1 / math.sqrt(2), 1 / math.sqrt(6)],
     [1 / math.sqrt(3), 0.0, -2 / math.sqrt(6)],
     [1 / math.sqrt(3), -1 / math.sqrt(2), 1 / math.sqrt(6)]],
    dtype=torch.float64,
)  # fmt: skip
_SPREAD = torch.tensor([1.0, 0.35, 0.25], dtype=torch.float64)  # of natural colors along these axes, roughly


def color_basis(channels: int, *, like: Tensor) -> Float[Tensor, "c c"]:
    """Columns: decorrelated axes of color, scaled by how far colors spread along them; the identity unless c = 3."""
    basis = _COLORS * _SPREAD if channels == 3 else torch.eye(channels, dtype=torch.float64)
    return basis.to(like)


@dataclass(frozen=True)
class Fourier(Parametrization):
    """Real and imaginary parts of a half spectrum, (n, c, h, w/2 + 1, 2), divided by 1/f, over decorrelated colors.

    Args:
        spread: standard deviation of the first spectrum's entries.
        decay: exponent of 1/f; 1 makes all scales of a natural image alike.
        decorrelate: give colors in the basis of ``color_basis``.
    """

    spread: float = 0.01
    decay: float = 1.0
    decorrelate: bool = True

    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """A faint random spectrum: images near gray."""
        height, width = _even(size)
        drawn = random.normal(channels, height, width + 2, dtype=torch.float64)
        return self.spread * drawn.view(len(random), channels, height, -1, 2).to(like)

    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The spectrum that gives these images (up to their clipping away from 0 and 1)."""
        logits = torch.logit(images, eps=_MIDDLE)
        if self.decorrelate:
            basis = color_basis(images.shape[1], like=images)
            logits = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(basis), logits)
        spectrum = torch.fft.rfft2(logits, norm="ortho") / self._scale(_even(images.shape[-2:]), images)
        return torch.view_as_real(spectrum).contiguous()

    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """Images by an inverse transform and a sigmoid."""
        height, width = stored.shape[2], 2 * (stored.shape[3] - 1)
        spectrum = torch.view_as_complex(stored.contiguous()) * self._scale((height, width), stored)
        logits = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        if self.decorrelate:
            logits = torch.einsum("dc,nchw->ndhw", color_basis(stored.shape[1], like=stored), logits)
        return torch.sigmoid(logits)

    def _scale(self, size: Size, like: Tensor) -> Tensor:
        """¼ max(f, 1/longest side)^−decay, (h, w/2 + 1), as lucid scales: images of all sizes start equally faint."""
        radius = frequencies(size, device=like.device)
        return (0.25 * radius.clamp_min(1 / max(size)) ** -self.decay).to(like.dtype)


def frequencies(size: Size, *, device: torch.device | str = "cpu") -> Float[Tensor, "h half"]:
    """The distance from zero of every frequency of a half spectrum, in cycles a pixel."""
    rows = torch.fft.fftfreq(size[0], device=device, dtype=torch.float64)
    columns = torch.fft.rfftfreq(size[1], device=device, dtype=torch.float64)
    return torch.hypot(rows[:, None], columns[None, :])


def _even(size: Size) -> Size:
    """The size, if its width can be told from half a spectrum."""
    if size[1] % 2:
        raise ValueError(f"a width in frequencies must be even, got {size[1]}: choose another size or Pixels()")
    return size


def mean_spectrum(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "c h half"]:
    """The mean magnitude of images' half spectra, channel by channel: what ``Phases`` holds fixed.

    Examples:
        >>> tk.synthesis.mean_spectrum(digits.x).shape
        torch.Size([1, 8, 5])
    """
    if images.numel() == 0:
        raise ValueError(f"a mean spectrum is that of at least one image, got shape {tuple(images.shape)}")
    return torch.fft.rfft2(plain(images).double(), norm="ortho").abs().mean(dim=0)


class Phases(Parametrization):
    """Phases of a half spectrum whose magnitudes are those of data: images can only move what natural images have.

    Args:
        magnitudes: (c, h, w/2 + 1), such as ``mean_spectrum(images)``; a stage of another size resamples them.

    Source: Fel et al., NeurIPS 2023 (MACO). What their code does to bring values back into range (standardizing,
    recorrelating colors, a sigmoid) is here a plain clip, since the magnitudes are those of pixels in [0, 1].
    """

    def __init__(self, magnitudes: Float[Tensor, "c h half"]):
        if magnitudes.ndim != 3 or not ((magnitudes >= 0) & torch.isfinite(magnitudes)).all():
            raise ValueError(
                "magnitudes must have shape (c, h, w/2 + 1), be finite and not negative, got shape "
                f"{tuple(magnitudes.shape)}"
            )
        self.magnitudes = plain(magnitudes)

    def __repr__(self) -> str:
        numbers = self.magnitudes.detach().cpu().double().numpy()
        return f"Phases({' × '.join(map(str, numbers.shape))}, {sha256(numbers.tobytes()).hexdigest()[:16]})"

    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """Uniform phases."""
        height, width = _even(size)
        self._check_channels(channels)
        turns = random.uniform(channels, height, width // 2 + 1, dtype=torch.float64)
        return (math.pi * (2 * turns - 1)).to(like)

    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The phases of these images."""
        _even(images.shape[-2:])
        self._check_channels(images.shape[1])
        return torch.fft.rfft2(images, norm="ortho").angle()

    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """Images of these phases, clipped to [0, 1] where they leave it; the mean of each channel is the data's."""
        size = stored.shape[2], 2 * (stored.shape[3] - 1)
        magnitudes = self._resampled(size, stored)
        phase = torch.where(frequencies(size, device=stored.device) == 0, 0.0, stored)  # a mean has no phase
        image = torch.fft.irfft2(torch.polar(magnitudes.expand_as(phase), phase), s=size, norm="ortho")
        return image + (image.clamp(0, 1) - image).detach()  # clipped, with the gradient of what was not

    def _check_channels(self, channels: int) -> None:
        if channels != len(self.magnitudes):
            raise ValueError(f"the magnitudes have {len(self.magnitudes)} channels, the images {channels}")

    def _resampled(self, size: Size, like: Tensor) -> Tensor:
        """Magnitudes for images of another size: those of the same number of cycles an image, which resizing keeps."""
        here = plain(self.magnitudes).to(like)
        height, width = here.shape[1], 2 * (here.shape[2] - 1)
        if (height, width) == tuple(size):
            return here
        pixels = torch.fft.irfft2(here.to(torch.complex64), s=(height, width), norm="ortho")
        pixels = torch.fft.fftshift(pixels, dim=(-2, -1))  # a spot in the middle, which no edge cuts
        resized = nn.functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
        grown = math.sqrt(size[0] * size[1] / (height * width))  # a mean color counts with the root of the pixels
        found = torch.fft.rfft2(resized, norm="ortho").abs()
        found[:, 0, 0] = here[:, 0, 0] * grown
        return found.to(like.dtype)
