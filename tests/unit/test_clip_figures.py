"""Chapter 6's readers and figures: what is read in pictures, and that everything shown is there in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thesis_kit.chapters.clip import figures, readers
from thesis_kit.data.scenes import Table
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.vocabulary import COLORS, SHAPES

WITH = {"label": "Figure 6.1", "caption": "What is seen."}


@pytest.fixture(scope="module")
def scenes():
    return LANGUAGE["scenes.v1-pairs"].draw(300, 64, seed=4)


def test_a_histogram_counts_squares_of_a_color():
    x = torch.zeros(1, 3, 16, 16)
    x[:, 0, :, 8:] = 1.0  # half black, half red
    shares = readers.ColorHistogram()(x).square()[0]
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0.5)
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert readers.ColorHistogram()(noisy.clamp(0, 1)).square()[0, [0, 100]].sum() == pytest.approx(1)


def test_colors_are_read_better_than_by_chance(scenes):
    assert isinstance(scenes.table, Table)
    reader, single = readers.color_reader(scenes[:200]), scenes.table.present[200:].sum(dim=1) == 1
    blind = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, len(SHAPES)))
    shapes, colors = readers.read(scenes.images[200:], blind, reader)
    assert (colors == scenes.table.color[200:, 0])[single].double().mean() > 0.5
    assert readers.as_words(shapes[:1], colors[:1])[0].split()[0] in COLORS


def test_units_stand_side_by_side_with_their_words(scenes):
    acts = {"one": torch.rand(300, 6), "other": torch.rand(300, 6)}
    said = {name: [f"{name} word {unit}" for unit in range(6)] for name in acts}
    explorer = figures.units_explorer(scenes.images, acts, {"First": [0, 1], "Last": [4, 5]}, said, **WITH)
    assert explorer.html.count("<img") == 8
    assert "other word 5" in explorer.html


def test_pictures_of_prompts_have_their_readings(scenes):
    drawn = {color: {f"a {color} star": list(scenes.images[:2])} for color in ("red", "blue")}
    read = {color: {f"a {color} star": [f"{color} ring", "white star"]} for color in drawn}
    shown = figures.prompt_explorer(drawn, read, name="color", **WITH)
    assert shown.html.count("<img") == 4
    assert "blue ring" in shown.html
    assert "read as red ring" in shown.html
    assert (
        "start 2"
        in figures.prompts_figure({"": list(scenes.images[:2])}, ["start 1", "start 2"], alt="Two.", **WITH).html
    )


def test_the_quiz_folds_both_answers_away(scenes):
    pair = (scenes.images[0], scenes.images[0].flip(-1))
    near, right = torch.tensor([[0.2, 0.4]]), torch.tensor([0])
    shown = figures.order_quiz([pair], ["a star <left> of a ring"], near, right, **WITH)
    assert "It is A. The pair says B: cosines 0.20 and 0.40." in shown.html
    assert shown.html.index("<details>") < shown.html.index("It is A")
    assert "&lt;left&gt;" in shown.html


def test_shares_have_their_interval_and_their_count():
    right = torch.tensor([True] * 30 + [False] * 10)
    rows = {"left of": right, "none": right[:0]}
    shown = figures.shares_table(rows, ("relation", "right", "scenes"), caption="One.").html
    assert "75% (60 to 86)" in shown  # Wilson
    assert ">40<" in shown
    assert "none" not in shown


def test_attacks_are_told_in_words_too():
    shown = figures.attacks_figure({"one": {0.0: 0.5, 1 / 255: 0.25}}, **WITH)
    assert "at radii 0, 1, in steps of 1/255. one: 50, 25." in shown.html
