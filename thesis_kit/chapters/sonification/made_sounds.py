"""Chapter 7's arms that make sounds: metamers of clips from every layer, and optima of units of the outer layers.

What came of it is said by another recognizer: which word a metamer is heard as, how many phones an optimum holds. A
synthesis is kept as it goes, so that a run that was stopped goes on inside of a cell.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit import sonification
from thesis_kit.chapters.sonification import layer_measures as measures
from thesis_kit.chapters.sonification.judges import best_word, phone_reader
from thesis_kit.chapters.sonification.world import World, said, taught
from thesis_kit.data.speech import RATE, Clip, Utterance, crossed, median_pitch

# From means by layer to what claims compare


def of_first(means: np.ndarray) -> np.ndarray:
    """The first layer's."""
    return means[..., 0]


def of_last(means: np.ndarray) -> np.ndarray:
    """The last layer's."""
    return means[..., -1]


def early_half(means: np.ndarray) -> np.ndarray:
    """The mean over the first half, where layers of the first and the last third stand behind each other."""
    return means[..., : means.shape[-1] // 2].mean(axis=-1)


def late_half(means: np.ndarray) -> np.ndarray:
    """The mean over the other half."""
    return means[..., means.shape[-1] // 2 :].mean(axis=-1)


FROM_METAMERS = {
    "tune_first": (of_first, "tune"), "tune_last": (of_last, "tune"), "heard_last": (of_last, "heard"),
    "heard_clip": (of_last, "clip"), "distance_last": (of_last, "distance"),
}  # fmt: skip
FROM_OPTIMA = {"phones_first": (early_half, "phones"), "phones_last": (late_half, "phones")}


# Metamers


def rebuilt_clips(settings: Any) -> list[Clip]:
    """So many clips, by all voices and at all pitches in turn, each of another word while there are some."""
    s = settings
    return said([
        Utterance(s.words[7 * place % len(s.words)], s.voices[place % len(s.voices)], s.pitches[place % len(s.pitches)],
                  s.rate)
        for place in range(s.rebuilt)
    ])  # fmt: skip


def standard_tunes(octaves: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Pitches with mean 0 and mean square 1, so that the mean product of two is their correlation; 0 for what has none.

    What has none counts in the mean square's number, so that few pitches cannot make a large correlation.
    """
    known = ~octaves.isnan()
    if not known.any():
        return torch.zeros_like(octaves)
    centered = torch.where(known, octaves - octaves[known].mean(), 0.0)
    size = centered.square().mean().sqrt()
    return centered / size if size > 1e-9 else torch.zeros_like(octaves)


def tune(waveforms: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, " n"]:
    """Octaves of each sound's measured F0, NaN where none is found."""
    found = [median_pitch(waveform.double().numpy(), RATE) for waveform in waveforms]
    return torch.tensor(found, dtype=torch.float64).log2()


def metamers(world: World) -> dict[str, Any]:
    """Sounds rebuilt from every layer's states of clips: their F0 beside the clip's, and the word that is heard."""
    s, model = world.settings, world.subject
    clips, names, judge = rebuilt_clips(s), sonification.layers(model)[1:], taught(s.judge, 0)
    originals = [clip.waveform for clip in clips]
    asked = torch.tensor([s.words.index(clip.text) for clip in clips])
    right = (best_word(judge, originals, s.words) == asked).double()
    tunes, rows = standard_tunes(tune(originals)), {"tune": [], "heard": [], "clip": [], "distance": []}
    for name in names:
        about = world.about("metamers", *s, layer=name)
        with world.memory.place(about, ".sounds") as path:
            made = sonification.resynthesize(
                model, clips, name, steps=s.rebuild_steps, seeds=(world.seed,), checkpoint=path, progress=False
            )
        sounds = [own[0] for own in made.waveforms]
        rows["tune"].append(standard_tunes(tune(sounds)) * tunes)
        rows["heard"].append((best_word(judge, sounds, s.words) == asked).double())
        rows["clip"].append(right)
        rows["distance"].append(made.distances[:, 0].double())
    tables = {what: torch.stack(columns) for what, columns in rows.items()}
    record = measures.record_by_layer(names, tables, FROM_METAMERS, len(names))
    outcomes = {what: [round(value) for value in record["values"].pop(what)] for what in ("heard", "clip")}
    return {"group": f"{s.data}/{len(clips)} clips", **record, "outcomes": outcomes}


# Optima


def outer_sites(model: torch.nn.Module) -> list[str]:
    """Where units of the first third of layers are, then those of the last."""
    names = measures.unit_sites(model)
    third = math.ceil(len(names) / 3)
    return [*names[:third], *names[-third:]]


def optima(world: World) -> dict[str, Any]:
    """How many different phones are read from sounds that excite a unit most, for units spread evenly over a layer."""
    s, model = world.settings, world.subject
    clips = said(crossed(s.words, s.reader_voices, (s.plain,), (s.rate,)))
    reader, names, rows = phone_reader(taught(s.judge, 0), s.reader_layer, clips), outer_sites(model), []
    for name in names:
        width = sonification.states(model, clips[:1], name)[name][0].shape[1]
        units = torch.linspace(0, width - 1, s.units_each).round().long().tolist()
        about = world.about("optima", *s, layer=name)
        with world.memory.place(about, ".sounds") as path, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a unit without a gradient keeps its faint noise: no phones
            made = sonification.sonify(model, name, units, seconds=s.seconds, steps=s.optimum_steps, copies=s.copies,
                                       seed=world.seed, checkpoint=path, progress=False)  # fmt: skip
        rows.append(torch.tensor([float(len(set(told))) for told in reader.read([*made.waveforms])]))
    tables = {"phones": torch.stack(rows).double()}
    return {
        "group": f"{s.data}/{s.units_each} units",
        **measures.record_by_layer(names, tables, FROM_OPTIMA, len(names)),
        "outcomes": {"speech": (tables["phones"] > 0).flatten().long().tolist()},
    }
