"""What a recognizer makes of clips, layer by layer: states over time, or their mean over a clip or a part of it.

Time stands second in transformers, (n, steps, units), and last in convolutions, (n, units, steps). Which axis it is, is
found out by asking twice with clips of two lengths. Steps behind a clip's end never count. A network that does not mask
them, as Whisper, hears the silence behind the shorter clips of a batch, though, and their states depend on it a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.checks import check_count
from thesis_kit.data.speech import RATE, Clip, together
from thesis_kit.recording import record, sites

_SECONDS = (0.4, 0.8)  # of the two clips that are asked with


def layers(model: nn.Module) -> list[str]:
    """Names of layers from the first to the last, to follow something through a network.

    A model of the book's says them itself (``layers``); of others, the residual streams behind their blocks are taken.

    Raises:
        ValueError: there are none: name layers of ``model.named_modules()`` yourself.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> tk.sonification.layers(hearing)
        ['front', 'prologue', 'blocks.0', 'blocks.1', 'epilogue']
    """
    own = getattr(model, "layers", None)
    found = list(own) if own else [site.name for site in sites(model).values() if site.kind == "residual"]
    if not found:
        raise ValueError("the model has no blocks with a residual stream: name layers of model.named_modules()")
    return found


@dataclass(frozen=True)
class Layout:
    """How a layer's states lie: which axis is time (1 or 2), how many units there are, and samples a step."""

    time: int
    units: int
    samples: float


def layouts(model: nn.Module, names: Sequence[str]) -> dict[str, Layout]:
    """The layout of every layer.

    Raises:
        ValueError: a layer whose states do not grow with the clip, or grow along several axes. UnknownName: no layer.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    short, long = (round(seconds * RATE) for seconds in _SECONDS)
    hiss = 0.01 * torch.randn(1, long, generator=torch.Generator().manual_seed(0)).to(device)
    seen = [record(model, hiss[:, :length], list(names)) for length in (short, long)]
    found = {}
    for name in names:
        one, other = (tuple(record[name].shape) for record in seen)
        grown = [axis for axis in range(1, len(one)) if one[axis] != other[axis]]
        if len(one) != 3 or len(grown) != 1:
            raise ValueError(
                f"{name} gives {one} for {_SECONDS[0]} s and {other} for {_SECONDS[1]} s of sound, and one of two axes "
                "must grow with it: choose a layer of states over time, and no fixed window"
            )
        (time,) = grown
        found[name] = Layout(time, one[3 - time], (long - short) / (other[time] - one[time]))
    return found


def states(
    model: nn.Module, clips: Sequence[Clip], names: str | Sequence[str], *, batch_size: int = 32
) -> dict[str, list[Float[Tensor, "t u"]]]:
    """States of layers for every clip: name -> a tensor (steps, units) a clip, on the CPU.

    Args:
        model: waveforms (n, t) to anything, as the recognizers of ``models.speech``; evaluated, left as found.
        clips: of 16 kHz. names: of layers or sites. batch_size: clips a pass; those of similar length go together. With
            1 a clip's states are its own in networks that do not mask what is behind its end, too.

    Raises:
        ValueError: as ``layouts``, no clips, or a clip of no samples. UnknownName: a layer does not exist.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.from_samples(torch.zeros(8_000), 16_000)]
        >>> tk.sonification.states(hearing, clips, "blocks.0")["blocks.0"][0].shape
        torch.Size([25, 8])
    """
    names = [names] if isinstance(names, str) else list(names)
    check_count(batch_size, what="batch_size")
    if not len(clips):
        raise ValueError("there are no clips: give at least one")
    if any(len(clip.waveform) == 0 for clip in clips):
        raise ValueError("a clip holds no samples: leave it out")
    how = layouts(model, names)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    order = sorted(range(len(clips)), key=lambda number: len(clips[number].waveform))
    found: dict[str, list] = {name: [None] * len(clips) for name in names}
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        x, lengths = together([clips[number].waveform for number in some])
        seen = record(model, x.to(device), names)
        for name, layout in how.items():
            rows = seen[name].transpose(1, 2) if layout.time == 2 else seen[name]
            for number, row, length in zip(some, rows.float().cpu(), lengths.tolist(), strict=True):
                found[name][number] = row[: max(1, min(len(row), -int(-length // layout.samples)))].clone()
    return found


def pooled(
    model: nn.Module, clips: Sequence[Clip], names: str | Sequence[str], *, batch_size: int = 32
) -> dict[str, Float[Tensor, "n u"]]:
    """The mean state over each clip: name -> (n, units); arguments as ``states``.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.from_samples(torch.zeros(8_000), 16_000)] * 2
        >>> tk.sonification.pooled(hearing, clips, "blocks.0")["blocks.0"].shape
        torch.Size([2, 8])
    """
    return {name: torch.stack([row.mean(dim=0) for row in rows])
            for name, rows in states(model, clips, names, batch_size=batch_size).items()}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a clip with a name, a phone or a word: from ``start`` to ``end`` in seconds of clip number ``clip``."""

    clip: int
    start: float
    end: float
    name: str


def pieces(clips: Sequence[Clip], by: str = "phone") -> list[Piece]:
    """All phones or words of clips, without pauses.

    Args:
        clips: with intervals. by: "phone" or "word".

    Raises:
        ValueError: another ``by``; clips without intervals, as recordings are.

    Examples:
        >>> clips = [tk.data.speech.say("good morning")]
        >>> [piece.name for piece in tk.sonification.pieces(clips, "word")]
        ['good', 'morning']
    """
    if by not in ("phone", "word"):
        raise ValueError(f"pieces are by 'phone' or 'word', got {by!r}")
    found = [Piece(number, one.start, one.end, one.name) for number, clip in enumerate(clips)
             for one in (clip.phones if by == "phone" else clip.words) if not one.name.startswith("_")]  # fmt: skip
    if not found:
        raise ValueError(f"the clips have no {by}s with times, which synthesized ones have: data.speech.say makes such")
    return found


def over_pieces(
    kept: Mapping[str, Sequence[Float[Tensor, "_ u"]]], clips: Sequence[Clip], parts: Sequence[Piece]
) -> dict[str, Float[Tensor, "n u"]]:
    """The mean state over each piece, of at least one step: name -> (pieces, units); ``kept`` comes from ``states``.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.say("yes")]
        >>> kept = tk.sonification.states(hearing, clips, "blocks.0")
        >>> tk.sonification.over_pieces(kept, clips, tk.sonification.pieces(clips, "word"))["blocks.0"].shape
        torch.Size([1, 8])
    """
    found = {}
    for name, rows in kept.items():
        means = []
        for part in parts:
            row, seconds = rows[part.clip], clips[part.clip].seconds
            first = min(int(part.start / seconds * len(row)), len(row) - 1)
            means.append(row[first : max(first + 1, round(part.end / seconds * len(row)))].mean(dim=0))
        found[name] = torch.stack(means)
    return found
