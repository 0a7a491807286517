"""Chapter 7's arms: one for each question and network, in the arena of a cohort trained here and in that of Whisper.

Arms are named question@network, alike in both arenas: ``trained`` is the recognizer, ``random`` its architecture with
random weights; ``speakers`` is another network, trained to tell speakers apart, and ``speakers-random`` its twin.
``probe`` asks what can be read off each layer: pitch, speaker, word, and how far voices are apart; ``edit`` how far
units move when the pitch is raised; ``units`` whether they detect phones or words; ``metamers`` what is left in a sound
that a layer takes for a clip; ``optima`` how many phones a unit's optimal sound holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from thesis_kit import sonification
from thesis_kit.chapters.sonification import layer_measures as measures
from thesis_kit.chapters.sonification.made_sounds import metamers, of_first, of_last, optima
from thesis_kit.chapters.sonification.settings import REAL, SONIFICATION, Listening
from thesis_kit.chapters.sonification.world import World, said
from thesis_kit.data.speech import crossed
from thesis_kit.ledger.arm import Arm, Experiment, pick

RANDOM, TRAINED = "random", "trained"
SPEAKERS, SPEAKERS_RANDOM = "speakers", "speakers-random"
NAMES = {TRAINED: "the trained network", RANDOM: "random weights", SPEAKERS: "a network trained for speakers",
         SPEAKERS_RANDOM: "that network's random weights"}  # fmt: skip
_CLIPS = ("member", "data", "voices", "rate")

FROM_PROBES = {  # number → how it is made, and of which measure
    "pitch_before": (measures.most_before, "pitch"), "pitch_last": (measures.last_above_zero, "pitch"),
    "speaker_first": (measures.first, "speaker"), "speaker_last": (measures.last, "speaker"),
    "speaker_rest_first": (measures.first, "speaker_rest"), "speaker_rest_last": (measures.last, "speaker_rest"),
    "content_first": (measures.first, "content"), "content_last": (measures.last, "content"),
    "apart_first": (measures.first, "apart"), "apart_last": (measures.last, "apart"),
}  # fmt: skip

FROM_ENDS = {"speaker_shallowest": (of_first, "speaker"), "speaker_deepest": (of_last, "speaker")}
FROM_EDITS = {"stays": (measures.stayed, "change"), "fades": (measures.faded, "change")}
FROM_UNITS = {
    "gap_first": (measures.first, "gap"), "gap_last": (measures.last, "gap"),
    "phone_peak": (measures.peak, "phone"), "word_peak": (measures.peak, "word"),
}  # fmt: skip


def probe(world: World) -> dict[str, Any]:
    """What can be read off each layer, for every word by every voice."""
    return _probed(world, FROM_PROBES)


def probe_for_speakers(world: World) -> dict[str, Any]:
    """The same of a network of few layers, whose first and last are compared as they are."""
    return _probed(world, FROM_PROBES | FROM_ENDS)


def _probed(world: World, makers: Mapping[str, tuple[measures.Maker, str]]) -> dict[str, Any]:
    s = world.settings
    names, tables = measures.by_layer(world.subject, world.clips, len(s.voices), len(s.words))
    return {
        "group": f"{s.data}/{len(s.voices)} voices/{len(s.words)} words",
        **measures.record_by_layer(names, tables, makers, len(names) - 1),
        "outcomes": {"named": (tables["content"][1:] > 0.5).flatten().long().tolist()},
    }


def edit(world: World) -> dict[str, Any]:
    """How far units move when the same words are said higher, by layer, in units of how far clips are apart."""
    s, model = world.settings, world.subject
    names, clips = measures.unit_sites(model), said(crossed(s.words, s.voices, (s.plain,), (s.rate,)))
    moved = sonification.change(model, clips, sonification.edited(clips, semitones=s.semitones), names)
    rows = torch.stack([moved[name] for name in names]).double()
    return {
        "group": f"{s.data}/{len(s.voices)} voices/{len(s.words)} words/{s.semitones:g} semitones",
        **measures.record_by_layer(names, {"change": rows}, FROM_EDITS, len(names)),
        "outcomes": {"moved": (rows > 0.5).flatten().long().tolist()},
    }


def units(world: World) -> dict[str, Any]:
    """What units detect, and where phones and words can be read best, for every voice."""
    s, model = world.settings, world.subject
    clips = said(crossed(s.all_words, s.voices, (s.plain,), (s.rate,)))
    names, tables = measures.unit_sites(model), measures.units_by_layer(model, clips, len(s.voices))
    return {
        "group": f"{s.data}/{len(s.voices)} voices/of {len(s.all_words)} words each",
        **measures.record_by_layer(names, tables, FROM_UNITS, len(names)),
        "outcomes": {"phones": (tables["gap"] > 0).flatten().long().tolist()},
    }


def arms(s: Listening) -> tuple[Arm, ...]:
    """All arms of one recognizer and its twin, the cheap ones first."""
    fixed = len(s.seeds) == 1

    def both(question: str, title: str, how: Callable, *names: str, units: tuple[str, ...], judged: bool = False,
             on: tuple[str, ...] = (TRAINED, RANDOM)) -> list[Arm]:  # fmt: skip
        found = []
        for which in on:
            names = (*names, "judge") if judged and "judge" not in names else names
            settings = pick(s, *_CLIPS, *names, untrained=which == RANDOM)
            networks = tuple(n for n in (s.member if fixed else "", s.judge if judged else "") if n)
            cohorts = () if fixed or which == RANDOM else (s.member,)
            drawn = units if fixed else ("network", *units)
            rests = {"data": (s.data,), "networks": networks, "cohorts": cohorts, "units": drawn}
            found.append(
                Arm(f"{question}@{which}", f"{NAMES[which]} ({title})", World, how, settings, s.seeds, **rests)
            )
        return found

    pairs, edited = ("voice", "word"), ("plain", "semitones")
    return (
        *both("edit", "raised pitch", edit, "words", *edited, units=pairs),
        *both("probe", "probes", probe, "words", "pitches", units=pairs),
        *both("units", "units", units, "all_words", "plain", units=("voice",)),
        *both("metamers", "metamers", metamers, "words", "pitches", "rebuilt", "rebuild_steps",
              judged=True, units=("clip",), on=(TRAINED,)),
        *both("optima", "optimal sounds", optima, "words", "plain", "reader_voices", "reader_layer", "units_each",
              "seconds", "optimum_steps", "copies", judged=True, units=("unit",)),
        *_of_speakers(s),
    )  # fmt: skip


def _of_speakers(s: Listening) -> tuple[Arm, ...]:
    """What can be read off the network that was trained for speakers, and off its twin, where there is such a one."""
    if not s.speakers:
        return ()
    found = []
    for which in (SPEAKERS, SPEAKERS_RANDOM):
        settings = pick(replace(s, member=s.speakers), *_CLIPS, "words", "pitches", untrained=which == SPEAKERS_RANDOM)
        rests = {"data": (s.data,), "networks": (s.speakers,), "units": ("voice", "word")}
        name, title = f"probe@{which}", f"{NAMES[which]} (probes)"
        found.append(Arm(name, title, World, probe_for_speakers, settings, (0,), **rests))
    return tuple(found)


EXPERIMENTS = {
    "speech": Experiment("sonification", "speech", arms(SONIFICATION["record"])),
    "real": Experiment("sonification", "real", arms(REAL["record"])),
}
