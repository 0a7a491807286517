"""What chapter 7's notebook shows and plays: the sonic map, one word from every layer, a bar of pitch, curves by depth.

Sounds stand behind buttons that show their spectrum; every one has words for who cannot hear or see it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from torch import Tensor

from thesis_kit.chapters.sonification.live import FromLayer, LayerSounds, PitchEdit, Strongest, UnitSounds
from thesis_kit.data.speech import RATE
from thesis_kit.show.figures import COLORS, canvas, card, present, style
from thesis_kit.show.pictures import grid, words
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.shown import Shown
from thesis_kit.show.sound_buttons import PLAY, sound_button

# eSpeak NG's names of phones as the International Phonetic Alphabet writes them.
_IPA = {
    "I": "ɪ", "3": "ɚ", "oU": "oʊ", "aI": "aɪ", "E": "ɛ", "@": "ə", "a": "æ", "i:": "iː", "@L": "əl", "g": "ɡ",
    "U": "ʊ", "u:": "uː", "aU": "aʊ", "V": "ʌ", "eI": "eɪ", "S": "ʃ", "a#": "ɐ", "0": "ɒ", "tS": "tʃ", "A@": "ɑː",
    "dZ": "dʒ", "N": "ŋ", "o@": "oː", "t#": "ɾ", "O:": "ɔː", "O@": "ɔː", "i@": "iə", "T": "θ", "3:": "ɜː", "e@": "eə",
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


def _piece(piece: Strongest, name: str, said: str, longest: float) -> str:
    below = f"{name} ({piece.agree}/{piece.of})"
    return sound_button(piece.waveform, f"{said}, {name}", words=below, seconds=longest)


def sounds_in_a_row(sounds: Mapping[str, Tensor], *, label: str, caption: str, height: int = 90) -> Shown:
    """Some sounds side by side on one scale of time: what is heard → its samples."""
    longest = max(len(sound) for sound in sounds.values()) / RATE
    cells = [sound_button(sound, said, words=said, seconds=longest, height=height) for said, sound in sounds.items()]
    tracks = "repeat(auto-fit,minmax(min(100%,150px),1fr))"
    return with_sounds(grid(cells, tracks, widest=760, alt=caption), label=label, caption=caption)


def same_word(
    found: Sequence[FromLayer], voices: Sequence[str], names: Mapping[str, str], *, label: str, caption: str
) -> Slider:  # fmt: skip
    """One word by several voices as every layer holds it, under a slider that begins with the clips themselves.

    Args:
        found: the clips, then layers from the first. voices: what each voice is called. names: what layers are called.
    """
    longest = max(len(sound) for one in found for sound in one.sounds) / RATE

    def render(number: float) -> tuple[str, str]:
        one = found[round(number)]
        called = names.get(one.layer, one.layer) or "the clips"
        cells = []
        for place, (voice, sound) in enumerate(zip(voices, one.sounds, strict=True)):
            button = sound_button(sound, f"{voice}, {called}", words=voice, seconds=longest, height=110)
            cells.append(f"<div>{button}{_facts(one, place)}</div>")
        seen = grid(cells, "repeat(2,minmax(0,1fr))", widest=560, alt=f"The word from {called}")
        return seen, "The clips themselves." if not one.layer else f"From layer {round(number)}: {called}."

    shown = slider(render, tuple(range(len(found))), name="layer", label=label, caption=caption, start=0,
                   alt="The same word by two voices.")  # fmt: skip
    return playing(shown)


def _facts(one: FromLayer, place: int) -> str:
    """Lines below a sound: its pitch, and what two recognizers make of it."""
    pitch = one.pitches[place]
    lines = ["no pitch found" if pitch != pitch else f"pitch {pitch:.0f} Hz", f"it writes “{one.written[place]}”"]
    if one.judged is not None:
        lines.append(f"Whisper: {one.judged[place]}")
    return words("\n".join(lines))


def pitch_bar(
    edits: Sequence[PitchEdit], layers: Sequence[str], names: Mapping[str, str], *, label: str, caption: str
) -> Slider:
    """A bar that raises and lowers a voice: the word at that pitch, and how much each layer of the networks notices.

    Args:
        edits: from the lowest. layers: that were asked. names: what they are called.
    """
    longest = max(len(one.sound) for one in edits) / RATE
    most = max(value for one in edits for line in one.changes.values() for value in line)
    colors = dict(zip(edits[0].changes, ("blue", "gray"), strict=False))

    def render(semitones: float) -> tuple[str, str]:
        one = min(edits, key=lambda known: abs(known.semitones - semitones))
        said = _semitones(one.semitones)
        button = sound_button(one.sound, f"the word {said}", words=f"{one.pitch:.0f} Hz, heard as “{one.written}”",
                              seconds=longest, height=110)  # fmt: skip
        rows = ""
        for place, layer in enumerate(layers):
            values = {called: line[place] for called, line in one.changes.items()}
            rows += _row_of_bars(_short(names.get(layer, layer)), values, most, colors)
        legend = "".join(f'<span style="margin-right:1em"><span style="{_swatch(colors[called])}"></span> '
                         f"{html.escape(called)}</span>" for called in one.changes)  # fmt: skip
        right = f'<div role="group" aria-label="How far each layer moves">{rows}<div>{legend}</div></div>'
        tracks = "repeat(auto-fit,minmax(min(100%,220px),1fr))"
        return grid([f"<div>{button}</div>", right], tracks, widest=680, alt=said), f"The word {said}."

    shown = slider(render, tuple(one.semitones for one in edits), name="semitones", label=label, caption=caption,
                   start=len(edits) - 1, alt="A word at another pitch, and how far layers move.")  # fmt: skip
    return playing(shown)


def _short(name: str) -> str:
    """A layer's name where there is little room."""
    return name.removeprefix("the ").replace("convolution", "conv.")


def _semitones(number: float) -> str:
    if not number:
        return "as it was said"
    return f"{abs(number):g} semitone{'s' * (abs(number) != 1)} {'higher' if number > 0 else 'lower'}"


def _swatch(color: str) -> str:
    look = "display:inline-block;width:0.9em;height:0.9em;vertical-align:-0.1em"
    return f"background:var(--tk-{color},{COLORS[color]});{look}"


def _row_of_bars(layer: str, values: Mapping[str, float], most: float, colors: Mapping[str, str]) -> str:
    """A layer's name over a bar a network with its number."""
    cells = "".join(
        f'<div style="display:grid;grid-template-columns:1fr 2.6em;gap:4px;align-items:center"><div aria-hidden="true" '
        f'style="background:var(--tk-{colors[called]},{COLORS[colors[called]]});height:0.7em;min-width:1px;'
        f'width:{100 * value / max(most, 1e-9):.1f}%"></div><div>{value:.2f}</div></div>'
        for called, value in values.items()
    )
    look = "display:grid;grid-template-columns:6.5em 1fr;gap:4px"
    return f'<div style="{look}"><div>{html.escape(layer)}</div><div>{cells}</div></div>'


_READ = {"pitch": ("pitch within a voice (R²)", "blue", "o"), "speaker": ("speaker (share right)", "orange", "s"),
         "content": ("word (share right)", "green", "^")}  # fmt: skip


def probe_curves(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], *, label: str, caption: str
) -> Shown:
    """What can be read off every layer, a panel a network: "trained" in color and its "random" twin in gray.

    Args:
        panels: network → kind → measure → a number a layer, the spectrum first.
    """
    said = []
    with style():
        figure, axes = canvas(1, len(panels), size=(8, 4), sharey=True, squeeze=False)
        for axis, (called, lines) in zip(axes[0], panels.items(), strict=True):
            for what, (name, color, marker) in _READ.items():
                for kind, shade in (("random", "gray"), ("trained", color)):
                    line = [max(0.0, value) for value in lines[kind][what]]
                    look = {"color": COLORS[shade], "marker": marker, "linestyle": "-" if kind == "trained" else ":"}
                    axis.plot(range(len(line)), line, label=name if kind == "trained" else f"{name}, random", **look)
                    said.append(f"{called}, {name}, {kind}: {', '.join(f'{value:.2f}' for value in line)}")
            axis.set_title(called), axis.set_xlabel("layer, the spectrum at 0"), axis.set_ylim(-0.03, 1.05)
            axis.set_xticks(range(len(line)))
        handles, texts = axes[0, 0].get_legend_handles_labels()
        shown = [place for place, text in enumerate(texts) if not text.endswith("random")]
        figure.legend([handles[place] for place in shown], [texts[place] for place in shown],
                      loc="outside lower center", ncols=3)  # fmt: skip
    return present(figure, label=label, caption=caption, alt=f"What can be read, by layer. {'; '.join(said)}.")


def travel_figure(
    moved: Mapping[str, Sequence[float]], layers: Sequence[str], names: Mapping[str, str], *, label: str, caption: str
) -> Shown:  # fmt: skip
    """How far a perturbation moves every layer, and how far noise of its power does."""
    said = [f"{called}: {', '.join(f'{value:.2f}' for value in line)}" for called, line in moved.items()]
    with style():
        figure, axis = canvas(size=(7, 3.4))
        for (called, line), (color, marker) in zip(moved.items(), (("vermilion", "o"), ("gray", "x")), strict=True):
            axis.plot(range(len(line)), line, color=COLORS[color], marker=marker, label=called)
        axis.set_xticks(range(len(layers)), [_short(names.get(layer, layer)) for layer in layers])
        axis.set_ylabel("change, relative to the layer"), axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"Relative change by layer. {'; '.join(said)}.")
