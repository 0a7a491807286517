"""What chapter 7's notebook computes as it runs, for one network: sounds of units, metamers, edits, probes, an attack.

Small versions of what the chapter's recordings measure; nothing here is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.data.speech import VOICES, Clip, crossed, say_all
from thesis_kit.models.speech import transcribe
from thesis_kit.sonification import TopPiece, cut, sonify, top_segments
from thesis_kit.sonification.states import layouts

AROUND = 0.04  # seconds of the clip on either side of a phone that is played


@dataclass(frozen=True)
class Strongest:
    """The pieces that excite a unit most: the best one as a sound, its name, the word it is from, how many share both.

    ``agree`` of ``of`` strongest pieces have the best one's name.
    """

    waveform: Tensor
    name: str
    word: str
    agree: int
    of: int


@dataclass(frozen=True)
class UnitSounds:
    """A unit to be heard: its strongest phone and word, the sound made for it, and what is written down for that."""

    unit: int
    phone: Strongest
    word: Strongest
    optimum: Tensor
    heard: str


@dataclass(frozen=True)
class LayerSounds:
    """Some units of a layer, and of the same layer with random weights."""

    layer: str
    units: list[UnitSounds]
    untrained: list[UnitSounds]


def spoken_words(voices: Sequence[str] = VOICES["test"]) -> list[Clip]:
    """Every word of speech.v1 once by every one of these voices, at their own pitch."""
    return say_all(crossed(voices=voices, pitches=(50,), rates=(160,)))


def unit_sounds(
    model: nn.Module, clips: Sequence[Clip], layer: str, units: Sequence[int], *, reader: nn.Module, steps: int,
    seconds: float = 0.8, k: int = 5, seed: int = 0,
) -> list[UnitSounds]:  # fmt: skip
    """The strongest phone and word of units and the sounds that excite them most, started from faint noise.

    Args:
        model: whose units. clips: what pieces are taken from. layer, units: which. reader: a recognizer of letters that
            writes down the sounds. steps: of optimization. seconds: length of the sounds. k: pieces that are compared.
        seed: of the noise.
    """
    phones, words = (top_segments(model, clips, layer, units, k=k, by=by) for by in ("phone", "word"))
    found = sonify(model, layer, units, seconds=seconds, steps=steps, copies=1, seed=seed)
    heard = transcribe(reader, found.waveforms.to(next(reader.parameters()).device))
    rows = zip(units, phones, words, found.waveforms, heard, strict=True)
    return [UnitSounds(unit, _strongest(phone, clips, AROUND), _strongest(word, clips, 0.0), sound, text)
            for unit, phone, word, sound, text in rows]  # fmt: skip


def _strongest(found: Sequence[TopPiece], clips: Sequence[Clip], around: float) -> Strongest:
    best = found[0].piece
    clip = clips[best.clip]
    sound = cut(clip, max(0.0, best.start - around), min(clip.seconds, best.end + around))
    names = Counter(one.piece.name for one in found)
    return Strongest(sound, best.name, clip.text, names[best.name], len(found))


def sonic_layers(
    model: nn.Module, twin: nn.Module, clips: Sequence[Clip], layers: Sequence[str], *, each: int, controls: int,
    steps: int, seconds: float = 0.8,
) -> list[LayerSounds]:  # fmt: skip
    """Units of every layer, evenly spaced, none picked, beside some of the network with random weights.

    Args:
        model, twin: the network and the one that has learned nothing. each, controls: how many units of either.
        others: as for ``unit_sounds``.
    """
    found = []
    for layer in layers:
        width = layouts(model, [layer])[layer].units
        mine, theirs = (torch.linspace(0, width - 1, count).round().long().tolist() for count in (each, controls))
        how = {"reader": model, "steps": steps, "seconds": seconds}
        found.append(LayerSounds(layer, unit_sounds(model, clips, layer, mine, **how),
                                 unit_sounds(twin, clips, layer, theirs, **how)))  # fmt: skip
    return found


def letters_by_layer(layers: Sequence[LayerSounds]) -> dict[str, list[float]]:
    """Mean number of letters that the reader writes for the sounds made for units, by layer."""

    def mean(units: Sequence[UnitSounds]) -> float:
        return sum(len(one.heard.replace(" ", "")) for one in units) / len(units)

    return {"trained": [mean(one.units) for one in layers], "random weights": [mean(one.untrained) for one in layers]}


def loudness(waveform: Float[Tensor, " t"]) -> float:
    """Root mean square of a sound."""
    return waveform.square().mean().sqrt().item()
