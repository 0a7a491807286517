"""Twins of chapter 6: the same start and images, other teachers; made in miniature, measured, taken up again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from thesis_kit.checks import UnknownName
from thesis_kit.data import Part
from thesis_kit.data.captioned import Captioned
from thesis_kit.models import Clip
from thesis_kit.zookeeping.matching import matched
from thesis_kit.zookeeping.twins import ARMS, FOUR, Twin, fresh, loaded, make, name_of, stream_of, wanted

SHORT = {"updates": 5, "batch_size": 4, "size": 32, "tower": (("depth", 1), ("embed_dim", 48)), "text_depth": 1}


def short(arm: str) -> Twin:
    return replace(ARMS[arm], **SHORT)


def test_the_four_arms_are_sixteen_networks_and_seed_0_comes_first():
    made = wanted([])
    assert len(made) == 16
    assert [seed for _, seed in made] == sorted(seed for _, seed in made)
    assert {arm for arm, seed in made if seed == 0} == set(FOUR)
    assert wanted(["captions:3", "labels:1"]) == [("labels", 1), ("captions", 3)]
    with pytest.raises(UnknownName, match="unknown arm 'caption': did you mean captions"):
        wanted(["caption"])


def test_all_arms_of_a_seed_start_from_the_same_blocks_and_see_the_same_images():
    networks = [fresh(short(arm), 4) for arm in FOUR]
    towers = [network.image if isinstance(network, Clip) else network for network in networks]
    for tower in towers[1:]:
        for (name, one), (_, other) in zip(towers[0].named_parameters(), tower.named_parameters(), strict=True):
            assert "head" in name or torch.equal(one, other)
    assert [tower.network.head.out_features for tower in towers] == [16, 64, 64, 84]
    streams = [stream_of(short(arm), 4) for arm in FOUR]
    for place in (0, 1):  # an easy one, and one that counts
        first, *others = (stream.minibatch(place, 4).x for stream in streams)
        assert all(torch.equal(first, other) for other in others)
    assert len({stream.name for stream in streams}) == 4


def test_seeds_start_from_other_weights_and_see_other_images():
    one, other = (fresh(short("labels"), seed) for seed in (0, 1))
    assert not torch.equal(one.network.blocks[0].mlp.fc1.weight, other.network.blocks[0].mlp.fc1.weight)
    assert not torch.equal(*(stream_of(short("labels"), seed).minibatch(0, 2).x for seed in (0, 1)))


@pytest.mark.parametrize(
    ("arm", "scores"),
    [
        ("captions", {"matched", "shown", "class"}),
        ("exchanged", {"matched", "shown", "class"}),
        ("attributes", {"class", "attributes"}),
    ],
)
def test_a_twin_is_made_measured_as_it_is_stored_and_loaded(arm, scores, tmp_path):
    said = []
    told = make(short(arm), 0, name_of(arm, 0), folder=tmp_path, checkpoints=tmp_path / "c", say=said.append, n_test=20)
    assert json.loads((tmp_path / f"{arm}-0.scores.json").read_text()) == told
    assert set(told["scores"]) == scores
    assert told["n"] == 20
    assert [entry["update"] for entry in told["history"]] == [2, 4, 5]
    assert len(said) == 3
    model = loaded(arm, 0, folder=tmp_path, recipe=short(arm))
    assert not model.training
    start = fresh(short(arm), 0).state_dict()
    assert any(not torch.allclose(value, start[name], atol=1e-3) for name, value in model.state_dict().items())
    assert (tmp_path / f"{arm}-0.safetensors").stat().st_size < 3 * sum(p.numel() for p in model.parameters())


def test_a_twin_that_is_not_there_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make it with python -m thesis_kit.zookeeping.twins labels:2"):
        loaded("labels", 2, folder=tmp_path)


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher": "label"}, "unknown teacher 'label'"),
        ({"data": "scenes.v1"}, "unknown distribution of pairs 'scenes.v1'"),
        ({"augment": "none"}, "unknown augmentation 'none'"),
        ({"easy": 1.0}, r"easy must lie in \[0, 1\)"),
        ({"updates": 0}, "updates must be a whole number of at least 1"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        replace(ARMS["captions"], **change)
