"""Chapter 6's arms in miniature: what they record is what the functions they rest on give, one number a twin."""

from __future__ import annotations

import math

import pytest
import torch

from tests.worlds import miniatures
from thesis_kit import recording
from thesis_kit.chapters.clip import twin_measures
from thesis_kit.chapters.clip.arms import EXPERIMENTS, prompts_and_answers
from thesis_kit.chapters.clip.settings import CLIP, TAUGHT
from thesis_kit.chapters.clip.world import naming_shapes
from thesis_kit.data.scenes.lexicon import vocabulary
from thesis_kit.data.scenes.pairs import LANGUAGE, directed
from thesis_kit.data.scenes.vocabulary import RELATIONS
from thesis_kit.language import reads_order, typographic
from thesis_kit.language.naming import selective, strata_of
from thesis_kit.ledger.arm import frozen_hash
from thesis_kit.ledger.cells import unpack
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.results import load_result
from thesis_kit.randomness import mix_seed
from thesis_kit.zookeeping.recipes import RECIPES


@pytest.fixture(scope="module")
def result(miniature):
    return miniature("clip.scenes")


def scenes(data="scenes.v1-pairs"):
    return LANGUAGE[data].draw(48, 40, seed=mix_seed(601))


def scalars(result, arm, seed=0):
    return result.cells[arm][seed]["scalars"]


def twin(teacher, seed=0):
    return miniatures.tiny_twin(TAUGHT[teacher][0], seed)


def test_every_measure_that_rules_ask_for_is_recorded(result):
    for claim in catalog().claims.values():
        for measure, arm in claim.terms if claim.chapter == "clip" else ():
            cell = result.cells[arm][0]
            found = cell["scalars"].get(measure, cell["outcomes"].get(measure))
            assert found is not None, f"{measure}({arm})"
            assert not isinstance(found, float) or math.isfinite(found), f"{measure}({arm})"


def test_the_ten_rows_have_rules():
    rows = [claim for claim in catalog().claims.values() if claim.chapter == "clip"]
    assert len(rows) == 10
    assert all(claim.rule for claim in rows)


def test_order_and_words_are_those_of_the_functions(result):
    right = reads_order(twin("captions"), scenes()).double().mean().item()
    assert scalars(result, "order@captions")["order"] == pytest.approx(right, abs=1e-9)
    assert scalars(result, "order@captions")["wrong"] == pytest.approx(1 - right, abs=1e-9)
    inside = scenes().table.relation[directed(scenes().table)] == RELATIONS.index("inside")
    for name, rows in (("inside", inside), ("beside", ~inside)):
        share = reads_order(twin("captions"), scenes())[rows].double().mean().item()
        assert scalars(result, "order@captions")[f"order_{name}"] == pytest.approx(share, abs=1e-9)
    table = scenes("scenes.v1-pairs-named").table
    found = typographic(naming_shapes(twin("named-labels")), table, 40)
    assert scalars(result, "words@named-labels")["flips"] == found.flipped.double().mean().item()


def test_probes_are_means_of_what_a_class_does_not_say(result):
    found = scalars(result, "probe@labels")
    names = ("count", "color", "background", "other_shape", "theme")
    assert found["probe"] == pytest.approx(sum(found[f"probe_{name}"] for name in names) / 5, abs=1e-9)
    assert found["probe_color"] > -0.2
    assert twin_measures.corrected(1 / 11, 11) == pytest.approx(0, abs=1e-12)


def test_late_units_are_those_of_the_last_third():
    tower, x = twin("labels"), scenes().images[:4]
    last = [site.name for site in recording.sites(tower).of_kind("hidden")][-1]
    expected = recording.stream(tower, x, last, reduce="rows")[last]
    assert torch.allclose(twin_measures.late_units(tower, x), expected)


def test_units_of_every_block_are_asked(result):
    found = dict(result.cells["units@labels"][0]["curves"]["selective"])
    tower, drawn = twin("labels"), scenes()
    names = [site.name for site in recording.sites(tower).of_kind("hidden")]
    assert list(found) == list(range(1, len(names) + 1))
    a = torch.cat([recording.stream(tower, drawn.images, name, reduce="rows")[name] for name in names], dim=1)
    settings = result.cells["units@labels"][0]["settings"]
    strata = strata_of(drawn.table.shape[:, 0], twin_measures.area(drawn), settings["bins"])
    known = {key: settings[key] for key in ("least", "shuffles")}
    some = selective(a, twin_measures.concepts(drawn)[1], strata, **known).any(dim=1)
    shares = some.double().unflatten(0, (len(names), -1)).mean(dim=1).tolist()
    assert [*found.values()] == pytest.approx(shares)


def test_attacks_are_compared_at_one_radius_chosen_on_other_scenes(result):
    one, other = (scalars(result, f"robust@{on}")["eps"] for on in ("labels", "captions"))
    assert one == other
    cell = result.cells["robust@captions"][0]
    assert cell["n"] == 8
    clean, under = (unpack(cell["outcomes"][name], 8) for name in ("N", "R"))
    assert (under <= clean).all()


def test_neutral_prompts_are_asked_of_both_trainings(result):
    assert set(scalars(result, "bias@biased")) == {"leaked", "shape_read"}
    assert 0 <= scalars(result, "bias@captions")["leaked"] <= 1


def test_prompts_name_two_attributes_each_and_all_of_them_can_be_said():
    said, wanted = prompts_and_answers(CLIP["record"])
    assert len(said) == len(set(said)) == len(wanted) == 16 * 14 >= 200
    assert vocabulary()(said).shape[0] == len(said)
    assert all(len(want) == 2 for want in wanted)
    assert "an orange arrow" in said
    assert "a striped leaf" in said


def test_words_of_concepts_can_all_be_said():
    words, has = twin_measures.spoken(scenes())
    vocabulary()(words)
    assert has.shape == (48, len(words))
    assert has[:, :11].sum(dim=1).tolist() == [1] * 48


def test_recorded_names_are_words_that_units_can_be_named_by():
    known = set(twin_measures.spoken(scenes())[0])
    cells = [cell for arm in load_result("clip.scenes").cells.values() for cell in arm.values()]
    names = [name for cell in cells for name in cell.get("chosen", {}).get("measured", [])]
    assert names
    assert set(names) <= known


def test_recorded_seeds_are_the_twins_that_recipes_make():
    for arm in EXPERIMENTS["scenes"].arms:
        on = arm.name.partition("@")[2]
        if on in TAUGHT and not arm.name.startswith("bias"):
            assert len(arm.seeds) == RECIPES[TAUGHT[on][0]].seeds, arm.name
    assert frozen_hash("scenes.v1-pairs-biased") == LANGUAGE["scenes.v1-pairs-biased"].data_hash()
