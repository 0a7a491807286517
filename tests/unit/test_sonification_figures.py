"""Chapter 7's figures: what stands in a frame, that every sound has words, and what the notebook computes for them."""

from __future__ import annotations

import torch

from thesis_kit.chapters.sonification import figures, live
from thesis_kit.data.speech import from_samples, say_all
from thesis_kit.data.speech.synthesizer import Utterance
from thesis_kit.models.speech import Jasper

WORDS = {"label": "Figure 7.1", "caption": "A figure."}
TONE = 0.1 * torch.sin(torch.arange(4_800) / 8)


def network() -> Jasper:
    torch.manual_seed(0)
    return Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()


def unit(number: int) -> live.UnitSounds:
    piece = live.Strongest(TONE[:1_600], "i:", "tree", 3, 5)
    return live.UnitSounds(number, piece, piece, TONE, "tr")


def test_the_map_has_a_frame_a_layer_and_three_sounds_a_unit():
    layers = [live.LayerSounds(name, [unit(0), unit(3)], [unit(1)]) for name in ("a", "b")]
    shown = figures.sonic_map(layers, {"a": "the first"}, **WORDS)
    assert shown.html.count('class="tk-frame"') == 2
    assert shown.html.count('class="tk-play"') == 2 * 3 * 3
    assert shown.html.count("window.tkPlay=") == 1
    assert 'aria-label="Play: unit 3, strongest phone, /iː/ in tree"' in shown.html
    assert "made: “tr”" in shown.html
    assert "Layer 1 of 2: the first." in shown.html
    assert live.letters_by_layer(layers) == {"trained": [2.0, 2.0], "random weights": [2.0, 2.0]}


def test_a_word_from_layers_and_a_bar_of_pitch_say_what_is_heard():
    held = [live.FromLayer(name, [TONE, TONE], [0.0, 0.1], [100.0, float("nan")], ["yes", ""], judged)
            for name, judged in (("", ["yes", "no"]), ("a", None))]  # fmt: skip
    shown = figures.same_word(held, ["low", "high"], {"a": "the first"}, **WORDS)
    assert shown.html.count('class="tk-play"') == 4
    assert "pitch 100 Hz\nit writes “yes”\nWhisper: yes" in shown.html
    assert "no pitch found" in shown.html
    edits = [live.PitchEdit(step, TONE, 100.0, "yes", {"trained": [0.1, 0.0], "random weights": [0.2, 0.3]})
             for step in (-1, 0, 5)]  # fmt: skip
    shown = figures.pitch_bar(edits, ["a", "b"], {"a": "the first convolution"}, **WORDS)
    for said in ("1 semitone lower", "as it was said", "5 semitones higher", "first conv.", "random weights"):
        assert said in shown.html


def test_curves_are_said_in_words():
    lines = {what: [0.1, -0.2, 0.3] for what in ("pitch", "speaker", "content")}
    shown = figures.probe_curves({"small": {"trained": lines, "random": lines}}, **WORDS)
    assert "small, pitch within a voice (R²), trained: 0.10, 0.00, 0.30" in shown.html
    shown = figures.travel_figure({"the attack": [0.1, 0.2], "noise": [0.1, 0.0]}, ["a", "b"], {}, **WORDS)
    assert "the attack: 0.10, 0.20" in shown.html


def test_what_the_notebook_computes_fits_the_figures():
    model, clips = network(), say_all([Utterance(word, "en-us", 50, 160) for word in ("yes", "no")])
    found = live.sonic_layers(model, model, clips, ["blocks.0"], each=2, controls=1, steps=1, seconds=0.1)
    assert [one.unit for one in found[0].units] == [0, 7]
    assert found[0].units[0].optimum.abs().max() > 0
    held = live.from_layers(model, clips, ["blocks.0"], None, steps=1)
    assert [len(one.sounds) for one in held] == [2, 2]
    (edit,) = live.pitch_edits({"trained": model}, clips, [2], ["blocks.0"])
    assert edit.pitch > clips[0].f0
    moved = live.travels(model, clips[0], 0.9 * clips[0].waveform, ["front"])
    assert set(moved) == {"the attack", "noise"}
    assert live.loudness(from_samples(torch.zeros(100), 16_000).waveform) == 0
