"""Chapter 1's recorded runs in miniature: how a fall is measured, and what a cell contains."""

from __future__ import annotations

import json
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thesis_kit import training
from thesis_kit.chapters import find
from thesis_kit.chapters.defenses import arms as defenses
from thesis_kit.chapters.defenses.arms import ARMS, COLLAPSE_ARMS, ENLARGED_ARMS, enlarged, largest_fall, run_cell
from thesis_kit.chapters.defenses.settings import DEFENSES, Defenses
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import digits

TINY = Defenses(
    model_options=types.MappingProxyType({"width": 4}),
    updates=24,
    enlarged_updates=24,
    enlarged_size=10,
    learning_rates=(0.05, 0.2),
    queries=4,
    strong_steps=2,
    strong_restarts=1,
)
CONFIG = {"profile": "tiny"}


@pytest.fixture
def tiny(monkeypatch):
    """The tiny profile, on a few digits of the real parts."""
    monkeypatch.setattr(defenses, "DEFENSES", {"tiny": TINY})

    def few(seed):
        splits = digits(seed)
        return type(splits)(splits.train[:300], splits.validation[:30], splits.test[:40])

    monkeypatch.setattr(defenses, "digits", few)


# How a fall is measured


@pytest.mark.parametrize(
    ("curve", "fall"),
    [
        ([], 0.0),
        ([0.4], 0.0),
        ([0.1, 0.2, 0.3], 0.0),
        ([0.5, 0.2], 0.3),
        ([0.5, 0.4, 0.1, 0.6], 0.4),  # over two epochs
        ([0.5, 0.4, 0.3, 0.2, 0.1], 0.2),  # slow: never more than two epochs' worth
        ([0.1, 0.6, 0.6, 0.0, 0.5], 0.6),  # recovered later, yet it fell
        ([0.0, 0.3, 0.1], 0.2),
    ],
)
def test_the_largest_fall_within_two_epochs(curve, fall):
    assert largest_fall(curve) == pytest.approx(fall)


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 4))
def test_the_largest_fall_is_the_plain_maximum(curve, epochs):
    pairs = [a - b for i, a in enumerate(curve) for b in curve[i : i + epochs + 1]]
    assert largest_fall(curve, epochs=epochs) == max(pairs, default=0.0)


def test_a_collapse_is_a_fall_of_more_than_20_points(tiny, monkeypatch):
    for curve, expected in (([0.60, 0.40], 0.0), ([0.60, 0.39], 1.0)):
        monkeypatch.setattr(defenses, "largest_fall", lambda _, curve=curve: round(curve[0] - curve[1], 9))
        assert run_cell("fgsm@strong", 0, CONFIG)["scalars"]["collapse"] == expected


# Cells


@pytest.mark.parametrize("arm", ["natural", "free-8", "free-8 twice", "n-fgsm", "pgd-7"])
def test_a_cell_is_complete_and_counts_its_passes(tiny, arm):
    cell = run_cell(arm, 6, CONFIG)
    assert (cell["arm"], cell["seed"], cell["group"], cell["n"]) == (arm, 6, "digits.v1/fold1", 40)
    assert set(cell["outcomes"]) == {"N", "R", "weak", "worst"}
    assert all(len(outcome) == 40 for outcome in cell["outcomes"].values())
    for name in ("R", "weak", "worst"):  # an image cannot be robust and wrong
        assert all(
            clean or not robust for clean, robust in zip(cell["outcomes"]["N"], cell["outcomes"][name], strict=True)
        )
    updates = 48 if arm == "free-8 twice" else 24
    per_update = {"pgd-7": 8, "n-fgsm": 2}.get(arm, 1)
    assert cell["scalars"]["updates"] == updates
    assert cell["scalars"]["passes_per_update"] == per_update
    assert cell["scalars"]["passes"] == cell["budget"]["train"]["backward"] == per_update * updates
    assert set(cell["budget"]) == {"train", "PGD-20", "PGD-10 weak", "PGD", "PGD margin", "APGD-CE",
                                   "APGD-DLR targeted", "Square"}  # fmt: skip
    assert cell["budget"]["PGD-20"]["backward_images"] == 20 * sum(cell["outcomes"]["N"])
    assert len(cell["trials"]) == 2
    json.dumps(cell)


def test_a_cell_is_the_same_every_time_but_for_the_clock(tiny):
    def timeless(cell):
        return {**cell, "seconds": 0, "scalars": {**cell["scalars"], "train_seconds": 0}}

    assert timeless(run_cell("free-4", 0, CONFIG)) == timeless(run_cell("free-4", 0, CONFIG))
    assert run_cell("free-4", 0, CONFIG)["outcomes"] != run_cell("free-4", 5, CONFIG)["outcomes"]


def test_the_rate_is_chosen_on_validation_and_the_test_part_is_met_once(tiny, monkeypatch):
    met, judged, parts = [], defenses.robust_accuracy, defenses.digits(0)

    def note(model, data, attacks, **knobs):
        met.append((len(data), list(attacks)))
        return judged(model, data, attacks, **knobs)

    monkeypatch.setattr(defenses, "robust_accuracy", note)
    cell = run_cell("free-2", 0, CONFIG)
    validation, test = len(parts.validation), len(parts.test)
    assert met[:2] == [(validation, ["PGD-20"])] * 2
    assert met[2:] == [(test, ["PGD-20"]), (test, ["PGD-10 weak"]),
                       (test, ["PGD", "PGD margin", "APGD-CE", "APGD-DLR targeted", "Square"])]  # fmt: skip
    best = max(cell["trials"], key=lambda trial: trial["validation"])
    assert cell["chosen"] == {"lr": best["lr"]}
    assert [trial["lr"] for trial in cell["trials"]] == [0.05, 0.2]


def test_natural_training_is_chosen_by_clean_accuracy(tiny, monkeypatch):
    scores = iter([0.3, 0.9])
    monkeypatch.setattr(defenses, "accuracy", lambda model, data: next(scores))
    cell = run_cell("natural", 0, CONFIG)
    assert [trial["validation"] for trial in cell["trials"]] == [0.3, 0.9]
    assert cell["chosen"] == {"lr": 0.2}


def test_training_sees_neither_validation_nor_test_images(tiny, monkeypatch):
    seen, train = [], training.train
    monkeypatch.setattr(
        defenses.training, "train", lambda model, data, *a, **k: seen.append(data) or train(model, data, *a, **k)
    )
    run_cell("free-2", 3, CONFIG)
    others = {*digits(3).validation.ids.tolist(), *digits(3).test.ids.tolist()}
    assert all(not others & set(part.ids.tolist()) for part in seen)
    assert len(seen) == 2


def test_a_rate_that_diverges_loses_and_all_diverging_is_a_sentence(tiny, monkeypatch):
    fit = defenses.fit

    def only(good):
        def fitted(*args, lr, **knobs):
            if lr not in good:
                raise NonFiniteOutput("the loss is nan")
            return fit(*args, lr=lr, **knobs)

        return fitted

    monkeypatch.setattr(defenses, "fit", only({0.05}))
    cell = run_cell("free-2", 0, CONFIG)
    assert cell["chosen"] == {"lr": 0.05}
    assert cell["trials"][1] == {"lr": 0.2, "validation": -1.0, "diverged": True}
    monkeypatch.setattr(defenses, "fit", only(set()))
    with pytest.raises(NonFiniteOutput, match="free-2 diverged at every learning rate: add smaller ones"):
        run_cell("free-2", 0, CONFIG)


@pytest.mark.parametrize("arm", [*COLLAPSE_ARMS, *ENLARGED_ARMS])
def test_a_single_step_cell_follows_robust_accuracy_through_training(tiny, arm):
    cell = run_cell(arm, 0, CONFIG)
    epochs = [epoch for epoch, _ in cell["curves"]["R"]]
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 8]  # 300 images in minibatches of 128 are three updates an epoch
    robust = [share for _, share in cell["curves"]["R"]]
    assert cell["scalars"]["largest_fall"] == largest_fall(robust)
    assert cell["scalars"]["collapse"] in (0.0, 1.0)
    assert cell["scalars"]["passes"] == cell["budget"]["train"]["backward"] == 48
    assert set(cell["outcomes"]) == {"N", "R", "one step"}
    assert sum(cell["outcomes"]["R"]) / 40 == pytest.approx(robust[-1])
    assert sum(cell["outcomes"]["N"]) / 40 == pytest.approx(cell["curves"]["N"][-1][1])
    json.dumps(cell)


def test_enlarged_digits_are_the_same_digits():
    part = digits(0).test[:5]
    large = enlarged(part, 28)
    assert large.x.shape == (5, 1, 28, 28)
    assert 0 <= large.x.min() <= large.x.max() <= 1
    assert large.y is part.y
    back = torch.nn.functional.interpolate(large.x, (8, 8), mode="area")
    assert (back - part.x).abs().mean() < 0.1


# The experiment as the runner finds it


def test_the_experiment_lists_every_arm_with_its_seeds():
    experiment = find("defenses", "digits")
    assert experiment.id == "defenses.digits"
    for arm in (*ARMS, *COLLAPSE_ARMS):
        assert experiment.seeds(arm) == list(range(10))
    for arm in ENLARGED_ARMS:
        assert experiment.seeds(arm) == list(range(5))
    assert len(set(experiment.cells)) == len(experiment.cells)
    assert set(experiment.arms) == {*ARMS, *COLLAPSE_ARMS, *ENLARGED_ARMS}
    assert all(experiment.expected_seconds(arm) > 0 for arm in experiment.arms)
    assert set(experiment.data_hashes()) == {"digits.v1"}


def test_the_configuration_is_the_record_profile_as_json_can_hold_it():
    config = find("defenses", "digits").config
    assert json.loads(json.dumps(config))["learning_rates"] == list(DEFENSES["record"].learning_rates)
    assert config["profile"] == "record"
    assert (config["strong_steps"], config["strong_restarts"], config["queries"]) == (100, 5, 5000)


def test_every_arm_gets_the_same_trials_and_updates():
    for make in ARMS.values():
        assert isinstance(make(0.1), training.Method)
    assert ARMS["free-8"](0.1) == ARMS["free-8 twice"](0.1) == training.Free(0.1, replays=8)
    assert ARMS["pgd-7"](0.1) == training.PGD(0.1, steps=7)
    assert defenses.TWICE_THE_UPDATES == ("free-8 twice",)
