"""Chapter 5's arms in miniature: what they record is what the functions they rest on give, one number a network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.worlds import miniatures
from thesis_kit.chapters.features import measures, published
from thesis_kit.chapters.features.arms import EXPERIMENTS
from thesis_kit.chapters.features.settings import FEATURES
from thesis_kit.chapters.features.world import embeddings
from thesis_kit.data import Outlined
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.features import frequency, scores, tokens
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.statistics import wilson
from thesis_kit.models import zoo
from thesis_kit.randomness import mix_seed
from thesis_kit.zookeeping.recipes import RECIPES


@pytest.fixture(scope="module")
def result(miniature):
    return miniature("features.scenes")


@pytest.fixture(scope="module")
def scenes():
    return DISTRIBUTIONS["scenes.v1"].draw(24, 16, seed=mix_seed(501))


def scalars(result, arm):
    return result.cells[arm][1]["scalars"]


def test_every_measure_that_rules_ask_for_is_recorded(result):
    for claim in catalog().claims.values():
        for measure, arm in claim.terms if claim.chapter == "features" else ():
            assert math.isfinite(scalars(result, arm)[measure]), f"{measure}({arm})"


@pytest.mark.parametrize("arena", ["scenes", "real"])
def test_pilots_do_not_judge(arena):
    """Rules were chosen on networks of scenes with free backgrounds."""
    for arm in EXPERIMENTS[arena].arms:
        pilots = set() if arena == "real" or arm.name.endswith("-correlated") else {0}
        assert len(arm.seeds) >= 3
        assert set(arm.seeds) <= set(range(RECIPES[arm.settings.member].seeds)) - pilots  # what the recipe is for


def test_each_cell_rests_on_the_weights_of_its_own_network():
    arm = EXPERIMENTS["scenes"].arm("tokens@vit")
    assert (arm.networks, arm.cohorts) == ((), (arm.settings.member,))
    assert EXPERIMENTS["scenes"].arm("units@random").cohorts == ()
    cohort = "cnn-digits-natural"
    arm = replace(arm, cohorts=(cohort,))
    found = {seed: arm.identity(seed)["networks"] for seed in (0, 1, 2)}
    assert found == {seed: {cohort: zoo.entry(cohort, seed=seed).sha256} for seed in found}
    assert len({one[cohort] for one in found.values()}) == 3
    with pytest.raises(zoo.MissingWeights, match="has no network of seed 3"):
        arm.identity(3)


def test_tokens_are_those_of_the_functions(result, scenes):
    model, x, y = miniatures.tiny_network("vit"), scenes.images, scenes.labels
    found = scalars(result, "tokens@vit")

    def accuracy(logits):
        return measures.corrected((logits.argmax(dim=1) == y).double().mean().item(), 16)

    assert found["natural"] == pytest.approx(accuracy(model(x)), abs=1e-6)
    assert found["isolated"] == pytest.approx(accuracy(tokens.isolate_cls(model, x, 2)), abs=1e-6)
    assert found["held"] == pytest.approx(accuracy(tokens.isolate_cls(model, x, 2, hold="mean")), abs=1e-6)
    assert found["alone_half"] == pytest.approx(accuracy(tokens.drop_patches(model, x, 1)), abs=1e-6)
    assert found["alone_two_thirds"] == pytest.approx(accuracy(tokens.drop_patches(model, x, 2)), abs=1e-6)
    cosine = tokens.similarity(model, x).diff()
    assert found["cosine_gain_last"] == pytest.approx(cosine[-1].item(), abs=1e-5)
    assert found["cosine_gain_other"] == pytest.approx(cosine[:-1].max().item(), abs=1e-5)


def test_scores_are_means_over_a_third_of_blocks(result, scenes):
    model = miniatures.tiny_network("vit")
    e = embeddings(miniatures.tiny_network("encoder"), scenes.images)
    a = measures.pooled(model, scenes.images, ("v",))["v"]
    score = scores.monosemanticity(a[2], e, 4, strata=scenes.table.tint)
    found = scalars(result, "units@vit")
    assert found["monosemanticity_v_last"] == pytest.approx(score[~score.isnan()].mean().item(), abs=1e-4)
    assert result.curves("v", "units@vit")[1][-1][1] == pytest.approx(found["monosemanticity_v_last"], abs=1e-4)
    assert found != scalars(result, "units@random")


def test_masks_and_frequencies_are_those_of_the_functions(result, scenes):
    model = miniatures.tiny_network("resnet")
    right = (model(frequency.low_pass(scenes.images, 2)).argmax(dim=1) == scenes.labels).double().mean().item()
    whole = (model(scenes.images).argmax(dim=1) == scenes.labels).double().mean().item()
    curve = dict(map(tuple, result.curves("relative", "frequency@resnet-plain")[1]))
    assert curve[2] == pytest.approx(measures.corrected(right, 16) / measures.corrected(whole, 16), abs=1e-5)
    assert scalars(result, "leak@resnet-plain")["whole"] == pytest.approx(whole, abs=1e-6)
    assert measures.area({2: 0.5, 4: 1.0}) == 0.75
    assert measures.corrected(1 / 16, 16) == 0
    assert measures.corrected(1, 16) == 1


def test_photographs_are_compared_within_their_brightness():
    tones = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    images = (tones / 9).view(10, 1, 1, 1).expand(10, 1, 4, 4)
    pictures = measures.pictures_of_photographs(images, torch.arange(10) % 3, 4)
    assert pictures.strata.tolist() == [1, 0, 2, 0, 2, 4, 1, 3, 4, 3]
    assert pictures.concepts.sum(dim=0).tolist() == [4, 3, 3, 0]


def test_the_same_questions_are_asked_of_photographs(miniature):
    result, model = miniature("features.real"), miniatures.tiny_network("vit-on-clothes")
    test = miniatures.tiny_clothes().test[:24]
    found = scalars(result, "tokens@vit")
    right = (model(test.x).argmax(dim=1) == test.y).double().mean().item()
    assert found["natural"] == pytest.approx(measures.corrected(right, 10), abs=1e-6)
    e = embeddings(miniatures.tiny_network("encoder-on-clothes"), test.x)
    a = measures.pooled(model, test.x, ("q",))["q"][2]
    strata = measures.pictures_of_photographs(test.x, test.y, 10).strata
    score = scores.monosemanticity(a, e, 4, strata=strata)
    found = scalars(result, "units@vit")
    assert found["monosemanticity_q_last"] == pytest.approx(score[~score.isnan()].mean().item(), abs=1e-4)
    assert not any("mask" in measure or "octave" in measure for measure in found)


def test_a_published_vit_is_asked_on_photographs(monkeypatch, scenes):
    model, splits = miniatures.tiny_network("vit"), miniatures.tiny_clothes()
    test = replace(splits.test, x=splits.test.x.expand(-1, 3, -1, -1), y=splits.test.y % 2)
    asked_for = {}
    monkeypatch.setattr(published, "build", lambda name, **how: asked_for.update(how, name=name) or model)
    monkeypatch.setattr(published, "IMAGENETTE_IN_IMAGENET", (3, 5))
    monkeypatch.setattr(published.data, "imagenette", lambda *, size, n_test: replace(splits, test=test[:n_test]))
    pets = Outlined(scenes.images, scenes.labels, scenes.masks.sum(dim=1, keepdim=True).clamp(0, 1))
    monkeypatch.setattr(published.data, "oxford_pets", lambda *, size, n: pets)
    found = published.asked("vit_base", 20)
    assert asked_for == {"name": "vit_base", "pretrained": True}
    labels = torch.tensor([3, 5])[test.y[:20]]
    right = (model(test.x[:20]).argmax(dim=1) == labels).double().mean().item()
    assert found["natural"] == pytest.approx(measures.corrected(right, 16), abs=1e-6)
    assert found["mask_last"] == pytest.approx(measures.mask_by_block(model, scenes)[-1], abs=1e-5)


def test_thirds_of_depth_are_whole_blocks():
    assert measures.third([1, 2, 3, 4, 5, 6], "last") == 5.5
    assert measures.third([1, 2, 3, 4], "first") == 1.5


def test_live_settings_are_smaller_than_recorded_ones():
    small, record = FEATURES["small"], FEATURES["record"]
    assert small.images < record.images
    assert torch.tensor(record.cutoffs).diff().min() > 0


def test_a_share_has_wilsons_interval():
    found = measures.share(0.2, 120, 16)
    low, high = wilson(round((0.2 * 15 / 16 + 1 / 16) * 120), 120)
    assert (found.low, found.high) == (pytest.approx(measures.corrected(low, 16)), measures.corrected(high, 16))
    assert str(measures.share(-0.01, 120, 16)).startswith("0% (0 to ")


def test_codes_stand_beside_units_with_those_that_hardly_fire_left_out(scenes):
    model, e = miniatures.tiny_network("vit"), embeddings(miniatures.tiny_network("encoder"), scenes.images)
    found = measures.codes_beside_units(
        model, scenes.images, scenes, e, "blocks.1.residual", learned=("drawn", "learned"), strongest=3, fires=6,
        width=24, k=2, steps=5,
    )  # fmt: skip
    assert list(found) == ["units", "random directions", "codes, drawn", "codes, learned"]
    seen = measures.token_rows(model, scenes.images, "blocks.1.residual")
    score = scores.monosemanticity(seen.mean(dim=1), e, 3, strata=scenes.table.tint)
    assert found["units"]["alike"].value == pytest.approx(score.nanmean().item())
    assert found["codes, learned"]["count"] == 24
    assert found["codes, learned"]["dead"] <= found["codes, learned"]["seldom"] < 24
    assert found["codes, learned"]["explained"] > found["codes, drawn"]["explained"]
