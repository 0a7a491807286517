"""Chapter 1's second half in miniature: what an arm is made of and costs, what is chosen, and how figures say it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from tests.worlds.miniatures import TINY_TRANSFER as TINY
from tests.worlds.miniatures import experiments, plainly
from thesis_kit import training
from thesis_kit.chapters.defenses import transfer_arms as transfer
from thesis_kit.chapters.defenses import transfer_figures as figures
from thesis_kit.chapters.defenses.settings import TRANSFER
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits
from thesis_kit.ledger.results import Result
from thesis_kit.models import anatomy
from thesis_kit.training.run import Run

NAME = "defenses.scenes"
ARMS = {arm.name: arm for arm in experiments()[NAME].arms}
FEW_LRS = tuple(lr for _, lr in TINY.few_trials)
HEADS = ("natural-head", "robust-head", "natural-head@moved", "robust-head@moved")
TARGET_ARMS = [*HEADS, "lwf", "fine-tuned", *(f"{how}@{n}" for n in TINY.per_class for how in transfer.ROUTES)]


@pytest.fixture
def result(miniature):
    return miniature(NAME)


@pytest.fixture
def records(result):
    return {arm: cell for (arm, _), cell in plainly(result).items()}


@pytest.fixture
def shared(around):
    """What the arms have made already."""
    with around(NAME):
        yield


def world_of(arm, **change):
    own = ARMS[arm].settings
    return transfer.World(0, transfer.pick(own, *(name for name in own if name not in change), **change))


def make(arm, world):
    """The model of an arm before it is attacked."""
    return ARMS[arm].measure.keywords["make"](world)


def untrainable(monkeypatch):
    def descend(*_, **__):
        raise AssertionError("a weight was updated")

    monkeypatch.setattr(Run, "descend", descend)


# --- what is recorded


def test_an_arm_records_outcomes_costs_and_choices(records):
    for arm, record in records.items():
        clean, robust, weak = (np.array(record["outcomes"][name]) for name in ("N", "R", "weak"))
        assert record["n"] == len(clean) == TINY.target.data_options["n_test"], arm
        assert (robust <= clean).all(), arm
        assert (weak <= clean).all(), arm
        assert record["budget"]["PGD-20"]["attacked"] == clean.sum(), arm
        assert record["budget"]["train"]["backward"] == record["scalars"]["passes"], arm
        assert record["scalars"]["train_seconds"] > 0, arm


def test_the_cost_of_an_arm_is_that_of_its_method(records):
    def cost(arm):
        return tuple(records[arm]["scalars"][name] for name in ("updates", "passes", "passes_per_update"))

    assert cost("natural") == cost("free-8") == (16, 16, 1)
    assert cost("pgd-7") == (16, 128, 8)
    assert all(cost(arm) == (0, 0, 0) for arm in (*HEADS, "transferred@5", "transferred@25"))
    assert all(cost(arm) == (3, 3, 1) for arm in (*transfer.DEPTHS, "lwf", "fine-tuned"))
    assert all(cost(f"{how}@{n}") == (8, 8, 1) for how in ("scratch", "tuned") for n in TINY.per_class)


def test_arms_that_are_compared_meet_the_same_images(records):
    groups = {arm: record["group"] for arm, record in records.items()}
    source, target, moved = (f"{task.data}/16px/24" for task in (TINY.source, TINY.target, TINY.moved_target))
    assert groups == {
        arm: moved if arm.endswith("@moved") else target if arm in TARGET_ARMS else source for arm in records
    }


def test_the_figures_draw_what_is_recorded(result, records):
    words = {"label": "Figure 1.7", "caption": "A caption."}
    heads = {arm: arm.replace("-", " ") for arm in HEADS}

    def percent(arm, measure):
        return f"{100 * np.mean(records[arm]['outcomes'][measure]):.0f}%"

    def said(shown, name, arm):
        assert f"{name}: clean {percent(arm, 'N')}, robust {percent(arm, 'R')}" in shown.html

    inherited = figures.inherited_figure(result, heads, **words)
    depths = figures.depth_figure(result, transfer.DEPTHS, **words)
    few = figures.low_data_figure(result, TINY.per_class, **words)
    for arm, name in heads.items():
        said(inherited, name, arm)
    for arm, k in transfer.DEPTHS.items():
        said(depths, f"{k} blocks", arm)
    for route, (name, *_) in transfer.ROUTES.items():
        for n in TINY.per_class:
            said(few, f"{name}, {n} a class", f"{route}@{n}")
    _, *lines = figures.accuracy_table(result, heads).text.splitlines()
    for line, (arm, name) in zip(lines, heads.items(), strict=True):
        shares = (f"{100 * np.mean(records[arm]['outcomes'][measure]):.1f}%" for measure in ("N", "R"))
        assert [word for word in line.split() if word.endswith("%")] == list(shares)
        assert line.startswith(name)


def test_the_settings_are_those_that_were_recorded():
    part = Part(torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2]), torch.arange(3))
    told = figures.settings_card(TRANSFER["record"], part, torch.nn.Linear(4, 5)).text
    for words in ("8/255, in the maximum norm", "3 × 32 × 32", "3 of the target", "7 blocks", "25 weights", "PGD-20"):
        assert words in told
    assert "1,500 updates" in told, "the source's"


def test_a_strength_that_diverged_has_no_point(result):
    cells = {arm: {seed: copy.deepcopy(result.cells[arm][0]) for seed in (0, 1)} for arm in result.cells}
    first, second = (cell["trials"][0] for cell in cells["lwf"].values())
    first.update(N=0.5, R=0.2), second.update(N=0.7, R=0.4)
    twice = Result(NAME, cells)
    shown = figures.distillation_figure(twice, label="Figure 1.8", caption="A caption.")
    assert "λ = 0.1: clean 60%, robust 30%; λ = 10: clean" in shown.html
    assert "stronger. λ = 0: clean" in shown.html
    second.update(N=-1.0, R=-1.0)
    shown = figures.distillation_figure(twice, label="Figure 1.8", caption="A caption.")
    assert "λ = 0.1" not in shown.html
    assert "λ = 10: clean" in shown.html


# --- what an arm is made of


@pytest.mark.parametrize(("arm", "source"), [("robust-head", "pgd-7"), ("natural-head", "natural")])
def test_under_a_new_head_the_features_are_the_sources(shared, arm, source):
    world = world_of(arm)
    made, (model, _) = make(arm, world).model, world.source_network(source)
    x = world.target.validation.x
    assert torch.equal(anatomy.features(made.eval(), x), anatomy.features(model.eval(), x))


@pytest.mark.parametrize("arm", ["robust-head", "lwf", "transferred@5", "tuned@5"])
def test_nothing_is_made_or_chosen_by_test_images(shared, records, arm):
    world = world_of(arm)
    test = world.target.test
    blind = Part(torch.full_like(test.x, math.nan), test.y, test.ids)
    world.target = Splits(world.target.train, world.target.validation, blind)
    assert make(arm, world).chosen == records[arm]["chosen"]
    with pytest.raises(ValueError, match="NaN"):
        world.attacked(world.source_network("pgd-7")[0], blind, transfer.reference_attack(TINY.eps))  # it would show


def test_all_blocks_of_the_recorded_network_are_counted():
    settings = TRANSFER["record"]
    assert len(anatomy.blocks(transfer.World(0, settings).network(settings.source))) == transfer.N_BLOCKS


# --- the trend


@pytest.mark.parametrize(
    ("robust", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.0], 1.0),
        ([0.0, 0.1, 0.2, 0.9], -1.0),
        ([0.3, 0.3, 0.3, 0.3], 0.0),
        ([0.5, 0.3, 0.4, 0.2], 0.8),  # 1 − 6 · (1² + 1²) / (4 · 15)
        ([0.5, 0.5, 0.1, 0.1], 4 / math.sqrt(20)),  # Pearson's correlation of the ranks 1 2 3 4 and 1.5 1.5 3.5 3.5
    ],
)
def test_the_trend_is_spearmans_correlation_of_depth_and_loss(robust, expected):
    assert transfer.trend([0, 1, 2, 7], robust) == pytest.approx(expected)


def test_the_recorded_trend_is_that_of_the_recorded_depths(records):
    robust = [np.mean(records[arm]["outcomes"]["R"]) for arm in transfer.DEPTHS]
    assert records["depth-all"]["scalars"]["trend"] == pytest.approx(transfer.trend(range(8), robust))
    assert [arm for arm, record in records.items() if "trend" in record["scalars"]] == ["depth-all"]


# --- choices


def trial(n, r):
    return {"N": n, "R": r}


@pytest.mark.parametrize(
    ("trials", "position"),
    [
        ([trial(0.9, 0.2), trial(0.8, 0.5), trial(0.7, 0.6)], 1),  # the cleanest of those above the floor
        ([trial(0.9, 0.2), trial(0.8, 0.4), trial(0.7, 0.3)], 1),  # all below: the most robust
        ([trial(0.9, 0.5), trial(0.9, 0.6)], 0),  # of equals the first, the weakest pull
        ([trial(-1, -1), trial(0.1, 0.0)], 1),
        ([trial(0.2, 0.1)], 0),
    ],
)
def test_the_strength_is_the_cleanest_that_is_robust_enough(trials, position):
    assert transfer.choose_strength(trials, floor=0.5) == position


def test_a_loss_of_exactly_a_point_is_no_more_than_a_point():
    for right in range(5, 501):
        trials = [trial(0.9, (right - 5) / 500), trial(0.8, right / 500)]
        assert transfer.choose_strength(trials, floor=right / 500 - 0.01) == 0
        trials[0]["R"] -= 1 / 500
        assert transfer.choose_strength(trials, floor=right / 500 - 0.01) == 1


def test_all_values_of_a_knob_are_tried_and_one_is_kept(records):
    for arm, record in records.items():
        knob, values = {
            "lwf": ("strength", TINY.strengths),
            "fine-tuned": ("strength", (0.0,)),
            **{f"{how}@{n}": ("lr", FEW_LRS) for how in ("scratch", "tuned") for n in TINY.per_class},
        }.get(arm, ("penalty", ()))
        assert tuple(one[knob] for one in record["trials"]) == values, arm
        if knob == "penalty":
            assert set(record["chosen"].values()) <= set(TINY.penalties), arm
        else:
            assert record["chosen"][knob] in values, arm
        if knob == "lr":
            best = max(record["trials"], key=lambda one: one["R"])
            assert record["chosen"] == {"updates": 8, "lr": best["lr"]}, arm


@pytest.mark.parametrize(
    ("arm", "function", "knob", "values"),
    [("lwf", "distill", "strength", TINY.strengths), ("scratch@5", "train", "lr", FEW_LRS)],
)
def test_a_trial_that_diverges_is_not_chosen_and_if_all_do_nothing_is_recorded(
    shared, monkeypatch, arm, function, knob, values
):
    does = getattr(training, function)

    def diverging(at):
        def run(*arguments, **knobs):
            if knobs[knob] in at:
                raise NonFiniteOutput("the loss is nan")
            return does(*arguments, **knobs)

        return run

    monkeypatch.setattr(training, function, diverging(values[:1]))
    made = make(arm, world_of(arm))
    assert made.chosen[knob] == values[1]
    assert made.trials[0] == {**made.chosen, knob: values[0], "N": -1.0, "R": -1.0}
    monkeypatch.setattr(training, function, diverging(values))
    with pytest.raises(NonFiniteOutput, match=rf"diverged at .*{knob} {values[0]:g}; .*{knob} {values[1]:g}: put"):
        make(arm, world_of(arm))


# --- what is kept


def test_a_source_and_a_depth_are_made_once(shared, records, monkeypatch):
    model, report = world_of("free-8").source_network("free-8")
    untrainable(monkeypatch)
    again, same = world_of("robust-head@moved", source=TINY.source).source_network("free-8")
    assert same == report
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert ARMS["depth-3"].run(0)["outcomes"] == records["depth-3"]["outcomes"]
    others = transfer.World(1, ARMS["free-8"].settings), world_of("free-8", source_lr=0.2)
    for other in others:
        with pytest.raises(AssertionError, match="a weight was updated"):
            other.source_network("free-8")
