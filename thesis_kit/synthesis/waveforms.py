"""Sounds as canvases, and random changes to sounds: time, loudness, bands.

A sound of t samples is an input of one channel and one row, (n, 1, 1, t), in [−1, 1]; the network gets it as (n, t). A
stage's size is (1, t), and ``augmentations.Jitter`` and ``GaussianNoise`` work as they are: rolls in time, hiss. Ours,
after what is done to images and to spectrograms (Park et al., SpecAugment, Interspeech 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.randomness import ImageRandom
from thesis_kit.synthesis.augmentations import Moment
from thesis_kit.synthesis.canvas import Canvas, Size


class _Sound(Canvas):
    """What sounds have in common, however they are stored."""

    def check(self, inputs: Float[Tensor, "n c h w"]) -> None:
        """Require finite sounds (n, 1, 1, t) in [−1, 1]."""
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.shape[1:3] != (1, 1):
            seen = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(f"sounds to start with must be floats of shape (n, 1, 1, t), got {seen}")
        largest = inputs.abs().max().item() if inputs.numel() else 0.0
        if not largest <= 1:
            raise ValueError(f"sounds must be finite and lie in [−1, 1], got up to {largest:.3g}: scale them down")

    def to_input(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t"]:
        """Waveforms as recognizers take them."""
        return x.flatten(1)


def _one_row(channels: int, size: Size) -> int:
    if channels != 1 or size[0] != 1:
        raise ValueError(f"a sound has one channel and the size (1, samples), got {channels} channels of size {size}")
    return size[1]


@dataclass(frozen=True)
class Waveform(_Sound):
    """Samples themselves, faint noise at first and clipped to [−1, 1] after every step.

    Args:
        spread: standard deviation of the noise.
    """

    spread: float = 0.01

    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """Faint noise."""
        length = _one_row(channels, size)
        return (self.spread * random.normal(1, 1, length, dtype=torch.float64)).clamp(-1, 1).to(like)

    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The samples."""
        return images.clone()

    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """What is stored."""
        return stored

    def project(self, stored: Tensor) -> None:
        """Clip to the range of samples."""
        stored.clamp_(-1, 1)


@dataclass(frozen=True)
class ShortTime(_Sound):
    """Real and imaginary parts of a short-time spectrum, (n, bins, frames, 2), scaled as the powers of speech fall.

    Steps of equal length then change a sound by the same share of what speech has at a frequency, and what overlapping
    windows make of them has no clicks. Samples are clipped to [−1, 1] softly, by tanh.

    Args:
        spread: standard deviation of the first spectrum's entries. n_fft, hop: of the spectrum, in samples.
        corner: frequency in Hz above which the scale falls, by 6 dB an octave.
    """

    spread: float = 0.05
    n_fft: int = 512
    hop: int = 128
    corner: float = 500.0

    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """A faint random spectrum."""
        frames = self._frames(_one_row(channels, size))
        return self.spread * random.normal(self.n_fft // 2 + 1, frames, 2, dtype=torch.float64).to(like)

    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The spectrum that gives these sounds."""
        samples = torch.atanh(images.flatten(1).clamp(-0.999, 0.999))
        self._frames(samples.shape[1])
        spectrum = torch.stft(samples, self.n_fft, self.hop, window=self._window(samples), return_complex=True)
        return torch.view_as_real(spectrum / self._scale(samples)).contiguous()

    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """Sounds by an inverse transform with overlapping windows."""
        spectrum = torch.view_as_complex(stored.contiguous()) * self._scale(stored)
        length = self.hop * (stored.shape[2] - 1)
        samples = torch.istft(spectrum, self.n_fft, self.hop, window=self._window(stored), length=length)
        return torch.tanh(samples)[:, None, None]

    def _frames(self, length: int) -> int:
        if length % self.hop or length < self.n_fft:
            raise ValueError(
                f"a sound in short-time spectra must have a multiple of {self.hop} samples and at least {self.n_fft}, "
                f"got {length}: choose another length, or Waveform()"
            )
        return length // self.hop + 1

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.n_fft, device=like.device, dtype=like.dtype)

    def _scale(self, like: Tensor) -> Tensor:
        """(bins, 1): flat to the corner, then falling with frequency; a spectrum of ones gives samples of about one."""
        hertz = torch.arange(self.n_fft // 2 + 1, device=like.device, dtype=like.dtype) * 16_000 / self.n_fft
        return math.sqrt(self.n_fft) / 2 * (self.corner / hertz.clamp_min(self.corner))[:, None]


@dataclass(frozen=True)
class Gain:
    """Another loudness: all samples times a factor drawn evenly in decibels from −``decibels`` to ``decibels``."""

    decibels: float

    def __post_init__(self) -> None:
        if not 0 <= self.decibels < math.inf:
            raise ValueError(f"a gain must be at least 0 dB, got {self.decibels}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        drawn = moment.random.uniform(x.shape[1], low=-self.decibels, high=self.decibels, dtype=x.dtype)  # (n, e)
        return x * (10 ** (drawn / 20))[:, :, None, None, None]


@dataclass(frozen=True)
class BandMask:
    """A band of frequencies taken out, at a random place: as wide as a share of the spectrum up to ``share``."""

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"a share of the spectrum must lie in [0, 1), got {self.share}")

    def __call__(self, x: Float[Tensor, "n e c h w"], moment: Moment) -> Float[Tensor, "n e c h w"]:
        drawn = moment.random.uniform(x.shape[1], 2, dtype=x.dtype)[:, :, :, None]  # (n, e, 2, 1)
        spectrum = torch.fft.rfft(x)  # (n, e, 1, 1, bins)
        place = torch.linspace(0, 1, spectrum.shape[-1], device=x.device, dtype=x.dtype)
        width = self.share * drawn[:, :, 0]
        low = (1 - width) * drawn[:, :, 1]
        kept = (place < low) | (place >= low + width)  # (n, e, bins)
        return torch.fft.irfft(spectrum * kept[:, :, None, None], n=x.shape[-1])
