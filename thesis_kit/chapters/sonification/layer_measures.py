"""What chapter 7 measures of one recognizer: what can be read off each layer, for every word by every voice.

A number is first of all one of a layer, a voice and a word (its clips of several pitches go together); what a claim
compares, such as the first third of layers with the last, is made from means over voices and words, here by functions
that take means by layer and are used for the number itself and again for its interval. The spectrum that goes in is no
layer of the network and counts in no third; curves begin with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit import sonification
from thesis_kit.data.speech import Clip
from thesis_kit.features import scores
from thesis_kit.recording import sites
from thesis_kit.sonification.probes import deviations, group_numbers

Maker = Callable[[np.ndarray], np.ndarray]
PROBES = ("pitch", "speaker", "speaker_rest", "content", "apart")


# From means by layer to what claims compare: (terms, …, layers) → (terms, …)


def first(means: np.ndarray) -> np.ndarray:
    """The mean over the first third of layers, rounded up to whole layers."""
    return means[..., : _third(means)].mean(axis=-1)


def last(means: np.ndarray) -> np.ndarray:
    """The mean over the last third of layers."""
    return means[..., -_third(means) :].mean(axis=-1)


def most_before(means: np.ndarray) -> np.ndarray:
    """The largest layer's before the last third, at least 0."""
    return np.maximum(means[..., : -_third(means)].max(axis=-1), 0)


def last_above_zero(means: np.ndarray) -> np.ndarray:
    """The mean over the last third of layers, of which each counts as at least 0."""
    return last(np.maximum(means, 0))


def stayed(means: np.ndarray) -> np.ndarray:
    """The last third's mean over the first third's."""
    return last(means) / first(means)


def faded(means: np.ndarray) -> np.ndarray:
    """One minus that: what share of a change in the first third is gone in the last."""
    return 1 - stayed(means)


def peak(means: np.ndarray) -> np.ndarray:
    """The place of the largest layer, from 1; of several the first."""
    return means.argmax(axis=-1) + 1.0


def _third(means: np.ndarray) -> int:
    return math.ceil(means.shape[-1] / 3)


# What is read off a layer


def log_pitch(clips: Sequence[Clip]) -> Float[Tensor, " n"]:
    """Octaves of every clip's measured F0; where none was measured, the median of its voice at its setting."""
    octaves = torch.tensor([clip.f0 for clip in clips], dtype=torch.float64).log2()
    kinds = group_numbers([(clip.said.voice, clip.said.pitch) for clip in clips])
    for kind in kinds[octaves.isnan()].unique():
        own = kinds == kind
        octaves[own & octaves.isnan()] = octaves[own].nanmedian()
    if octaves.isnan().any():
        raise ValueError("no clip of a voice at a pitch has a measured F0: look at the clips")
    return octaves


def readings(features: Float[Tensor, "n u"], clips: Sequence[Clip]) -> dict[str, Float[Tensor, " n"]]:
    """What a layer's mean states say about clips, a number each.

    ``pitch`` within a voice and ``speaker`` are read by linear probes on words they were not fitted on (squared error
    as a share of R², and right or wrong), ``speaker_rest`` when F0 and its square have been regressed out; ``content``
    is the share of other voices whose one clip of the word is nearest among their clips of all words; ``apart`` as in
    the function of that name.
    """
    words, voices = [clip.text for clip in clips], [clip.voice for clip in clips]
    octaves, voice = log_pitch(clips), group_numbers(voices)
    inside = sonification.within(features.double(), voices)
    return {
        "pitch": sonification.probe(inside, sonification.within(octaves, voices), words).items,
        "speaker": sonification.probe(features, voice, words).items,
        "speaker_rest": sonification.probe(sonification.without(features, octaves), voice, words).items,
        "content": sonification.one_shot(features, words, voices).items,
        "apart": apart(features, words, voices),
    }


def apart(features: Float[Tensor, "n u"], words: Sequence[str], voices: Sequence[str]) -> Float[Tensor, " n"]:
    """Log of each clip's mean distance to its word by other voices over that to other words by its voice.

    Features are standardized. ``sonification.voices_meet`` is the same of means over all clips.
    """
    word, voice = group_numbers(words), group_numbers(voices)
    normal = features / deviations(features)
    gaps = torch.cdist(normal, normal).double()
    alike, own = word[:, None] == word, voice[:, None] == voice
    across, inside = ((gaps * kind).sum(dim=1) / kind.sum(dim=1) for kind in (alike & ~own, ~alike & own))
    return (across / inside).log()


def by_layer(
    model: nn.Module, clips: Sequence[Clip], voices: int, words: int
) -> tuple[list[str], dict[str, Float[Tensor, "l v w"]]]:
    """The names of layers, the spectrum first, and by measure a number a layer, voice and word.

    Args:
        clips: every word by every voice, as often each; voices slowest.
    """
    names = sonification.layers(model)
    pooled = sonification.pooled(model, clips, names)
    found = [readings(pooled[name], clips) for name in names]
    tables = {what: torch.stack([layer[what] for layer in found]) for what in PROBES}
    return names, {what: table.view(len(names), voices, words, -1).mean(dim=3) for what, table in tables.items()}


# What units detect, and what they notice


def unit_sites(model: nn.Module) -> list[str]:
    """Where a network's units are, from the first layer to the last: hidden units of blocks that have such, else the
    layer's own; the spectrum is left out."""
    known = sites(model)
    return [f"{name}.hidden" if f"{name}.hidden" in known else name for name in sonification.layers(model)[1:]]


def detectors(
    a: Float[Tensor, "n u"], phones: Int[Tensor, " n"], words: Int[Tensor, " n"], voices: Int[Tensor, " n"]
) -> Float[Tensor, " v"]:
    """How much better units detect their best phone than their best word: mean difference of AUROC, a number a voice.

    Words are told apart among pieces of one phone, so that the phones of a word do not count for it. Both are chosen on
    every second voice and judged on each of the others, and the other way round.

    Args:
        a: mean activations of pieces, a phone each. phones, words, voices: of the pieces, as numbers from 0.
    """
    found = torch.zeros(int(voices.max()) + 1, dtype=torch.float64)
    by_phone, by_word = [], []
    for voice in range(len(found)):
        own = voices == voice
        one, other = (F.one_hot(of[own], int(of.max()) + 1).bool() for of in (phones, words))
        by_phone.append(scores.auroc(a[own], one))
        by_word.append(scores.auroc(a[own], other, strata=phones[own]))
    best = [torch.stack(tables) for tables in (by_phone, by_word)]  # (v, u, k)
    for judged in (slice(0, None, 2), slice(1, None, 2)):
        choosing = slice(1 - judged.start, None, 2)
        phone, word = (
            table[judged].gather(2, _best(table[choosing]).expand(len(table[judged]), -1, -1))[..., 0] for table in best
        )
        found[judged] = (phone - word).nanmean(dim=1)
    return found


def _best(tables: Float[Tensor, "v u k"]) -> Int[Tensor, "1 u 1"]:
    """The concept that each unit detects best over voices."""
    return tables.nanmean(dim=0).nan_to_num(nan=-1.0).argmax(dim=1)[None, :, None]


def units_by_layer(model: nn.Module, clips: Sequence[Clip], voices: int) -> dict[str, Float[Tensor, "l v"]]:
    """By layer and voice: ``gap`` (``detectors``), the accuracy of a linear probe for the phones of held-out voices
    (``phone``), and of words from one clip each by another voice (``word``); the spectrum, first of the layers of both
    probes, has no units and no gap.

    Args:
        clips: as many of every voice; voices slowest.
    """
    parts = sonification.pieces(clips, "phone")
    phones, spoken, of_voice = (
        group_numbers(of)
        for of in ([p.name for p in parts], [clips[p.clip].text for p in parts], [clips[p.clip].voice for p in parts])
    )
    found: dict[str, list[Tensor]] = {"gap": [], "phone": [], "word": []}
    for name in sonification.layers(model):
        kept = sonification.states(model, clips, name)
        over = sonification.over_pieces(kept, clips, parts)[name]
        right = sonification.probe(over, phones, of_voice.tolist()).items
        found["phone"].append(torch.stack([right[of_voice == voice].mean() for voice in range(voices)]))
        pooled = torch.stack([row.mean(dim=0) for row in kept[name]])
        shares = sonification.one_shot(pooled, [clip.text for clip in clips], [clip.voice for clip in clips]).items
        found["word"].append(shares.view(voices, -1).mean(dim=1))
    for name in unit_sites(model):
        over = sonification.over_pieces(sonification.states(model, clips, name), clips, parts)[name]
        found["gap"].append(detectors(over, phones, spoken, of_voice))
    return {what: torch.stack(rows) for what, rows in found.items()}


def curve(table: Float[Tensor, "l ..."], first: int) -> list[list[float]]:
    """Means by layer as points, the first layer at a place."""
    means = table.flatten(1).mean(dim=1).tolist()
    return [[float(place), round(value, 6)] for place, value in enumerate(means, start=first)]


def made(makers: Mapping[str, tuple[Maker, str]], tables: Mapping[str, Float[Tensor, "l ..."]]) -> dict[str, float]:
    """Numbers made from tables by layer: name → a maker and the table that it is made from."""
    means = {what: table.flatten(1).mean(dim=1).numpy()[None] for what, table in tables.items()}
    return {name: float(maker(means[what])[0]) for name, (maker, what) in makers.items()}


def record_by_layer(
    names: list[str], tables: Mapping[str, Tensor], makers: Mapping[str, tuple[Maker, str]], layers: int
) -> dict[str, Any]:  # fmt: skip
    """What a record has of tables by layer: a number an item under one layer after the other.

    A table that is longer than there are ``layers`` begins with the spectrum, which is drawn and judged by nothing.
    """
    starts = {what: 1 - len(table) + layers for what, table in tables.items()}
    curves = {what: curve(table, starts[what]) for what, table in tables.items()}
    tables = {what: table[-layers:] for what, table in tables.items()}
    return {
        "n": next(iter(tables.values())).numel(),
        "values": {what: _column(table) for what, table in tables.items()},
        "scalars": {name: round(number, 6) for name, number in made(makers, tables).items()},
        "curves": curves,
        "chosen": {"layers": names},
    }


def _column(table: Tensor) -> list[float]:
    return [round(value, 5) for value in table.flatten().tolist()]
