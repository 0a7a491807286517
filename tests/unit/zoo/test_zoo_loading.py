"""The zoo: what training wrote is what loading reads, and nothing else is accepted."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import thesis_kit as tk
from tests.worlds.tiny_zoo import NAME, TINY, rewrite
from thesis_kit.checks import UnknownName
from thesis_kit.files import DamagedFile
from thesis_kit.ledger import registry
from thesis_kit.models import Classifier, zoo
from thesis_kit.models.zoo import MissingWeights, UnfitWeights
from thesis_kit.zookeeping import plans
from thesis_kit.zookeeping.auditing import problems
from thesis_kit.zookeeping.making import make

# Loading


def test_a_member_is_a_classifier_ready_to_use(trained):
    before = torch.random.get_rng_state()
    model = tk.zoo.load(NAME, folder=trained)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(model, Classifier)
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    test = tk.data.digits(0).test
    assert tk.evaluation.accuracy(model, test) == zoo.entry(NAME, folder=trained).scores["clean"].value
    assert tk.attacks.pgd(model, test.x[:4], test.y[:4], eps=0.1, steps=2).shape == (4, 1, 8, 8)


def test_the_entry_says_what_the_member_is(trained):
    about = zoo.entry(NAME, folder=trained)
    weights = (trained / f"{NAME}.safetensors").read_bytes()
    assert zoo.names(folder=trained) == [NAME]
    assert (about.name, about.title, about.architecture, about.options) == (NAME, TINY.title, "small_cnn", {"width": 6})
    assert (about.n_classes, about.class_names, about.image_shape) == (10, tuple("0123456789"), (1, 8, 8))
    assert about.recipe == TINY.settings()
    assert (about.data, about.data_hashes) == ("digits", {"digits": plans.SOURCES["digits"].data_hash()})
    assert (about.file, about.bytes, about.dtype) == (f"{NAME}.safetensors", len(weights), "float16")
    assert list(about.scores) == ["clean", "robust@0.1", "robust@8/255"]
    for score in about.scores.values():
        assert 0 <= score.low < score.value < score.high <= 1
        assert score.n == len(tk.data.digits(0).test)
    assert about.scores["robust@0.1"].value < about.scores["robust@8/255"].value < about.scores["clean"].value
    assert about.training["passes"]["backward"] == TINY.updates
    assert not {"start", "teacher"} & set(about.training)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about.measured["date"])
    assert about.measured["machine"]["torch"] == torch.__version__
    assert about.code["version"] == tk.__version__


def test_weights_are_stored_in_half_and_loaded_in_full(trained):
    held = safetensors.torch.load_file(trained / f"{NAME}.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.float16}
    state = zoo.load(NAME, folder=trained).state_dict()
    assert all(torch.equal(state[key], tensor.float()) for key, tensor in held.items())


def test_batch_norm_counters_stay_whole_numbers(tmp_path, recipes):
    recipes[NAME] = replace(TINY, architecture="preact_resnet18", options={"width": 2}, updates=2)
    make(NAME, folder=tmp_path)
    held = safetensors.torch.load_file(tmp_path / f"{NAME}.safetensors")
    counters = [tensor for key, tensor in held.items() if key.endswith("num_batches_tracked")]
    assert {tensor.dtype for tensor in counters} == {torch.int64}
    assert set(map(int, counters)) == {2}
    assert problems(NAME, folder=tmp_path) == []


def test_an_empty_zoo_has_no_names_and_says_so(tmp_path):
    assert zoo.names(folder=tmp_path) == []
    with pytest.raises(
        UnknownName, match=r"unknown zoo model 'any': the zoo has no members yet; `thesis-kit zoo list`"
    ):
        zoo.load("any", folder=tmp_path)


def test_an_unknown_name_offers_near_ones(trained):
    with pytest.raises(UnknownName, match=f"unknown zoo model 'digit-tiny': did you mean {NAME}"):
        zoo.load("digit-tiny", folder=trained)


def test_a_missing_file_is_named_with_the_command_that_makes_it(folder):
    (folder / f"{NAME}.safetensors").unlink()
    with pytest.raises(MissingWeights, match=rf"the weights of {NAME} are missing.*`make zoo NAME={NAME}`"):
        zoo.load(NAME, folder=folder)


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything"])
def test_an_altered_file_is_refused_by_name(folder, damage):
    path = folder / f"{NAME}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"a bit": data, "the end": path.read_bytes()[:-9], "everything": b""}[damage])
    with pytest.raises(DamagedFile, match=rf"the weights of {NAME} are not those that {NAME}\.json describes"):
        zoo.load(NAME, folder=folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["scores"]["clean"].update(value=1.0),
        lambda record: record["recipe"].update(updates=81),
        lambda record: record.update(sha256="0" * 64),
        lambda record: record.update(extra=1),
        lambda record: record.pop("bytes"),
    ],
    ids=["score", "recipe", "hash", "more", "less"],
)
def test_an_entry_edited_by_hand_is_refused_by_name(folder, change):
    rewrite(folder, change)
    for read in (zoo.entry, zoo.load):
        with pytest.raises(DamagedFile, match=rf"the entry of {NAME} was altered.*`make zoo NAME={NAME}`"):
            read(NAME, folder=folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 2, "name": "digits', "cut short or no entry"),
        ("[]", "cut short or no entry"),
        ('{"schema": 2, "name": "b", "seal": ""}', "cut short or no entry"),
        ('{"schema": 9, "name": "digits-tiny", "seal": ""}', "has format 9, this thesis_kit reads format 2"),
    ],
)
def test_an_entry_that_is_none_is_one_sentence_that_names_the_model(folder, text, said):
    (folder / f"{NAME}.json").write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFile, match=rf"cannot look up {NAME}: .*{said}"):
        zoo.load(NAME, folder=folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 5}, r"network\.0\.weight has shape \(6, 1, 3, 3\) instead of \(5, 1, 3, 3\).* and 6 more"),
        ({"width": 6, "n_classes": 3}, r"network\.10\.weight has shape \(10, 24\) instead of \(3, 24\)"),
    ],
)
def test_weights_for_another_architecture_name_the_tensors(trained, options, said):
    weights = (trained / f"{NAME}.safetensors").read_bytes()
    with pytest.raises(UnfitWeights, match=rf"the weights of {NAME} are for another architecture \({said}"):
        zoo.with_weights(tk.build("small_cnn", **options), weights, NAME)


def test_missing_and_unexpected_tensors_are_named(trained):
    held = safetensors.torch.load_file(trained / f"{NAME}.safetensors")
    held["network.99.weight"] = held.pop("network.0.weight")
    network = tk.build("small_cnn", width=6)
    with pytest.raises(UnfitWeights, match=r"network\.0\.weight is missing, network\.99\.weight is unexpected"):
        zoo.with_weights(network, safetensors.torch.save(held), NAME)


def test_a_file_that_holds_no_tensors_is_one_sentence():
    with pytest.raises(DamagedFile, match="the weights of mine are no safetensors file"):
        zoo.with_weights(tk.build("small_cnn"), b"no tensors", "mine")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_sentence(trained):
    with pytest.raises(ValueError, match="there is no usable GPU here"):
        zoo.load(NAME, folder=trained, device="cuda")


# Around it


def test_the_zoo_is_no_chapter():
    assert not [name for name in registry.chapters() if name.startswith("zoo")]
    assert "defenses" in registry.chapters()
