"""From waveforms to mel spectra, differentiably: triangular filters on Slaney's scale over a power spectrum.

Powers are squares and have a floor before the logarithm, so that silence has a gradient that is finite. Statistics are
stored ones, not those of the clip, so that what a network sees of a moment does not depend on what comes later.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 16_000
_LINEAR, _BREAK = 200 / 3, 1000.0  # Hz a mel below, and where the scale becomes logarithmic
_STEP = math.log(6.4) / 27  # octaves in e, a mel, above


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Mel of frequencies on Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above."""
    above = _BREAK / _LINEAR + (hertz.clamp(min=_BREAK) / _BREAK).log() / _STEP
    return torch.where(hertz < _BREAK, hertz / _LINEAR, above)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Frequencies of mel on Slaney's scale."""
    above = _BREAK * (_STEP * (mel - _BREAK / _LINEAR)).exp()
    return torch.where(mel < _BREAK / _LINEAR, mel * _LINEAR, above)


def mel_filters(bands: int, n_fft: int, *, rate: int = RATE, low: float = 0.0) -> Float[Tensor, "bands bins"]:
    """Triangles over the bins of a half spectrum, each of area one in hertz, from ``low`` to half of ``rate``.

    Examples:
        >>> from thesis_kit.models.speech import mel_filters
        >>> mel_filters(40, 512).shape
        torch.Size([40, 257])
    """
    ends = hertz_to_mel(torch.tensor([low, rate / 2], dtype=torch.float64))
    edges = mel_to_hertz(torch.linspace(ends[0], ends[1], bands + 2, dtype=torch.float64))  # (bands + 2,)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0)
    return (triangles * 2 / (right - left)).float()


def power_spectra(x: Float[Tensor, "n t"], window: Tensor, n_fft: int, hop: int) -> Float[Tensor, "n bins frames"]:
    """Powers of a windowed short-time spectrum, ⌈t / hop⌉ frames, each around its own ``hop`` samples."""
    frames = -(-x.shape[-1] // hop)
    before = (n_fft - hop) // 2
    x = F.pad(x, (before, (frames - 1) * hop + n_fft - before - x.shape[-1]))
    spectrum = torch.stft(x, n_fft, hop, len(window), window, center=False, return_complex=True)
    return spectrum.real.square() + spectrum.imag.square()


class LogMel(nn.Module):
    """Log mel spectra (n, bands, frames) of waveforms (n, t) at 16 kHz, a frame each 10 ms, normalized by band.

    Args:
        bands: how many. n_fft, window, hop: of the short-time spectrum, in samples. floor: added to a band's power.

    ``mean`` and ``std`` (bands,) are stored; ``fit`` takes them from clips.
    """

    def __init__(self, bands: int = 64, *, n_fft: int = 512, window: int = 400, hop: int = 160, floor: float = 1e-6):
        super().__init__()
        self.n_fft, self.hop, self.floor = n_fft, hop, floor
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(bands, n_fft), persistent=False)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    def raw(self, x: Float[Tensor, "n t"]) -> Float[Tensor, "n bands frames"]:
        """Log mel spectra before normalization."""
        return (self.filters @ power_spectra(x, self.window, self.n_fft, self.hop) + self.floor).log()

    def forward(self, x: Float[Tensor, "n t"]) -> Float[Tensor, "n bands frames"]:
        return (self.raw(x) - self.mean[:, None]) / self.std[:, None]

    def frames(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """How many frames clips of these lengths have."""
        return (lengths + self.hop - 1) // self.hop

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"]) -> None:
        """Store the mean and standard deviation of each band over the frames of clips."""
        raw = self.raw(x)  # (n, bands, frames)
        inside = torch.arange(raw.shape[2], device=x.device) < self.frames(lengths)[:, None]  # (n, frames)
        seen = raw.transpose(1, 2)[inside]
        self.mean.copy_(seen.mean(dim=0)), self.std.copy_(seen.std(dim=0).clamp(min=1e-3))
