"""A small recognizer after Jasper: convolutions in blocks with dense residuals, trained by CTC, from the waveform on.

Jasper is Li et al., Interspeech 2019: blocks of convolution, normalization, ReLU and dropout, the last of which also
gets a 1 × 1 convolution of every earlier block's output. Ours has three blocks of two and a hundredth of the weights.
Padding never counts: what stands behind a clip's end is zero in every layer and in no statistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.data.speech.alphabet import TOKENS, decode
from thesis_kit.models.speech.spectra import LogMel

Mask = Bool[Tensor, "n 1 g"]


class NormOfFrames(nn.BatchNorm1d):
    """Batch normalization whose statistics are those of frames inside of clips; behind their ends it gives zeros."""

    def forward(self, x: Float[Tensor, "n c g"], mask: Mask) -> Float[Tensor, "n c g"]:
        if not self.training:
            return super().forward(x) * mask
        inside = mask[:, 0]  # (n, f)
        normal = torch.zeros_like(x).transpose(1, 2)
        normal[inside] = super().forward(x.transpose(1, 2)[inside])
        return normal.transpose(1, 2)


class Unit(nn.Module):
    """A convolution and its normalization, before the nonlinearity."""

    def __init__(self, inside: int, width: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(inside, width, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = NormOfFrames(width)

    def forward(self, x: Float[Tensor, "n c f"], mask: Mask) -> Float[Tensor, "n d g"]:
        return self.norm(self.conv(x), mask)


class Block(nn.Module):
    """Units, and 1 × 1 units from earlier outputs into the last of them; ``before`` is what its last ReLU is given."""

    def __init__(self, inputs: Sequence[int], width: int, kernel: int, *, units: int, stride: int = 1,
                 residual: bool = True, dropout: float = 0.1):  # fmt: skip
        super().__init__()
        inside = [inputs[-1], *[width] * (units - 1)]
        self.units = nn.ModuleList(Unit(one, width, kernel, stride) for one in inside)
        self.skips = nn.ModuleList(Unit(one, width, 1) for one in (inputs if residual else ()))
        self.before, self.dropout = nn.Identity(), nn.Dropout(dropout)

    def forward(self, inputs: Sequence[Float[Tensor, "n _ _"]], mask: Mask) -> Float[Tensor, "n d g"]:
        x = inputs[-1]
        for unit in self.units[:-1]:
            x = self.dropout(unit(x, mask).relu())
        x = self.units[-1](x, mask)
        for skip, earlier in zip(self.skips, inputs, strict=False):
            x = x + skip(earlier, mask)
        return self.dropout(self.before(x).relu())


class Jasper(nn.Module):
    """Waveforms (n, t) in [−1, 1] at 16 kHz to logits (n, steps, 28) over letters, a step each 20 ms.

    Args:
        widths, kernels: of the blocks. first, last: widths of the convolutions before and behind them. units: a block.
        bands: of the log mel spectrum. dropout: behind every ReLU. masked: bands hidden at most while training, at a
            random place of every clip.

    Behind a clip's end there are exact zeros, by which its length is known where ``lengths`` are not given.
    """

    tokens = TOKENS

    def __init__(self, *, widths: Sequence[int] = (96, 128, 128), kernels: Sequence[int] = (11, 13, 17),
                 first: int = 96, last: int = 160, units: int = 2, bands: int = 64, dropout: float = 0.1,
                 masked: int = 12):  # fmt: skip
        super().__init__()
        self.masked = masked
        self.front = LogMel(bands)
        self.prologue = Block([bands], first, 11, units=1, stride=2, residual=False, dropout=dropout)
        sizes = [first]
        self.blocks = nn.ModuleList()
        for width, kernel in zip(widths, kernels, strict=True):
            self.blocks.append(Block(sizes, width, kernel, units=units, dropout=dropout))
            sizes.append(width)
        self.epilogue = Block([sizes[-1]], last, 11, units=1, residual=False, dropout=dropout)
        self.head = nn.Conv1d(last, len(TOKENS), 1)

    def forward(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s k"]:
        check_waveforms(x)
        frames = self.front.frames(ends_of(x) if lengths is None else lengths)
        spectrum = self.front(x)
        spectrum = self._hidden(spectrum) * mask_of(frames, spectrum.shape[2])
        steps = (frames + 1) // 2
        mask = mask_of(steps, -(-spectrum.shape[2] // 2))
        outputs = [self.prologue([spectrum], mask)]
        for block in self.blocks:
            outputs.append(block(outputs, mask))
        return self.head(self.epilogue(outputs[-1:], mask)).transpose(1, 2)

    @property
    def layers(self) -> list[str]:
        """Layers from the spectrum to the last before the letters."""
        return ["front", "prologue", *(f"blocks.{number}" for number in range(len(self.blocks))), "epilogue"]

    def steps(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """How many steps of the logits belong to clips of these lengths."""
        return (self.front.frames(lengths) + 1) // 2

    def _hidden(self, spectrum: Float[Tensor, "n b f"]) -> Float[Tensor, "n b f"]:
        """The spectrum without some bands beside each other, while training."""
        if not (self.training and self.masked):
            return spectrum
        drawn = torch.rand(2, len(spectrum), 1, 1, device=spectrum.device)
        width = drawn[0] * self.masked
        start = drawn[1] * (spectrum.shape[1] - width)
        band = torch.arange(spectrum.shape[1], device=spectrum.device)[:, None]  # (b, 1)
        return spectrum.masked_fill((band >= start) & (band < start + width), 0.0)


def mask_of(counts: Int[Tensor, " n"], size: int) -> Mask:
    """True for the first so many of ``size`` places, a row each."""
    return (torch.arange(size, device=counts.device) < counts[:, None])[:, None]


def ends_of(x: Float[Tensor, "n t"]) -> Int[Tensor, " n"]:
    """Where the exact zeros begin with which a clip ends; a clip of nothing but zeros counts whole.

    Examples:
        >>> from thesis_kit.models.speech import ends_of
        >>> ends_of(torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1]]))
        tensor([2, 4])
    """
    places = torch.arange(1, x.shape[1] + 1, device=x.device)
    ends = (x.detach() != 0).mul(places).amax(dim=1)
    return torch.where(ends == 0, x.shape[1], ends)


def check_waveforms(x: Tensor) -> None:
    """Require float waveforms (n, t) with at least one sample that are finite and lie in [−1, 1], or nearly.

    Raises:
        TypeError, ValueError: what was seen and what to do.

    Examples:
        >>> from thesis_kit.models.speech import check_waveforms
        >>> check_waveforms(torch.zeros(1, 16_000))
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        seen = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"waveforms must be a floating-point tensor, got {seen}: divide samples of 16 bits by 32768")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(
            f"waveforms must have shape (n, t) with one channel at 16 kHz, got {tuple(x.shape)}: "
            "data.speech.from_samples makes a clip of any sound"
        )
    if len(x):
        largest = x.detach().abs().max().item()
        if not largest <= 10:  # NaN too; noise and gain in training may overshoot
            raise ValueError(f"waveforms must be finite and lie in [−1, 1], got up to {largest:.3g}: look at the scale")


@torch.no_grad()
def transcribe(model: nn.Module, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None,
               *, batch_size: int = 64) -> list[str]:  # fmt: skip
    """What a recognizer of letters hears: the best token of every step, collapsed as CTC does.

    Args:
        model: waveforms (n, t) and lengths (n,) to logits (n, steps, 28), with ``steps``; taken in evaluation mode.
        x: waveforms, padded with zeros. lengths: of the clips in samples; by their zeros unless given.

    Examples:
        >>> from thesis_kit.models.speech import transcribe  # doctest: +SKIP
        >>> x, lengths = tk.data.speech.together([tk.data.speech.say("yes").waveform])  # doctest: +SKIP
        >>> transcribe(recognizer, x, lengths)  # doctest: +SKIP
        ['yes']
    """
    check_waveforms(x)
    lengths = ends_of(x) if lengths is None else lengths
    heard = []
    with evaluating(model):
        for some, theirs in zip(x.split(batch_size), lengths.split(batch_size), strict=True):
            best = model(some, theirs).argmax(dim=2)
            heard += [decode(row[:steps].tolist()) for row, steps in zip(best, model.steps(theirs), strict=True)]
    return heard
