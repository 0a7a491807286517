"""Recipes that cannot be meant are refused, edited ones are noticed; scores are measured again."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import thesis_kit as tk
from tests.worlds.tiny_zoo import NAME, TINY
from thesis_kit.checks import UnknownName
from thesis_kit.models import zoo
from thesis_kit.models.zoo import Score
from thesis_kit.zookeeping import auditing, plans
from thesis_kit.zookeeping.auditing import audit, problems
from thesis_kit.zookeeping.member_scores import agrees, measure
from thesis_kit.zookeeping.recipe import TrainingStage, register

# Recipes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "fre"}, "unknown training method 'fre': did you mean free"),
        ({"method_options": {"radius": 1}}, "free training cannot be set to {'radius': 1}"),
        ({"method_options": {"eps": -1}}, "eps must be a finite number of at least 0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean cosine"),
        ({"precision": "float61"}, "unknown precision 'float61': did you mean float"),
        ({"storage": "float8"}, "unknown storage 'float8'"),
        ({"augment": "shif"}, "unknown augmentation 'shif': did you mean shift"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"updates": 0}, "updates must be a whole number of at least 1"),
        ({"eps": (-0.1,)}, "eps must be a finite number"),
        ({"stages": ()}, "shares of stages must be above 0 and add up to 1"),
        ({"stages": (TrainingStage(0.5), TrainingStage(0.4))}, "shares of stages must be above 0 and add up to 1"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_when_it_is_written(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(TINY, **change)


@pytest.mark.parametrize("name", ["", "Upper", "../up", "two words", "a/b", "-a", "a--b"])
def test_a_name_must_be_one_of_a_file(name):
    with pytest.raises(ValueError, match="cannot name a zoo model"):
        register({name: TINY})


def test_settings_leave_out_words_and_shipping_only():
    changes = {"title": "x", "shipped": False, "seeds": 2, "cohort_precision": "bfloat16"}
    assert replace(TINY, **changes).settings() == TINY.settings()
    squeezed = replace(TINY, terms={"logit-squeezing": {"beta": 0.1}})
    assert set(squeezed.settings()) == set(vars(TINY)) - {*changes, "kind"}
    assert set(TINY.settings()) == set(squeezed.settings()) - {"terms"}  # as before there were any
    assert repr(squeezed.make_terms()) == "[LogitSqueezing(beta=0.1, norm='frobenius')]"
    for wrong, said in (
        ({"logit-squezing": {}}, "unknown term"),
        ({"logit-squeezing": {"alpha": 1}}, "cannot be made"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(TINY, terms=wrong)
    assert json.loads(json.dumps(TINY.settings())) == TINY.settings()


@pytest.mark.parametrize(
    "change",
    [{"updates": 81}, {"lr": 0.2}, {"method_options": {"eps": 0.1, "replays": 4}}, {"eps": (0.1,)}, {"seed": 3}],
)
def test_a_recipe_edited_after_training_is_noticed(trained, recipes, change):
    assert problems(NAME, folder=trained) == []
    recipes[NAME] = replace(TINY, **change)
    (said,) = problems(NAME, folder=trained)
    assert said == (
        f"{NAME} was trained by another recipe ({', '.join(change)} changed): train it again with "
        f"`make zoo NAME={NAME}`"
    )


def test_other_data_and_a_lost_recipe_are_noticed(trained, recipes, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(plans.SOURCES, "digits", plans.DataSource(tuple("0123456789"), lambda: "0" * 64))
        assert [said.split(":")[0] for said in problems(NAME, folder=trained)] == [f"{NAME} was trained on other data"]
    del recipes[NAME]
    assert problems(NAME, folder=trained) == [
        f"{NAME} has no recipe any more: give it one, or remove weights and entry"
    ]


# Measuring again


def test_measured_again_the_scores_are_the_recorded_ones(trained):
    about = zoo.entry(NAME, folder=trained)
    assert measure(NAME, folder=trained) == about.scores
    assert list(measure(NAME, folder=trained, only=["robust@0.1"])) == ["robust@0.1"]
    clean = measure(NAME, folder=trained, n=100, only=["clean"])["clean"]
    test = tk.data.digits(0).test[:100]
    assert clean.n == 100
    assert clean.value == tk.evaluation.accuracy(zoo.load(NAME, folder=trained), test)
    assert audit(NAME, folder=trained, n=200) == []


@pytest.mark.bad_input
def test_measuring_what_is_not_there_is_one_sentence(trained):
    with pytest.raises(UnknownName, match=r"unknown score of digits-tiny 'robust@0\.2': did you mean robust@0\.1"):
        measure(NAME, folder=trained, only=["robust@0.2"])
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        measure(NAME, folder=trained, n=0)


def test_a_score_agrees_within_the_interval_of_as_many_images():
    recorded = Score(0.9, 0.886, 0.912, 2000, "right")
    again = {0.90: True, 0.911: True, 0.913: False, 0.887: True, 0.885: False}
    for value, expected in again.items():
        assert agrees(recorded, replace(recorded, value=value)) is expected, value
    assert agrees(recorded, replace(recorded, value=0.88, n=500))
    assert not agrees(recorded, replace(recorded, value=0.84, n=500))


def test_the_audit_reports_scores_that_no_longer_hold(trained, monkeypatch):
    worse = {name: replace(score, value=0.05) for name, score in zoo.entry(NAME, folder=trained).scores.items()}
    monkeypatch.setattr(auditing, "measure", lambda *_, **__: worse)
    said = audit(NAME, folder=trained)
    assert len(said) == 3
    assert said[0].startswith(f"{NAME}: clean 5.0% ")
    assert "; recorded " in said[0]
