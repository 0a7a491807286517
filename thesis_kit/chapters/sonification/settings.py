"""How large chapter 7 runs: the columns small, record and full, for the cohort trained here and for a real network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from thesis_kit.data.speech import VOICES, WORDS

SIX, ONE = (0, 1, 2, 3, 4, 5), (0,)


@dataclass(frozen=True)
class Listening:
    """Chapter 7, one recognizer. ``member`` is of the zoo, ``seeds`` are independently trained ones, or one where there
    is one; each has a twin of the same architecture with random weights of the same seed.

    Layers are asked about every one of ``words`` by every one of ``voices`` at every one of ``pitches`` (the
    synthesizer's settings) and at one ``rate`` in words a minute. Units are asked about ``all_words`` at the pitch
    ``plain``, and clips of that pitch are raised by ``semitones``.

    ``rebuilt`` clips are rebuilt from every layer in ``rebuild_steps`` steps. Optimal sounds of ``seconds`` are made of
    ``units_each`` units a layer, in ``optimum_steps`` steps of ``copies`` copies. Another network, ``judge``, says
    which word is heard, and which phones by its ``reader_layer``, after clips by ``reader_voices``.

    ``speakers`` is a member that was trained to tell speakers apart, and is asked the same of; empty for none.
    """

    member: str = "jasper-speech"
    seeds: tuple[int, ...] = SIX
    data: str = "speech.v1"
    words: tuple[str, ...] = WORDS[::2]
    voices: tuple[str, ...] = tuple(voice for part in VOICES.values() for voice in part)
    pitches: tuple[int, ...] = (30, 50, 70, 90)
    rate: int = 160
    all_words: tuple[str, ...] = WORDS
    plain: int = 50
    semitones: float = 5.0
    judge: str = "whisper-tiny.en"
    rebuilt: int = 40
    rebuild_steps: int = 300
    reader_voices: tuple[str, ...] = VOICES["train"][::2]
    reader_layer: str = "blocks.1"
    units_each: int = 64
    seconds: float = 0.768
    optimum_steps: int = 200
    copies: int = 1
    speakers: str = ""


_SMALL = Listening(
    words=WORDS[::8], all_words=WORDS[::4], voices=VOICES["test"] + VOICES["validation"], pitches=(30, 70)
)
SONIFICATION = MappingProxyType({"small": _SMALL, "record": Listening(), "full": Listening()})
REAL = MappingProxyType(
    {
        size: replace(table, member="whisper-tiny.en", seeds=ONE, judge="jasper-speech", speakers="resemblyzer")
        for size, table in SONIFICATION.items()
    }
)
TABLES = MappingProxyType({"sonification": SONIFICATION, "sonification on a real network": REAL})
