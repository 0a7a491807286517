"""Twins of chapter 6 in the zoo: the same start and images, other teachers; made in miniature, measured, loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from thesis_kit.chapters.clip.settings import TAUGHT
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part
from thesis_kit.data.captioned import Captioned
from thesis_kit.data.scenes import splits
from thesis_kit.data.scenes.teachers import HEADS, TEACHERS, taught_splits
from thesis_kit.models import Clip, zoo
from thesis_kit.zookeeping import making
from thesis_kit.zookeeping.auditing import problems
from thesis_kit.zookeeping.member_scores import agrees, matched, measure
from thesis_kit.zookeeping.plans import plan_of
from thesis_kit.zookeeping.recipes import RECIPES

FOUR = ("twin-scenes64", "twin-scenes64-attributes", "clip-scenes64-class", "clip-scenes64")
TINY = {"size": 32, "channels": [8, 12, 16], "width": 48, "depth": 1, "heads": 3}


def short(name):
    """A twin's recipe with small towers, small images and few updates."""
    recipe = RECIPES[name]
    own = {"options": {**TINY, "own_head": True}} if recipe.kind != "image-text pair" else {
        "options": {**recipe.options, "image_options": TINY, "embed_dim": 16, "width": 24, "depth": 1}
    }  # fmt: skip
    data = {**recipe.data_options, "size": 32, "n_test": 24}
    return replace(recipe, updates=5, batch_size=4, data_options=data, **own)


def planned(name, seed=0):
    return plan_of(name, short(name).of_seed(seed), zoo.FOLDER, "cpu")


def test_every_teacher_that_arms_name_has_a_recipe_and_the_four_that_are_compared_are_twelve_networks():
    assert {member for member, _ in TAUGHT.values()} <= set(RECIPES)
    assert sum(RECIPES[name].seeds for name in FOUR) == 12
    assert {RECIPES[member].data_options["teacher"] for member, _ in TAUGHT.values()} <= set(TEACHERS)


def test_all_twins_of_a_seed_start_from_the_same_blocks_and_see_the_same_images():
    plans = [planned(name, 2) for name in FOUR]
    networks = [plan.network() for plan in plans]
    towers = [network.image if isinstance(network, Clip) else network for network in networks]
    for tower in towers[1:]:
        for (name, one), (_, other) in zip(towers[0].named_parameters(), tower.named_parameters(), strict=True):
            assert "head" in name or torch.equal(one, other)
    assert [tower.network.head.out_features for tower in towers] == [16, sum(HEADS.values()), 16, 16]
    for place in (0, 1):  # an easy one, and one that counts
        first, *others = (plan.train.minibatch(place, 4).x for plan in plans)
        assert all(torch.equal(first, other) for other in others)
    assert len({plan.train.name for plan in plans}) == 4


def test_seeds_start_from_other_weights_and_see_other_images_and_are_judged_by_the_same():
    one, other = (planned("twin-scenes64", seed) for seed in (0, 1))
    assert not torch.equal(*(plan.network().network.blocks[0].mlp.fc1.weight for plan in (one, other)))
    assert not torch.equal(*(plan.train.minibatch(0, 2).x for plan in (one, other)))
    assert torch.equal(one.splits.test.x, other.splits.test.x)


def test_taught_scenes_are_cut_as_scenes_are():
    told = {"name": "scenes.v1-pairs", "size": 16, "n_validation": 3, "n_test": 4}
    plain, asked = splits(1, **told), taught_splits(1, teacher="classes", **told)
    for part in ("validation", "test"):
        assert torch.equal(getattr(plain, part).x, getattr(asked, part).x)
        assert torch.equal(getattr(plain, part).y, getattr(asked, part).y)
    assert torch.equal(plain.train.minibatch(3, 2).x, asked.train.minibatch(3, 2).x)
    with pytest.raises(UnknownName, match="unknown teacher 'caption': did you mean captions"):
        taught_splits(0, teacher="caption")


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("clip-scenes64", {"captions", "images", "clean"}),
        ("clip-scenes64-exchanged", {"captions", "images", "clean"}),
        ("twin-scenes64-attributes", {"clean", "attributes"}),
        ("twin-scenes64", {"clean"}),
    ],
)
def test_a_twin_is_made_measured_as_it_is_stored_and_loaded(name, scores, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, name, short(name))
    monkeypatch.setattr(making, "CHECKPOINTS", tmp_path / "checkpoints")
    about = making.make(name, folder=tmp_path, device="cpu")
    assert set(about.scores) == scores
    assert about.input_shape == (3, 32, 32)
    assert problems(name, folder=tmp_path) == []
    assert all(agrees(about.scores[score], again) for score, again in measure(name, folder=tmp_path).items())
    model, start = zoo.load(name, folder=tmp_path), planned(name).network().state_dict()
    assert not model.training
    assert any(not torch.allclose(value, start[key], atol=1e-3) for key, value in model.state_dict().items())
    assert about.bytes < 3 * sum(p.numel() for p in model.parameters())
    sibling = making.make(name, seed=1, folder=tmp_path, device="cpu")
    assert zoo.entry(name, seed=1, folder=tmp_path).sha256 == sibling.sha256 != about.sha256


def test_matching_counts_captions_that_say_the_same():
    class Given(Clip):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def encode_image(self, x):
            return x.flatten(1)

        def encode_tokens(self, tokens):
            return torch.eye(3)[tokens[:, 0]]

    images = torch.eye(3)[[0, 1, 1, 2]].reshape(4, 3, 1, 1)
    tokens = torch.tensor([[0], [1], [1], [1]])  # the last image has the caption of those before
    y = Captioned(tokens, tokens[:, 0])
    to_text, to_image = matched(Given(), Part(images, y, torch.arange(4)))
    assert to_text.tolist() == [True, True, True, False]
    assert to_image.tolist() == [True, True, True, True]
