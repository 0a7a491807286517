"""Whisper (Radford et al., ICML 2023) as a plain module: an encoder of speech, and a decoder that writes what it says.

Written from the paper and from what its weights are called, in two hundred lines, since the packages that hold it
(transformers, openai-whisper) bring far more than is needed here and hide q, k, v and hidden units behind names of
their own. Blocks are built as timm builds them, so that ``recording.sites`` finds in them what it finds there. The
encoder's blocks are ``blocks``; the decoder runs in ``read`` alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.models.speech.jasper import check_waveforms
from thesis_kit.models.speech.spectra import RATE, mel_filters

HOP = 160
WINDOW = 30.0  # seconds, which the networks were trained on


@dataclass(frozen=True)
class WhisperSize:
    """Sizes of a network; those of tiny.en unless given. ``places`` are positions of the encoder, ``text`` of texts."""

    width: int = 384
    depth: int = 4
    decoder_depth: int = 4
    vocabulary: int = 51_864
    bands: int = 80
    places: int = 1500
    text: int = 448

    @property
    def heads(self) -> int:
        """Heads of an attention: 64 numbers each."""
        return max(1, self.width // 64)


class WhisperMel(nn.Module):
    """Whisper's log mel spectrum (n, bands, frames): down to 80 dB below a clip's loudest place, on about [−1, 1]."""

    def __init__(self, bands: int = 80):
        super().__init__()
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.register_buffer("filters", mel_filters(bands, 400), persistent=False)

    def forward(self, x: Float[Tensor, "n t"]) -> Float[Tensor, "n b f"]:
        x = F.pad(x, (200, 200), mode="reflect") if x.shape[1] > 200 else F.pad(x, (200, 200))
        spectrum = torch.stft(x, 400, HOP, 400, self.window, center=False, return_complex=True)[..., :-1]
        power = self.filters @ (spectrum.real.square() + spectrum.imag.square())
        log = power.clamp(min=1e-10).log10()
        return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4


class Attention(nn.Module):
    """Attention of as many heads, to its own input or to another one."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads = heads
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t w"], other: Tensor | None = None, *, causal: bool = False) -> Tensor:
        other = x if other is None else other
        projected = self.q(x), self.k(other), self.v(other)
        q, k, v = (z.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for z in projected)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # (n, heads, t, d)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    """Two layers with a GELU between them; ``fc1`` gives the hidden units before it."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        return self.fc2(self.act(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Attention and perceptron, each normalized before and added behind."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """As the encoder's, looking back only, with an attention to what the encoder says between."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm_cross, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Float[Tensor, "n t w"], heard: Float[Tensor, "n p w"]) -> Float[Tensor, "n t w"]:
        x = x + self.attn(self.norm1(x), causal=True)
        x = x + self.cross(self.norm_cross(x), heard)
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Tokens and what was heard to logits of the next token, at every place; the embedding is the projection too."""

    def __init__(self, size: WhisperSize):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Parameter(0.01 * torch.randn(size.text, size.width))
        self.blocks = nn.ModuleList(DecoderBlock(size.width, size.heads) for _ in range(size.decoder_depth))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, tokens: Int[Tensor, "n t"], heard: Float[Tensor, "n p w"]) -> Float[Tensor, "n t v"]:
        if tokens.shape[1] > len(self.positions):
            raise ValueError(f"a text may hold {len(self.positions)} tokens, got {tokens.shape[1]}: give less")
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, heard)
        return F.linear(self.norm(x), self.embedding.weight)


class Whisper(nn.Module):
    """Waveforms (n, t) in [−1, 1] at 16 kHz to states (n, steps, width) of the encoder, a step each 20 ms.

    Args:
        size: of the network.
        seconds: the window that clips are padded to with silence; 30 is what the networks were trained on. None takes
            clips as long as they are, which costs a tenth for short ones and is not what they were trained on.
    """

    def __init__(self, size: WhisperSize | None = None, *, seconds: float | None = None):
        super().__init__()
        self.size, self.seconds = size or WhisperSize(), seconds
        width = self.size.width
        self.front = WhisperMel(self.size.bands)
        self.conv1 = nn.Conv1d(self.size.bands, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, 2, padding=1)
        self.register_buffer("positions", sinusoids(self.size.places, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, self.size.heads) for _ in range(self.size.depth))
        self.norm = nn.LayerNorm(width)
        self.decoder = Decoder(self.size)

    def forward(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s w"]:
        check_waveforms(x)
        longest = round(self.size.places * 2 * HOP)
        if x.shape[1] > longest:
            raise ValueError(f"a clip may last {longest / RATE:g} s, got {x.shape[1] / RATE:.1f}: cut it into pieces")
        wanted = max(x.shape[1], round((self.seconds or 0) * RATE), 2 * HOP)
        x = F.pad(x, (0, -(-wanted // (2 * HOP)) * 2 * HOP - x.shape[1]))
        x = F.gelu(self.conv2(F.gelu(self.conv1(self.front(x))))).transpose(1, 2)  # (n, steps, width)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    @property
    def layers(self) -> list[str]:
        """Layers from the spectrum to the last block of the encoder."""
        return ["front", "conv1", "conv2", *(f"blocks.{number}" for number in range(len(self.blocks)))]

    def steps(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """How many steps belong to clips of these lengths in samples, rather than to the silence behind them."""
        return (lengths + 2 * HOP - 1) // (2 * HOP)

    def read(self, tokens: Int[Tensor, "n t"], heard: Float[Tensor, "n p w"]) -> Float[Tensor, "n t v"]:
        """Logits of the next token behind every token, after states ``heard`` of the encoder."""
        return self.decoder(tokens, heard)


def sinusoids(places: int, width: int) -> Float[Tensor, "p w"]:
    """Whisper's positions: sines, then cosines, of wavelengths from 2π to 10,000 · 2π steps."""
    scale = (-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2)).exp()
    angles = torch.arange(places)[:, None] * scale  # (places, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
