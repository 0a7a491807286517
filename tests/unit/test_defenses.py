"""Chapter 1's arms in miniature: how a fall is measured, what a cell has, what is chosen and on which images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.worlds.miniatures import experiments, few_digits, plainly
from thesis_kit import training
from thesis_kit.chapters.defenses import arms as defenses
from thesis_kit.chapters.defenses.arms import COLLAPSE_ARMS, ENLARGED_ARMS, enlarged, largest_fall, method_of
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import digits
from thesis_kit.ledger.registry import find

NAME = "defenses.digits"
ARMS = {arm.name: arm for arm in experiments()[NAME].arms}


@pytest.fixture
def tiny(monkeypatch):
    """A few digits of the real parts."""
    monkeypatch.setattr(defenses, "digits", few_digits)


@pytest.fixture
def cells(miniature):
    return {arm: cell for (arm, _), cell in plainly(miniature(NAME)).items()}


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
        assert ARMS["fgsm@strong"].run(0)["scalars"]["collapse"] == expected


# Cells


@pytest.mark.parametrize("arm", ["natural", "free-8", "free-8 twice", "n-fgsm", "pgd-7"])
def test_a_cell_is_complete_and_counts_its_passes(cells, arm):
    cell = cells[arm]
    assert (cell["group"], cell["n"]) == ("digits.v1/fold0", 40)
    assert set(cell["outcomes"]) == {"N", "R", "weak", "worst"}
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
    assert [trial["lr"] for trial in cell["trials"]] == [0.05, 0.2]


def test_seeds_differ(tiny, cells):
    assert ARMS["free-4"].run(5)["outcomes"] != cells["free-4"]["outcomes"]


def test_the_rate_is_chosen_on_validation_and_the_test_part_is_met_once(tiny, monkeypatch):
    met, parts = [], few_digits(0)

    def note(module):
        judged = module.robust_accuracy

        def noting(model, data, attacks, **knobs):
            met.append((len(data), list(attacks)))
            return judged(model, data, attacks, **knobs)

        monkeypatch.setattr(module, "robust_accuracy", noting)

    note(defenses), note(defenses.world)
    cell = ARMS["free-2"].run(0)
    validation, test = len(parts.validation), len(parts.test)
    assert met[:2] == [(validation, ["PGD-20"])] * 2
    assert met[2:] == [(test, ["PGD-20"]), (test, ["PGD-10 weak"]),
                       (test, ["PGD", "PGD margin", "APGD-CE", "APGD-DLR targeted", "Square"])]  # fmt: skip
    best = max(cell["trials"], key=lambda trial: trial["validation"])
    assert cell["chosen"] == {"lr": best["lr"]}


def test_natural_training_is_chosen_by_clean_accuracy(tiny, monkeypatch):
    scores = iter([0.3, 0.9])
    monkeypatch.setattr(defenses, "accuracy", lambda model, data: next(scores))
    cell = ARMS["natural"].run(0)
    assert [trial["validation"] for trial in cell["trials"]] == [0.3, 0.9]
    assert cell["chosen"] == {"lr": 0.2}


def test_training_sees_neither_validation_nor_test_images(tiny, monkeypatch):
    seen, train = [], training.train
    monkeypatch.setattr(
        defenses.training, "train", lambda model, data, *a, **k: seen.append(data) or train(model, data, *a, **k)
    )
    ARMS["free-2"].run(3)
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
    cell = ARMS["free-2"].run(0)
    assert cell["chosen"] == {"lr": 0.05}
    assert cell["trials"][1] == {"lr": 0.2, "validation": -1.0, "diverged": True}
    monkeypatch.setattr(defenses, "fit", only(set()))
    with pytest.raises(NonFiniteOutput, match="free training diverged at every learning rate: add smaller ones"):
        ARMS["free-2"].run(0)


@pytest.mark.parametrize("arm", [*COLLAPSE_ARMS, *ENLARGED_ARMS])
def test_a_single_step_cell_follows_robust_accuracy_through_training(cells, arm):
    cell = cells[arm]
    epochs = [epoch for epoch, _ in cell["curves"]["R"]]
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 8]  # 300 images in minibatches of 128 are three updates an epoch
    robust = [share for _, share in cell["curves"]["R"]]
    assert cell["scalars"]["largest_fall"] == largest_fall(robust)
    assert cell["scalars"]["collapse"] in (0.0, 1.0)
    assert cell["scalars"]["passes"] == cell["budget"]["train"]["backward"] == 48
    assert set(cell["outcomes"]) == {"N", "R", "one step"}
    assert sum(cell["outcomes"]["R"]) / 40 == pytest.approx(robust[-1])
    assert sum(cell["outcomes"]["N"]) / 40 == pytest.approx(cell["curves"]["N"][-1][1])


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
    for arm in experiment.arms:
        assert arm.seeds == tuple(range(5 if arm.name in ENLARGED_ARMS else 10))
        assert arm.data == ("digits.v1",)
        s = arm.settings
        if "@" not in arm.name:
            assert (s.strong_steps, s.strong_restarts, s.queries) == (100, 5, 5000)
            assert len(s.learning_rates) == 4
            assert s.updates == (2000 if arm.name == "free-8 twice" else 1000)
    assert {*COLLAPSE_ARMS, *ENLARGED_ARMS} <= set(experiment.names)


def test_an_arm_trains_as_it_says():
    def method(arm):
        return method_of(find("defenses", "digits").arm(arm).settings)

    assert method("natural") == training.Natural()
    assert method("free-8") == method("free-8 twice") == training.Free(0.15, replays=8)
    assert method("pgd-7") == training.PGD(0.15, steps=7)
    assert method("n-fgsm") == training.n_fgsm(0.15)
    assert method("fgsm@strong") == training.fgsm(0.25)
