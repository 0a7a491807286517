"""A network that was trained for the speaker: Resemblyzer's encoder, as a plain module from the waveform on.

Three recurrent layers read a mel spectrum, and what the last of them says is projected onto a sphere, where clips of
one voice were trained to lie together (the GE2E loss of Wan et al., ICASSP 2018). Written from what that package does,
since it needs librosa and a compiled detector of voices; spectra and embeddings are the same. Its trimming of long
silences is left out: it is no function of the waveform that one could follow.

The layers are apart, so that each can be recorded, and the embedding is given for every step: what it would be if the
clip ended there.
"""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.models.speech.jasper import check_waveforms, ends_of
from thesis_kit.models.speech.spectra import mel_filters

HOP, N_FFT = 160, 400  # samples: a frame each 10 ms, of 25 ms
PARTIAL = 160  # frames that an embedding is of: 1.6 s, which the network was trained on
STRIDE = 77  # frames from one to the next: 1.3 a second
COVERED = 0.75  # of the last one by samples, else it is left out
QUIET = 10 ** (-30 / 20)  # root mean square, −30 dB of full scale, that quieter clips are raised to


class MelPower(nn.Module):
    """The mel spectrum (n, bands, frames) of waveforms (n, t): powers, without a logarithm, of ⌊t / 160⌋ + 1 frames."""

    def __init__(self, bands: int = 40):
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(bands, N_FFT), persistent=False)

    def forward(self, x: Float[Tensor, "n t"]) -> Float[Tensor, "n b f"]:
        x = F.pad(x, (N_FFT // 2, N_FFT // 2))
        spectrum = torch.stft(x, N_FFT, HOP, N_FFT, self.window, center=False, return_complex=True)
        return self.filters @ (spectrum.real.square() + spectrum.imag.square())


class Recurrent(nn.Module):
    """One layer of long short-term memory, and its states at every step."""

    def __init__(self, inside: int, width: int):
        super().__init__()
        self.lstm = nn.LSTM(inside, width, batch_first=True)

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t w"]:
        cudnn = x.is_cuda and not self.training  # which then gives no gradient
        with torch.backends.cudnn.flags(enabled=False) if cudnn else contextlib.nullcontext():
            return self.lstm(x)[0]


class Embedding(nn.Module):
    """States to places on the unit sphere, none of whose coordinates is negative; ``before`` is what the ReLU gets."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.before = nn.Linear(width, size)

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n s"]:
        return F.normalize(self.before(x).relu(), dim=-1)


class SpeakerEncoder(nn.Module):
    """Waveforms (n, t) in [−1, 1] at 16 kHz to embeddings (n, steps, size) of what was heard until each step of 10 ms.

    ``embed`` gives one embedding a clip, as the published network is used. Clips quieter than −30 dB of full scale are
    raised to that first. Exact zeros at a clip's end count as what it was padded with, where ``lengths`` are not given.

    Args:
        width: of the recurrent layers. depth: how many. size: of the embedding. bands: of the spectrum.

    Examples:
        >>> from thesis_kit.models.speech import SpeakerEncoder
        >>> encoder = SpeakerEncoder(width=16, size=8).eval()
        >>> encoder(torch.zeros(2, 16_000)).shape, encoder.embed(torch.zeros(2, 16_000)).shape
        (torch.Size([2, 101, 8]), torch.Size([2, 8]))
    """

    def __init__(self, *, width: int = 256, depth: int = 3, size: int = 256, bands: int = 40):
        super().__init__()
        self.front = MelPower(bands)
        self.blocks = nn.ModuleList(Recurrent(bands if number == 0 else width, width) for number in range(depth))
        self.embedding = Embedding(width, size)

    def forward(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s e"]:
        return self.embedding(self.heard(x, lengths))

    def heard(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s w"]:
        """States (n, steps, width) of the last recurrent layer, which the embedding is made of."""
        check_waveforms(x)
        lengths = ends_of(x) if lengths is None else lengths
        return self._read(self.front(raised(x, lengths)).transpose(1, 2))

    def embed(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n e"]:
        """One embedding of length 1 a clip: the mean over pieces of 1.6 s that overlap by half; short clips are padded.

        Args:
            x: waveforms, padded with zeros. lengths: of the clips in samples; by their zeros unless given.

        Raises:
            TypeError, ValueError: as ``check_waveforms``.

        Examples:
            >>> from thesis_kit.models.speech import SpeakerEncoder
            >>> encoder = SpeakerEncoder(width=16, size=8).eval()
            >>> encoder.embed(0.1 * torch.randn(2, 40_000)).shape
            torch.Size([2, 8])
        """
        check_waveforms(x)
        lengths = ends_of(x) if lengths is None else lengths
        x = raised(x, lengths)
        return torch.stack([self._of_clip(row[:length]) for row, length in zip(x, lengths.tolist(), strict=True)])

    def _of_clip(self, x: Float[Tensor, " t"]) -> Float[Tensor, " e"]:
        starts = partial_starts(len(x))
        x = F.pad(x, (0, max(0, (starts[-1] + PARTIAL) * HOP - len(x))))
        frames = self.front(x[None])[0].T  # (frames, bands)
        heard = self._read(torch.stack([frames[start : start + PARTIAL] for start in starts]))  # (partials, 160, width)
        return F.normalize(self.embedding(heard[:, -1]).mean(dim=0), dim=0)

    def _read(self, x: Float[Tensor, "n f b"]) -> Float[Tensor, "n f w"]:
        for block in self.blocks:
            x = block(x)
        return x

    @property
    def layers(self) -> list[str]:
        """Layers from the spectrum to the embedding."""
        return ["front", *(f"blocks.{number}" for number in range(len(self.blocks))), "embedding"]

    def steps(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """How many steps clips of these lengths in samples have."""
        return lengths // HOP + 1


def raised(x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
    """Waveforms of which those quieter than −30 dB of full scale, over their length, are raised to that."""
    power = x.square().sum(dim=1) / lengths
    return x * (QUIET / power.clamp(min=1e-12).sqrt()).clamp(min=1)[:, None]


def partial_starts(samples: int) -> list[int]:
    """The frames at which the pieces of 1.6 s of a clip begin; the last one may reach beyond it."""
    frames = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, frames - PARTIAL + STRIDE + 1), STRIDE))
    covered = (samples - starts[-1] * HOP) / (PARTIAL * HOP)
    return starts[:-1] if covered < COVERED and len(starts) > 1 else starts
