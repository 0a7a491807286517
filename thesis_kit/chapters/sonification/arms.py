"""Chapter 7's arms: one for each question and network, in the arena of a cohort trained here and in that of Whisper.

Arms are named question@network, alike in both arenas: ``trained`` is the recognizer, ``random`` its architecture with
random weights. ``probe`` asks what can be read off each layer: pitch, speaker, word, and how far voices are apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from thesis_kit.chapters.sonification import layer_measures as measures
from thesis_kit.chapters.sonification.settings import REAL, SONIFICATION, Listening
from thesis_kit.chapters.sonification.world import World
from thesis_kit.ledger.arm import Arm, Experiment, pick

RANDOM, TRAINED = "random", "trained"
NAMES = {TRAINED: "the trained network", RANDOM: "its architecture with random weights"}
_CLIPS = ("member", "data", "words", "voices", "pitches", "rate")

FROM_PROBES = {  # number → how it is made, and of which measure
    "pitch_before": (measures.most_before, "pitch"), "pitch_last": (measures.last_above_zero, "pitch"),
    "speaker_first": (measures.first, "speaker"), "speaker_last": (measures.last, "speaker"),
    "speaker_rest_first": (measures.first, "speaker_rest"), "speaker_rest_last": (measures.last, "speaker_rest"),
    "content_first": (measures.first, "content"), "content_last": (measures.last, "content"),
    "apart_first": (measures.first, "apart"), "apart_last": (measures.last, "apart"),
}  # fmt: skip


def probe(world: World) -> dict[str, Any]:
    """What can be read off each layer, for every word by every voice."""
    s = world.settings
    names, tables = measures.by_layer(world.subject, world.clips, len(s.voices), len(s.words))
    return {
        "group": f"{s.data}/{len(s.voices)} voices/{len(s.words)} words",
        **_by_layer(names, tables, measures.made(FROM_PROBES, tables)),
        "outcomes": {"named": (tables["content"][1:] > 0.5).flatten().long().tolist()},
    }


def _by_layer(names: list[str], tables: dict[str, Tensor], numbers: dict[str, float]) -> dict[str, Any]:
    """What a record has of tables by layer: a number an item under one layer after the other, without the spectrum."""
    return {
        "n": next(iter(tables.values()))[1:].numel(),
        "values": {what: _column(table[1:]) for what, table in tables.items()},
        "scalars": {name: round(number, 6) for name, number in numbers.items()},
        "curves": {what: measures.curve(table) for what, table in tables.items()},
        "chosen": {"layers": names},
    }


def _column(table: Tensor) -> list[float]:
    return [round(value, 5) for value in table.flatten().tolist()]


def arms(s: Listening) -> tuple[Arm, ...]:
    """All arms of one recognizer and its twin, the cheap ones first."""
    fixed = len(s.seeds) == 1

    def both(question: str, title: str, how: Callable, *names: str, units: tuple[str, ...]) -> list[Arm]:
        found = []
        for on, called in NAMES.items():
            settings = pick(s, *_CLIPS, *names, untrained=on == RANDOM)
            drawn = units if fixed else ("network", *units)
            data, networks = (s.data,), (s.member,)
            title_of = f"{title}, {called}"
            found.append(Arm(f"{question}@{on}", title_of, World, how, settings, s.seeds, data, networks, units=drawn))
        return found

    return (*both("probe", "what can be read off layers", probe, units=("voice", "word")),)


EXPERIMENTS = {
    "speech": Experiment("sonification", "speech", arms(SONIFICATION["record"])),
    "real": Experiment("sonification", "real", arms(REAL["record"])),
}
