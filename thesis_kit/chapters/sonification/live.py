"""What chapter 7's notebook computes as it runs, for one network: sounds of units, metamers, edits, probes, an attack.

Small versions of what the chapter's recordings measure; nothing here is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.chapters.sonification import layer_measures
from thesis_kit.data.speech import RATE, VOICES, WORDS, Clip, crossed, median_pitch, say_all, together
from thesis_kit.extras import MissingPackage
from thesis_kit.ledger.results import Result
from thesis_kit.models.speech import Whisper, WhisperTokens, closed_set, transcribe, whisper_tiny_en
from thesis_kit.recording import record
from thesis_kit.sonification import TopPiece, change, cut, edited, resynthesize, sonify, top_segments
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


# One word from every layer


@dataclass(frozen=True)
class Judge:
    """Whisper tiny.en as a second pair of ears: which of the words a sound says, none other being allowed."""

    network: Whisper
    tokens: WhisperTokens

    def __call__(self, sounds: Sequence[Tensor]) -> list[str]:
        written = [f" {word.capitalize()}." for word in WORDS]
        x, _ = together(sounds)
        scores = closed_set(self.network, self.tokens, x.to(next(self.network.parameters()).device), written)
        return [WORDS[place] for place in scores.argmax(dim=1).tolist()]


def second_recognizer() -> Judge | None:
    """Whisper tiny.en where the package that brings it is installed (the extra ``real``), else None."""
    try:
        return Judge(*whisper_tiny_en())
    except MissingPackage:
        return None


@dataclass(frozen=True)
class FromLayer:
    """A word by several voices as a layer holds it: ``sounds`` found from noise whose states there are the clips'.

    ``layer`` is empty for the clips themselves. For each sound: ``distances`` of its states from the clip's, relative;
    ``pitches`` in Hz, NaN where none is found; what the network has ``written`` and another recognizer ``judged``, if
    there is one.
    """

    layer: str
    sounds: list[Tensor]
    distances: list[float]
    pitches: list[float]
    written: list[str]
    judged: list[str] | None


def from_layers(
    model: nn.Module, clips: Sequence[Clip], layers: Sequence[str], judge: Judge | None, *, steps: int, seed: int = 0
) -> list[FromLayer]:
    """Clips, and what each layer holds of them, from the first to the last.

    Args:
        model: a recognizer of letters. clips: of one word by several voices. judge: another recognizer.
        steps, seed: of ``sonification.resynthesize``.
    """
    found = [_heard(model, "", [clip.waveform for clip in clips], [0.0] * len(clips), judge)]
    for layer in layers:
        made = resynthesize(model, clips, layer, steps=steps, seeds=[seed])
        sounds = [row[0] for row in made.waveforms]
        found.append(_heard(model, layer, sounds, made.distances[:, 0].tolist(), judge))
    return found


def _heard(
    model: nn.Module, layer: str, sounds: list[Tensor], distances: list[float], judge: Judge | None
) -> FromLayer:  # fmt: skip
    x, lengths = together(sounds)
    device = next(model.parameters()).device
    pitches = [median_pitch(sound.numpy(), RATE) for sound in sounds]
    written = transcribe(model, x.to(device), lengths.to(device))
    return FromLayer(layer, sounds, distances, pitches, written, None if judge is None else judge(sounds))


# A bar of pitch


@dataclass(frozen=True)
class PitchEdit:
    """Words said higher or lower by ``semitones``: one as a ``sound``, its pitch in Hz and what is ``written`` for it.

    ``changes`` are how far each network's layers move, network → a number a layer, 1 being as far as two clips usually
    are from one another.
    """

    semitones: float
    sound: Tensor
    pitch: float
    written: str
    changes: dict[str, list[float]]


def pitch_edits(
    networks: Mapping[str, nn.Module], clips: Sequence[Clip], semitones: Sequence[float], layers: Sequence[str]
) -> list[PitchEdit]:
    """The same words at several pitches, and how much each layer of networks notices.

    Args:
        networks: name → a recognizer with these layers; the first one writes. clips: synthesized; the first is shown.
    """
    writer = next(iter(networks.values()))
    found = []
    for step in semitones:
        others = edited(clips, semitones=step)
        changes = {called: [moved[name].mean().item() for name in layers]
                   for called, net in networks.items() for moved in [change(net, clips, others, layers)]}  # fmt: skip
        x = others[0].waveform[None].to(next(writer.parameters()).device)
        found.append(PitchEdit(step, others[0].waveform, others[0].f0, transcribe(writer, x)[0], changes))
    return found


# What can be read off


def recorded_probes(result: Result, arm: str) -> dict[str, list[float]]:
    """What a probe reads off each layer as recorded, by measure, the spectrum first: a mean over networks."""
    curves = {what: result.curves(what, arm) for what in layer_measures.PROBES}
    return {what: np.mean([points[:, 1] for points in seeds.values()], axis=0).tolist()
            for what, seeds in curves.items()}  # fmt: skip


# A sound that says something else


def travels(
    model: nn.Module, clip: Clip, misheard: Float[Tensor, " t"], layers: Sequence[str], *, seed: int = 0
) -> dict[str, list[float]]:
    """How far a perturbation moves each layer, and how far noise of the same power does, relative to its states."""
    moved = misheard - clip.waveform
    noise = torch.randn(len(moved), generator=torch.Generator().manual_seed(seed))
    noise *= loudness(moved) / loudness(noise)
    device = next(model.parameters()).device
    x = torch.stack([clip.waveform, misheard, (clip.waveform + noise).clamp(-1, 1)]).to(device)
    seen = record(model, x, list(layers))
    gaps = {name: (seen[name][1:] - seen[name][:1]).flatten(1).norm(dim=1) / seen[name][0].norm() for name in layers}
    return {called: [gaps[name][row].item() for name in layers] for row, called in enumerate(("the attack", "noise"))}
