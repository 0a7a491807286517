"""Chapter 6's readers and figures: what is read in pictures, and that everything shown is there in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.worlds import miniatures
from thesis_kit.chapters.clip import figures, readers, twin_measures, world
from thesis_kit.chapters.clip.settings import TAUGHT
from thesis_kit.data.scenes import Table
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.vocabulary import COLORS, SHAPES
from thesis_kit.ledger.results import NotRecorded
from thesis_kit.randomness import mix_seed

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


def test_units_stand_side_by_side_with_their_names(miniature):
    recorded, twins = miniature("clip.scenes"), {"by labels": "labels", "by captions": "captions"}
    explorer = figures.units_explorer(recorded, twins, rows=3, **WITH)
    kept = {called: recorded.cells[f"units@{teacher}"][0]["chosen"] for called, teacher in twins.items()}
    units = kept["by labels"]["units"]
    assert explorer.html.count("<img") == 2 * len(units)
    assert len(explorer.values) == math.ceil(len(units) / 3)
    assert f"Unit {units[-1]}, by captions: its 4 strongest scenes." in explorer.html
    assert all(name in explorer.html for one in kept.values() for name in one["measured"])
    assert explorer.render(1)[1] == f"Units {units[0]}, {units[1]}, {units[2]}."
    with pytest.raises(NotRecorded, match=r"units@random, seed 0, of clip\.scenes has no kings to show"):
        figures._shown(recorded, {"random": "units@random"}, "kings")


def test_blocks_are_told_in_words_too(miniature):
    recorded = miniature("clip.scenes")
    shown = figures.blocks_figure(recorded, {"by labels": "labels", "random": "random"}, **WITH)
    lines = {a: recorded.curves("selective", f"units@{a}")[0][:, 1] for a in ("labels", "random")}
    assert f"by labels: {', '.join(f'{100 * share:.0f}' for share in lines['labels'])}; random: " in shown.html


def test_scenes_of_a_strip_are_those_that_excite_the_unit(miniature):
    cell = miniature("clip.scenes").cells["units@labels"][0]
    kept = cell["chosen"]
    drawn = LANGUAGE["scenes.v1-pairs"].draw(48, 40, seed=mix_seed(601))
    tower = miniatures.tiny_twin(TAUGHT["labels"][0], 0)
    a = twin_measures.late_units(tower, drawn.images)
    assert kept["strongest"][1] == a[:, kept["units"][1]].sort(descending=True, stable=True).indices[:4].tolist()
    assert (world.judged_table(cell["settings"], [5, 2]).color == drawn.table[torch.tensor([5, 2])].color).all()


def test_pictures_of_bare_names_stand_over_what_is_read(miniature):
    recorded = miniature("clip.scenes")
    read = recorded.cells["bias@biased"][0]["chosen"]["read"]
    shown = figures.neutral_prompts(
        recorded, {"by chance": "bias@captions", "tied": "bias@biased"}, {one: f"{one}?" for one in read}, alt="Two.",
        **WITH,
    )
    assert shown.html.count("<img") == 2 * len(read)
    assert all(f"{one}?" in shown.html and f"read as: {told}<" in shown.html for one, told in read.items())


def test_false_words_stand_over_both_answers(miniature):
    recorded = miniature("clip.scenes")
    shown = figures.false_words(recorded, {"labels": "words@named-labels"}, **WITH)
    told = recorded.cells["words@named-labels"][0]["chosen"]["first"]
    assert shown.html.count("<img") == len(told["label"]) == 6
    assert f"labels: {told['plain'][0]} → {told['written'][0]}" in shown.html
    assert f"{told['label'][5]}, and the word “{told['word'][5]}” on it." in shown.html


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
    shown = figures.shares_table(rows, ("relation", "right", "scenes"), caption="One.").text
    assert "75% (60 to 86)" in shown  # Wilson
    assert shown.rstrip().endswith("40")
    assert "none" not in shown


def test_attacks_are_told_in_words_too():
    shown = figures.attacks_figure({"one": {0.0: 0.5, 1 / 255: 0.25}}, **WITH)
    assert "at radii 0, 1, in steps of 1/255. one: 50, 25." in shown.html
