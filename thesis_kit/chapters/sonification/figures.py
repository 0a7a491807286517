"""What chapter 7's notebook shows and plays: the sonic map, one word from every layer, a bar of pitch, curves by depth.

Sounds stand behind buttons that show their spectrum; every one has words for who cannot hear or see it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from torch import Tensor

from thesis_kit.chapters.sonification.live import LayerSounds, Strongest, UnitSounds
from thesis_kit.data.speech import RATE
from thesis_kit.show.figures import card
from thesis_kit.show.pictures import grid
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.shown import Shown
from thesis_kit.show.sound_buttons import PLAY, sound_button

# eSpeak NG's names of phones as the International Phonetic Alphabet writes them.
_IPA = {
    "I": "ɪ", "3": "ɚ", "oU": "oʊ", "aI": "aɪ", "E": "ɛ", "@": "ə", "a": "æ", "i:": "iː", "@L": "əl", "g": "ɡ",
    "u:": "uː", "aU": "aʊ", "V": "ʌ", "eI": "eɪ", "S": "ʃ", "a#": "ɐ", "0": "ɒ", "tS": "tʃ", "A@": "ɑː", "dZ": "dʒ",
    "N": "ŋ", "o@": "oː", "t#": "ɾ", "O:": "ɔː", "O@": "ɔː", "i@": "iə", "T": "θ", "3:": "ɜː", "e@": "eə",
    "aI@": "aɪə", "O2": "ɔː",
}  # fmt: skip
_TRACKS = "repeat(auto-fill,minmax(min(100%,290px),1fr))"


def phone(name: str) -> str:
    """A phone between slashes, as dictionaries write it."""
    return f"/{_IPA.get(name, name)}/"


def sonic_map(
    layers: Sequence[LayerSounds], names: Mapping[str, str], *, label: str, caption: str, start: int = -1
) -> Slider:
    """Units by depth under a slider, each to be heard: its strongest phone, its strongest word, the sound made for it.

    Args:
        layers: from the first. names: what layers are called. start: index of the layer shown first.
    """
    longest = max(len(one.optimum) for layer in layers for one in layer.units) / RATE

    def render(number: float) -> tuple[str, str]:
        found = layers[round(number) - 1]
        called = names.get(found.layer, found.layer)
        groups = {f"units of {called}": found.units, "the same layer with random weights": found.untrained}
        parts = [_group(title, units, longest) for title, units in groups.items()]
        return "".join(parts), f"Layer {round(number)} of {len(layers)}: {called}."

    numbers = tuple(range(1, len(layers) + 1))
    shown = slider(render, numbers, start=start % len(layers), name="layer", label=label, caption=caption,
                   alt="Units of a layer, each with three sounds.")  # fmt: skip
    return playing(shown)


def playing(shown: Slider) -> Slider:
    """A slider over frames with sounds: the script that plays them is in the figure once."""
    return Slider(PLAY + shown.html, shown.text, shown.render, shown.values, shown.start)


def with_sounds(inner: str, *, label: str, caption: str) -> Shown:
    """A figure with sounds in it."""
    return Shown(PLAY + card(inner, label=label, caption=caption), f"{label}. {caption}")


def _group(title: str, units: Sequence[UnitSounds], longest: float) -> str:
    heading = f'<div style="font-weight:600;margin:8px 0 2px">{html.escape(title)}</div>'
    return heading + grid((_unit(one, longest) for one in units), _TRACKS, widest=900, alt=title)


def _unit(one: UnitSounds, longest: float) -> str:
    """A unit's number over three buttons side by side."""
    said = f"unit {one.unit}"
    heard = f"“{one.heard}”" if one.heard else "nothing"
    buttons = [
        _piece(one.phone, f"{phone(one.phone.name)} in {one.phone.word}", f"{said}, strongest phone", longest),
        _piece(one.word, one.word.word, f"{said}, strongest word", longest),
        sound_button(one.optimum, f"{said}, made for it, heard as {heard}", words=f"made: {heard}", seconds=longest),
    ]
    cells = "".join(f"<div>{button}</div>" for button in buttons)
    look = "display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:4px"
    return f'<div style="margin-bottom:6px"><div>{html.escape(said)}</div><div style="{look}">{cells}</div></div>'


def _piece(piece: Strongest, words: str, said: str, longest: float) -> str:
    below = f"{words} ({piece.agree}/{piece.of})"
    return sound_button(piece.waveform, f"{said}, {words}", words=below, seconds=longest)


def sounds_in_a_row(sounds: Mapping[str, Tensor], *, label: str, caption: str, height: int = 90) -> Shown:
    """Some sounds side by side on one scale of time: what is heard → its samples."""
    longest = max(len(sound) for sound in sounds.values()) / RATE
    cells = [sound_button(sound, said, words=said, seconds=longest, height=height) for said, sound in sounds.items()]
    tracks = "repeat(auto-fit,minmax(min(100%,150px),1fr))"
    return with_sounds(grid(cells, tracks, widest=760, alt=caption), label=label, caption=caption)
