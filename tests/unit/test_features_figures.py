"""Chapter 5's figures: what stands in a frame, what is said in words, and that nothing needs a kernel."""

from __future__ import annotations

import pytest
import timm
import torch

from thesis_kit import recording
from thesis_kit.chapters.features import figures
from thesis_kit.features import Triples
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import scalars_interval
from thesis_kit.show.unit_explorer import UnitExplorer

WORDS = {"label": "Figure 5.1", "caption": "A figure."}


def triple(called: str, count: int, **controls) -> Triples:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 3, 16, 16, generator=draw)
    index, value = torch.zeros(count, 3, dtype=torch.int64), torch.rand(count, 3, generator=draw)
    names = tuple(f"{called} {number}" for number in range(count))
    patterns = torch.rand(count, 3, 4, 4, generator=draw)
    return Triples("blocks.0.hidden", names, images[:, 0], value[:, 0], images, index, value, patterns, **controls)


def test_the_explorer_has_a_frame_a_block_and_the_controls_in_each():
    blocks = [triple("unit", 5, rotated=triple("direction", 2), untrained=triple("random", 2)) for _ in range(3)]
    shown = figures.explorer(blocks, **WORDS)
    assert shown.html.count('class="tk-frame"') == 3
    assert shown.html.count("<img") == 3 * (5 + 2 + 2)
    assert shown.html.count("random directions of the same layer") == 3 * 2  # heading, and the group's name
    assert '<input type="range" min="0" max="2" value="2" aria-label="block"' in shown.html
    assert 'alt="unit 4: optimum, 2 strong images, and where it fires in them"' in shown.html
    assert "http" not in shown.html
    assert figures.explorer([triple("unit", 1)] * 2, **WORDS).html.count("<img") == 2


def test_scores_and_tokens_are_said_in_words():
    def line(low, high):
        return [{"monosemanticity": low}, {"monosemanticity": high}]

    trained = {"hidden": line(0.1, 0.5), "hidden rotated": line(0.1, 0.45), "q": line(0.1, 0.3)}
    shown = figures.scores_figure(trained, {"hidden": line(0.0, 0.05)}, "monosemanticity", name="score", **WORDS)
    assert "hidden: 0.10 in the first block, 0.50 in the last" in shown.html
    assert "hidden, random directions: 0.10 in the first block, 0.45" in shown.html
    assert "random weights: 0.05 in the last" in shown.html
    shown = figures.tokens_figure({"alone": [0.0, 0.25, 1.0]}, {"alone": "patches dropped"}, **WORDS)
    assert "patches dropped: 0, 25, 100" in shown.html


def test_the_film_says_what_the_class_token_reads_after_each_block():
    read = [{"disk": 0.3, "ring": 0.2}, {"ring": 0.9, "disk": 0.1}]
    shown = figures.token_film(torch.rand(3, 16, 16), read, [torch.zeros(4, 4), torch.rand(4, 4)], **WORDS)
    assert "After 0 of 1 blocks the class token says disk." in shown.html
    assert "After 1 of 1 blocks the class token says ring." in shown.html
    assert "90%" in shown.html


def test_answers_stand_below_their_pictures():
    pictures = {"whole": torch.rand(3, 8, 8), "hole": torch.rand(3, 8, 8)}
    shown = figures.answers_grid(pictures, {"ViT": ["disk", "ring"]}, alt="Two pictures.", **WORDS)
    assert shown.html.count("<img") == 2
    places = [shown.html.index(text) for text in (">whole<", "ViT: disk", ">hole<", "ViT: ring")]
    assert places == sorted(places), "a picture's name and answers stand with it"
    with pytest.raises(ValueError, match="needs its alt"):
        figures.answers_grid(pictures, {"ViT": ["disk", "ring"]}, alt=" ", **WORDS)


def test_the_low_pass_slider_goes_from_coarse_to_fine():
    frames = {8: torch.rand(2, 3, 8, 8), 2: torch.rand(2, 3, 8, 8)}
    answers = {cutoff: {"ViT": [f"a{cutoff}", f"b{cutoff}"]} for cutoff in frames}
    shares = {2: {"ViT": 0.2}, 8: {"ViT": 0.95}}
    shown = figures.low_pass_slider(frames, answers, shares, **WORDS)
    assert shown.values == (2, 8)
    assert shown.html.index("ViT: b2") < shown.html.index("ViT: a8")
    assert "95%" in shown.html


def test_with_a_kernel_the_explorer_asks_the_network_about_any_unit():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=5
    ).eval()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ask = UnitExplorer(model, images, strongest=2, effort={"steps": 1, "copies": 1, "size": 16})
    assert ask.sites[0] == "blocks.0.hidden"
    seen = ask.answer("blocks.1.hidden", 7)
    assert seen.count("<img") == 4
    top = recording.top_examples(model, images, "blocks.1.hidden", 2, units=[7])
    assert all(f"{value:.2f}" in seen for value in top.value[0].tolist())
    assert ask.answer("blocks.1.hidden", 7, optimum=True).count("<img") == 5
    assert "numbers in [0, 47]" in ask.answer("blocks.1.hidden", 48)
    shown = figures.explorer([triple("unit", 1)] * 2, ask=ask, **WORDS)
    controls, answer = shown.live().children
    site, unit, draw = controls.children
    unit.value, site.value = 3, "blocks.1.q"
    assert "numbers in [0, 11]" not in answer.value
    assert "blocks.1.q, unit 3" in answer.value
    draw.click()
    assert "the image that excites it most" in answer.value
    unit.value = 99
    assert "numbers in [0, 11]" in answer.value


class Recorded(Result):
    """Numbers of networks by measure and arm, as a recording hands them out."""

    def __init__(self, **numbers):
        object.__setattr__(self, "_numbers", numbers)

    def scalars(self, measure: str, arm: str):
        return dict(enumerate(self._numbers[measure]))

    def mean(self, measure: str, arm: str):
        return scalars_interval(self._numbers[measure], ("network", "image"))


def test_every_network_of_a_cohort_has_its_line(miniature):
    shown = figures.locality_figure(miniature("features.scenes"), **WORDS)
    assert "correlation of maps with the object, trained: 0." in shown.html
    assert "correlation of maps with the object, random weights: 0." in shown.html
    assert "variance within images (%), trained: " in shown.html


def test_numbers_of_a_cohort_have_their_interval_over_networks():
    recorded = Recorded(alike=[0.4, 0.5, 0.6], below=[-0.2, -0.1], one=[0.25], none=[-0.001, 0.03])
    rows = {"units": [("alike", "units@vit"), "as published"], "tokens": [("below", "units@vit"), ("one", "units@vit")]}
    shown = figures.cohort_table(recorded, rows, ("", "ours", "theirs"), caption="Two numbers.").text
    assert "0.50 (0.25 to 0.75)" in shown  # 0.5 ± 4.303 · 0.1 / √3
    assert "as published" in shown
    assert "−0.15 (−0.20, −0.10)" in shown
    assert "0.25 (one network)" in shown
    rows |= {"none": [("none", "units@vit"), ""]}
    shown = figures.cohort_table(recorded, rows, ("", "ours", "theirs"), caption="Two numbers.", percent=True).text
    assert "50% (25 to 75)" in shown
    assert "1% (0, 3)" in shown


def test_a_network_without_attention_is_explored_too():
    torch.manual_seed(0)
    ask = UnitExplorer(timm.create_model("resnet10t", num_classes=3).eval(), torch.rand(4, 3, 32, 32))
    assert ask.sites
    assert ask.answer(ask.sites[0], 0)
