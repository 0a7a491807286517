"""Every arm of every chapter runs in miniature, on nothing but its own settings, and is what the ledger can judge."""

from __future__ import annotations

import importlib
import pickle
from dataclasses import replace

import numpy as np
import pytest

from tests.worlds.miniatures import NAMES, experiments
from thesis_kit.ledger.arm import Settings
from thesis_kit.ledger.cells import unpack
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.registry import find
from thesis_kit.ledger.reproducing import timeless
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.runner import run_cell
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.show.figures import COLORS

EVERY = [(name, arm.name) for name in NAMES for arm in experiments()[name].arms]
AGAIN = {  # an arm that shares work with others and is cheap
    "certificates.scenes": "inside shadow",
    "clip.scenes": "order@captions",
    "defenses.digits": "n-fgsm@strong",
    "defenses.scenes": "tuned@5",
    "features.real": "tokens@vit",
    "features.scenes": "tokens@vit",
    "inversion.real": "tv+l2@lite1",
    "inversion.scenes": "tv+l2@mixer",
    "regularization.digits": "ls+noise",
    "regularization.scenes": "lsq+noise",
    "sonification.real": "probe@trained",
    "sonification.speech": "probe@random",
}


@pytest.mark.parametrize(("name", "arm"), EVERY)
def test_an_arm_is_complete_and_was_measured_on_its_own_settings_alone(miniature, name, arm):
    """That no setting is missing shows in its having run: an arm cannot read what it was not given."""
    result, planned = miniature(name), experiments()[name].arm(arm)
    assert set(result.cells[arm]) == set(planned.seeds)
    for cell in result.cells[arm].values():
        outcomes = [unpack(bits, cell["n"]) for bits in cell["outcomes"].values()]
        assert outcomes
        for column in (*outcomes, *cell["values"].values()):
            assert len(column) == cell["n"] > 0
            assert np.isfinite(np.asarray(column, dtype=float)).all()
        assert np.isfinite(list(cell["scalars"].values())).all()
        assert cell["group"]
        assert cell["seconds"] > 0
        for cost in cell["budget"].values():
            assert {"forward", "backward", "forward_images", "backward_images"} <= set(cost)
    pickle.loads(pickle.dumps(planned))  # it travels to other processes


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_names_the_function_of_its_chapter_that_makes_it(name):
    chapter, arena = name.split(".")
    for arm in find(chapter, arena).arms:
        module, _, function = arm.maker.rpartition(".")
        assert module.startswith(f"thesis_kit.chapters.{chapter}."), arm.maker
        assert callable(getattr(importlib.import_module(module), function, None)), arm.maker


@pytest.mark.parametrize("name", NAMES)
def test_the_miniature_has_the_arms_that_are_recorded(name):
    tiny, recorded = experiments()[name], find(*name.split("."))
    counted = {"@": "where", "=": "how many"}  # arms of another size have another number in their name
    unsized = [{arm.partition("@")[0].partition("=")[0] for arm in one.names} for one in (tiny, recorded)]
    assert unsized[0] == unsized[1], counted
    for arm in recorded.arms:
        assert not arm.look or (arm.look.color in COLORS and arm.short)
        assert arm.units[-1] in ("image", "drawing", "word", "voice", "clip", "unit")


@pytest.mark.parametrize("name", NAMES)
def test_arms_that_are_compared_meet_the_same_images(miniature, name):
    """Every claim that can be judged is, so no two arms of a paired contrast tested different images."""
    result, arena = _in_full(miniature(name)), name.partition(".")[2]
    claims = [claim for claim in catalog().of(name.partition(".")[0]) if arena in (claim.arena, *claim.also)]
    waiting = [one for one in claims if one.not_run and one.arena == arena]
    judged = [one for one in claims if one not in waiting and {arm for _, arm in one.terms} <= set(result.cells)]
    judged = judged or [replace(one, not_run=None) for one in claims if one.terms]  # those whose networks are to come
    assert judged
    for claim in judged:
        found = judge_claim(claim, result, arena)
        assert found.verdict is not Verdict.NOT_RUN, (claim.id, found.reason)


def _in_full(result: Result) -> Result:
    """A recording with every cell twice, as if by two seeds more."""
    cells = {
        arm: {**found, **{seed + 10: {**cell, "seed": seed + 10} for seed, cell in found.items()}}
        for arm, found in result.cells.items()
    }
    return Result(result.name, cells, result.planned)


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_measured_again_from_nothing_is_the_same(miniature, around, name, tmp_path):
    recorded, arm = miniature(name), experiments()[name].arm(AGAIN[name])
    seed = arm.seeds[-1]
    with around(name):
        shared = run_cell(arm, seed)
    kept = timeless({key: value for key, value in recorded.cells[arm.name][seed].items() if key in shared})
    assert timeless(shared) == kept
    if name in ("defenses.digits", "regularization.scenes"):  # where making all anew takes seconds
        with around(name, tmp_path):
            assert timeless(run_cell(arm, seed)) == kept


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_an_arm_was_not_given_is_named(miniature, around, name):
    arm = experiments()[name].arm(AGAIN[name])
    for missing in arm.settings:
        less = Settings({key: value for key, value in arm.settings.items() if key != missing})
        break
    with around(name), pytest.raises(AttributeError, match=f"{missing} is none of this arm's own settings"):
        replace(arm, settings=less).run(0)
