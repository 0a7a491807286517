"""The zoo: what training writes is what loading reads, nothing else is accepted, and no interruption costs a member."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import thesis_kit as tk
from thesis_kit import training
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.files import DamagedFile, only_writer
from thesis_kit.ledger import registry
from thesis_kit.models import Classifier, entries, zoo
from thesis_kit.models.kinds import KINDS, Kind
from thesis_kit.models.zoo import MissingWeights, Score, UnfitWeights
from thesis_kit.show.zoo_page import zoo_page
from thesis_kit.zookeeping import auditing, making, member_scores, plans
from thesis_kit.zookeeping.auditing import audit, problems
from thesis_kit.zookeeping.making import make
from thesis_kit.zookeeping.member_scores import agrees, measure
from thesis_kit.zookeeping.recipe import Recipe, TrainingStage, register
from thesis_kit.zookeeping.recipes import RECIPES

NAME = "digits-tiny"
TINY = Recipe(
    title="A tiny network for digits.",
    data="digits",
    architecture="small_cnn",
    options={"width": 6},
    method="free",
    method_options={"eps": 0.1, "replays": 2},
    updates=80,
    lr=0.3,
    eps=(0.1, 8 / 255),
)
SCENES = {"data": "scenes.v1", "data_options": {"size": 8, "n_validation": 4, "n_test": 6}, "method": "natural",
          "method_options": {}, "batch_size": 4, "updates": 10, "eps": (8 / 255,)}  # fmt: skip


@pytest.fixture(autouse=True)
def recipes(monkeypatch, tmp_path):
    """The recipes are one, and checkpoints lie where nobody else looks."""
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    monkeypatch.setitem(RECIPES, NAME, TINY)
    monkeypatch.setattr(making, "CHECKPOINTS", tmp_path / "checkpoints")
    return RECIPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of weights with the tiny member in it, to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    RECIPES[NAME] = TINY
    try:
        make(NAME, folder=folder, checkpoint=folder / "checkpoints")
    finally:
        del RECIPES[NAME]
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it, to be damaged."""
    copy = tmp_path / "weights"
    copy.mkdir()
    for file in (f"{NAME}.safetensors", f"{NAME}.json"):
        (copy / file).write_bytes((trained / file).read_bytes())
    return copy


def rewrite(folder: Path, change) -> None:
    """Change the member's entry by hand."""
    record = json.loads((folder / f"{NAME}.json").read_bytes())
    change(record)
    (folder / f"{NAME}.json").write_text(json.dumps(record), encoding="utf-8")


def same_files(one: Path, other: Path) -> bool:
    first, second = ((folder / f"{NAME}.safetensors").read_bytes() for folder in (one, other))
    return first == second


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


# Making


def test_a_repeated_run_writes_the_same_file(trained, tmp_path):
    make(NAME, folder=tmp_path)
    assert same_files(trained, tmp_path)
    one, other = (zoo.entry(NAME, folder=where) for where in (trained, tmp_path))
    assert one.scores == other.scores
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [f"{NAME}.json", f"{NAME}.safetensors"]


def test_it_says_the_expected_time_first_and_the_sizes_last(tmp_path):
    said = []
    make(NAME, folder=tmp_path, progress=said.append)
    assert re.fullmatch(rf"{NAME}: 80 updates of free training on digits, about \d+ s here", said[0])
    assert re.fullmatch(rf"{NAME}: trained in \d+ s, measuring on 360 test items", said[1])
    assert re.fullmatch(
        rf"{NAME}: clean \d+\.\d% \(\d+\.\d to \d+\.\d\) of 360 test images classified rightly", said[2]
    )
    assert re.fullmatch(rf"{NAME}: \d+ kB; shipped weights are \d+ kB in all", said[-1])


def test_a_member_that_is_up_to_date_is_trained_again_only_by_force(folder, monkeypatch, recipes):
    said = []
    monkeypatch.setattr(making, "_make", lambda *_: pytest.fail("trained again"))
    recipes[NAME] = replace(TINY, title="Better words.")
    about = make(NAME, folder=folder, progress=said.append)
    assert said == [f"{NAME} is up to date; --force trains it again"]
    assert about == zoo.entry(NAME, folder=folder)
    assert about.title == "Better words."
    monkeypatch.setattr(making, "_make", lambda *_: zoo.entry(NAME, folder=folder))
    assert make(NAME, folder=folder, force=True) == about


@pytest.mark.parametrize("damage", ["weights", "entry", "recipe"])
def test_what_is_not_up_to_date_is_made_again(folder, recipes, damage):
    if damage == "weights":
        (folder / f"{NAME}.safetensors").write_bytes(b"")
    elif damage == "entry":
        rewrite(folder, lambda record: record.update(sha256="0" * 64))
    else:
        recipes[NAME] = replace(TINY, updates=20)
    assert problems(NAME, folder=folder) != []
    make(NAME, folder=folder)
    assert problems(NAME, folder=folder) == []
    zoo.load(NAME, folder=folder)


def test_other_members_keep_their_entries(folder, recipes):
    recipes["another-one"] = replace(TINY, updates=4, seed=1)
    before = zoo.entry(NAME, folder=folder)
    make("another-one", folder=folder)
    assert zoo.names(folder=folder) == ["another-one", NAME]
    assert zoo.entry(NAME, folder=folder) == before


class Stop(Exception):
    """An interruption that no code expects."""


@pytest.mark.parametrize("place", ["measure_scores", "write_together"])
def test_the_old_member_stays_until_the_new_one_is_measured(folder, tmp_path, monkeypatch, recipes, place):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipes[NAME] = replace(TINY, seed=1)

    def stop(*_, **__):
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(making, place, stop)
        with pytest.raises(Stop):
            make(NAME, folder=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    said = []
    monkeypatch.setattr(making, "_expected_seconds", lambda plan: 1.0)
    monkeypatch.setattr(training.methods.Free, "minibatch", lambda *_: pytest.fail("trained again"))
    make(NAME, folder=folder, progress=said.append)
    assert said[0].endswith("of which an interrupted run has made a part")
    assert problems(NAME, folder=folder) == []
    assert not (tmp_path / "checkpoints" / NAME).exists()


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(tmp_path, monkeypatch, recipes):
    def stop(*_, **__):
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(making, "measure_scores", stop)
        with pytest.raises(Stop):
            make(NAME, folder=tmp_path)
    recipes[NAME] = replace(TINY, options={"width": 6}, eps=(0.05,), augment="shift")
    said = []
    make(NAME, folder=tmp_path, progress=said.append)
    assert said[0].endswith("s here")
    assert not (tmp_path / "checkpoints" / NAME).exists()


_VICTIM = """
import os, signal, sys, time
from pathlib import Path
import torch
from thesis_kit.zookeeping import making as zoo
from thesis_kit.zookeeping.recipes import RECIPES
from tests.unit.test_zoo import NAME, TINY

torch.set_num_threads(1)
folder, checkpoints = Path(sys.argv[1]), Path(sys.argv[2])
RECIPES[NAME], zoo.CHECKPOINT_SECONDS = TINY, 0.0

def written():
    return [path.stat().st_ino for path in checkpoints.glob("*/*.ckpt")]

killed = 0
for _ in range(2):
    child = os.fork()
    if child == 0:
        zoo.make(NAME, folder=folder, checkpoint=checkpoints)
        os._exit(0)
    before = written()
    while written() == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
assert not list(folder.glob("*.safetensors")), "weights were written before they were measured"
zoo.make(NAME, folder=folder, checkpoint=checkpoints, progress=print)
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_resumed_it_writes_the_file_of_an_unbroken_run(trained, tmp_path):
    command = [sys.executable, "-c", _VICTIM, str(tmp_path / "weights"), str(tmp_path / "checkpoints")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2"
    assert "an interrupted run has made a part" in done.stdout
    assert same_files(trained, tmp_path / "weights")


def test_a_second_run_of_the_same_member_is_refused(tmp_path):
    with only_writer(tmp_path / f"{NAME}.safetensors"), pytest.raises(ValueError, match="another run is writing"):
        make(NAME, folder=tmp_path)


def test_a_damaged_entry_is_written_anew(folder):
    (folder / f"{NAME}.json").write_text("", encoding="utf-8")
    assert problems(NAME, folder=folder) != []
    about = make(NAME, folder=folder)
    assert zoo.entry(NAME, folder=folder) == about


def test_what_others_trained_cannot_be_trained_here(tmp_path):
    (tmp_path / "efficientnet-lite0.json").write_bytes(entries.path_of("efficientnet-lite0").read_bytes())
    with pytest.raises(ValueError, match=r"efficientnet-lite0 has no recipe here: others trained it, and the package"):
        make("efficientnet-lite0", folder=tmp_path)


def test_an_unknown_recipe_offers_near_ones(tmp_path):
    with pytest.raises(UnknownName, match=f"unknown zoo recipe 'digits-tin': did you mean {NAME}"):
        make("digits-tin", folder=tmp_path)


def test_weights_that_overflow_their_storage_are_refused():
    network = tk.build("small_cnn", width=2, seed=0)
    with torch.no_grad():
        network.network[0].bias[0] = 1e6
    with pytest.raises(NonFiniteOutput, match='the weights of big do not fit into float16: set storage="float32"'):
        making._packed(network, "float16", "big")
    held = safetensors.torch.load(making._packed(network, "float32", "big"))
    assert held["network.0.bias"][0] == 1e6


def test_a_member_that_is_not_shipped_lies_apart_and_may_be_absent(tmp_path, recipes):
    recipes[NAME] = replace(TINY, shipped=False, updates=4)
    about = make(NAME, folder=tmp_path)
    assert (about.file, about.shipped) == (f"local/{NAME}.safetensors", False)
    assert problems(NAME, folder=tmp_path) == []
    zoo.load(NAME, folder=tmp_path)
    (tmp_path / about.file).unlink()
    assert problems(NAME, folder=tmp_path) == []
    said = []
    assert audit(NAME, folder=tmp_path, progress=said.append) == []
    assert said == [f"{NAME}: not shipped, and not made here"]
    with pytest.raises(MissingWeights, match=rf"{NAME} do not come with the package: .* `make zoo NAME={NAME}`"):
        zoo.load(NAME, folder=tmp_path)
    assert make(NAME, folder=tmp_path).sha256 == about.sha256


def test_a_member_may_start_from_another(folder, recipes):
    recipes["digits-next"] = replace(TINY, start=NAME, updates=1, lr=0.0, weight_decay=0.0, method="natural",
                                     method_options={})  # fmt: skip
    about = make("digits-next", folder=folder)
    assert about.training["start"] == zoo.entry(NAME, folder=folder).sha256
    assert about.sha256 == about.training["start"]  # a step of length 0
    recipes[NAME] = replace(TINY, updates=20)
    make(NAME, folder=folder)
    assert problems("digits-next", folder=folder) == [
        f"digits-next was trained with other weights of its start {NAME}: "
        "train it again with `make zoo NAME=digits-next`"
    ]
    recipes["digits-next"] = replace(recipes["digits-next"], start="nobody")
    with pytest.raises(UnknownName, match="unknown zoo model 'nobody'"):
        make("digits-next", folder=folder)


def test_in_a_folder_of_ones_own_a_member_may_start_from_the_packages(folder, recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", folder)
    first = zoo.entry(NAME).sha256
    recipes["digits-next"] = replace(TINY, start=NAME, updates=1, lr=0.0, weight_decay=0.0, method="natural",
                                     method_options={})  # fmt: skip
    mine = tmp_path / "mine"
    assert make("digits-next", folder=mine).training["start"] == first
    assert zoo.names(folder=mine) == ["digits-next"]
    assert "digits-next" not in zoo.names()
    assert problems("digits-next", folder=mine) == []


def test_a_member_may_have_another_as_its_teacher(folder, recipes):
    recipes["digits-taught"] = replace(
        TINY, architecture="deit_tiny_distilled_patch16_224", method="hard-distillation", updates=1,
        method_options={"teacher": NAME}, eps=(),
        options={"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
    )  # fmt: skip
    about = make("digits-taught", folder=folder)
    assert about.training["teacher"] == zoo.entry(NAME, folder=folder).sha256
    assert problems("digits-taught", folder=folder) == []
    recipes[NAME] = replace(TINY, seed=1)
    make(NAME, folder=folder)
    assert problems("digits-taught", folder=folder) == [
        f"digits-taught was trained with other weights of its teacher {NAME}: "
        "train it again with `make zoo NAME=digits-taught`"
    ]


def test_a_start_of_another_architecture_is_one_sentence(folder, recipes):
    recipes["digits-next"] = replace(TINY, start=NAME, options={"width": 4})
    with pytest.raises(UnfitWeights, match=f"the weights of {NAME} are for another architecture"):
        make("digits-next", folder=folder)


def test_stages_follow_one_another_in_one_run(tmp_path, recipes, monkeypatch):
    seen = []

    class Watching(training.Natural):
        def minibatch(self, x, y, run):
            seen.append(x)
            super().minibatch(x, y, run)

    stages = (TrainingStage(0.25, "scenes.v1-easy"), TrainingStage(0.75))
    recipes[NAME] = replace(TINY, **SCENES, stages=stages)
    with monkeypatch.context() as patched:
        patched.setitem(training.METHODS, "natural", Watching)
        patched.setattr(making, "_expected_seconds", lambda plan: 1.0)
        about = make(NAME, folder=tmp_path)
    easy, plain = (tk.data.load(name, 0, **SCENES["data_options"]).train for name in ("scenes.v1-easy", "scenes.v1"))
    assert len(seen) == SCENES["updates"]
    for position, x in enumerate(seen):
        assert torch.equal(x, (easy if position < 2 else plain).minibatch(position, 4).x)  # 2.5 rounds to even
    assert about.data_hashes == {name: DISTRIBUTIONS[name].data_hash() for name in ("scenes.v1", "scenes.v1-easy")}
    assert about.class_names == DISTRIBUTIONS["scenes.v1"].classes
    assert about.image_shape == (3, 8, 8)
    assert problems(NAME, folder=tmp_path) == []


def test_stages_need_streams(tmp_path, recipes):
    recipes[NAME] = replace(TINY, stages=(TrainingStage(0.5), TrainingStage(0.5)))
    with pytest.raises(ValueError, match="stages need data that are streamed"):
        make(NAME, folder=tmp_path)


def test_data_without_a_source_are_one_sentence(tmp_path, recipes):
    recipes[NAME] = replace(TINY, data="cifar10")
    with pytest.raises(UnknownName, match="unknown data set of the zoo 'cifar10'"):
        make(NAME, folder=tmp_path)


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
    changes = {"title": "x", "shipped": False, "seeds": 2}
    assert replace(TINY, **changes).settings() == TINY.settings()
    squeezed = replace(TINY, terms={"logit-squeezing": {"beta": 0.1}})
    assert set(squeezed.settings()) == set(vars(TINY)) - {*changes, "seeds", "kind"}
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


# Cohorts


@pytest.fixture
def cohort(folder, recipes):
    """The tiny member as the first of three networks."""
    recipes[NAME] = replace(TINY, seeds=3)
    return folder


def test_a_cohort_is_one_entry_with_a_network_a_seed(cohort):
    assert problems(NAME, folder=cohort) == []  # how many seeds there are decides no weight
    first, told = zoo.entry(NAME, folder=cohort), []
    for seed in (2, 1):
        made = make(NAME, seed=seed, folder=cohort, progress=told.append)
        assert told[-1].startswith(f"{NAME}, seed {seed}: ")
        assert (made.file, made.recipe["seed"]) == (f"local/{NAME}.seed{seed}.safetensors", seed)
    about = zoo.entry(NAME, folder=cohort)
    assert zoo.names(folder=cohort) == [NAME]
    assert list(about.siblings) == ["1", "2"]
    assert replace(about, siblings={}) == first
    assert len({about.sha256, *(one.sha256 for one in about.siblings.values())}) == 3
    for seed in (0, 1, 2):
        found = measure(NAME, seed=seed, folder=cohort, only=["clean"])["clean"]
        assert found == zoo.entry(NAME, seed=seed, folder=cohort).scores["clean"]
    kept = zoo.load(NAME, seed=1, folder=cohort).state_dict()
    stored = safetensors.torch.load_file(cohort / "local" / f"{NAME}.seed1.safetensors")
    assert all(torch.equal(kept[key], tensor.float()) for key, tensor in stored.items())
    said = []
    assert audit(NAME, n=100, folder=cohort, progress=said.append) == []
    assert [line.split(":")[0] for line in said[::3]] == [NAME, f"{NAME}, seed 1", f"{NAME}, seed 2"]
    assert make(NAME, seed=1, folder=cohort, progress=said.append) == zoo.entry(NAME, seed=1, folder=cohort)
    assert said[-1] == f"{NAME}.seed1 is up to date; --force trains it again"


def test_a_network_that_is_not_there_names_the_command_that_makes_it_and_no_other(cohort):
    """A seed that nobody has entered may be one that the recipe refuses: no command is named for it."""
    with pytest.raises(MissingWeights, match=f"^{NAME} has no network of seed 1, only that of seed 0: leave out seed$"):
        zoo.load(NAME, seed=1, folder=cohort)
    made = make(NAME, seed=1, folder=cohort)
    said = f"^{NAME} has no network of seed 3, those there are have seeds 0, 1: name one of them$"
    with pytest.raises(MissingWeights, match=said):
        zoo.load(NAME, seed=3, folder=cohort)
    (cohort / made.file).unlink()
    assert problems(NAME, folder=cohort) == []
    said = rf"weights of {NAME} of seed 1 do not come with the package.*zoo train {NAME} --seed 1 --package"
    with pytest.raises(MissingWeights, match=said):
        zoo.load(NAME, seed=1, folder=cohort)
    with pytest.raises(ValueError, match=r"the recipe is for seeds 0 … 2, got seed 3"):
        make(NAME, seed=3, folder=cohort)


def test_an_altered_network_of_a_cohort_is_refused(cohort):
    path = cohort / make(NAME, seed=1, folder=cohort).file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=rf"the weights of {NAME} are not those"):
        zoo.load(NAME, seed=1, folder=cohort)
    assert len(problems(NAME, folder=cohort)) == 1


def test_the_first_of_a_cohort_comes_first_and_its_recipe_is_theirs(cohort, recipes, tmp_path):
    with pytest.raises(ValueError, match=rf"{NAME} of seed 0 comes first"):
        make(NAME, seed=1, folder=tmp_path / "empty")
    make(NAME, seed=1, folder=cohort)
    make(NAME, folder=cohort, force=True)
    assert list(zoo.entry(NAME, folder=cohort).siblings) == ["1"]  # the same recipe made it
    recipes[NAME] = replace(TINY, seeds=3, updates=4)
    with pytest.raises(ValueError, match="or no longer what its recipe makes: train it without --seed"):
        make(NAME, seed=2, folder=cohort)
    make(NAME, folder=cohort)
    assert zoo.entry(NAME, folder=cohort).siblings == {}


def test_a_cohort_begins_at_seed_0():
    with pytest.raises(ValueError, match="a cohort's seeds begin at 0, got seed=1 and seeds=2"):
        replace(TINY, seed=1, seeds=2)
    with pytest.raises(ValueError, match="the recipe is for seed 0 alone, got seed 1"):
        TINY.of_seed(1)


# Kinds


class Slope(torch.nn.Module):
    """A network of another kind: ten numbers for an image, after a mean that it took from the data."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(seed)))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        return self.weight * (x.mean(dim=(1, 2, 3)) - self.mean)[:, None] * torch.arange(10.0)


def test_another_kind_brings_its_network_what_it_takes_from_data_and_its_scores(tmp_path, monkeypatch, recipes):
    built = []

    def build(about, seed):
        built.append((about.input_shape, about.n_classes, about.architecture))
        return Slope(seed)

    def begin(network, part):
        network.mean.copy_(part.x.mean())

    kind = Kind("Slopes", build, lambda about: "an image", begin=begin)
    score = Score(0.5, 0.4, 0.6, 3, "things that went well")
    monkeypatch.setitem(KINDS, "slope", kind)
    monkeypatch.setitem(member_scores.MEASURES, "slope", lambda model, part, settings: {"mean": lambda: score})
    recipes["a-slope"] = replace(TINY, kind="slope", architecture="slope", options={}, method="natural",
                                 method_options={}, updates=2, storage="float32", seeds=2)  # fmt: skip
    about = make("a-slope", folder=tmp_path)
    assert (about.kind, about.recipe["kind"], about.scores) == ("slope", "slope", {"mean": score})
    assert zoo.entry("a-slope", folder=tmp_path) == about
    loaded = zoo.load("a-slope", folder=tmp_path)
    assert isinstance(loaded, Slope)
    assert loaded.mean == pytest.approx(tk.data.digits(0).train.x.mean().item(), rel=1e-5)
    assert set(built) == {((1, 8, 8), 10, "slope")}
    with pytest.raises(ValueError, match="a-slope takes no images that could be resized: leave out size"):
        zoo.load("a-slope", folder=tmp_path, size=8)
    page = zoo_page(tmp_path)
    assert "`slope`; an image" in page
    assert "mean: 50.0% (40.0 to 60.0) of 3 things that went well" in page
    with pytest.raises(UnknownName, match="unknown kind of member 'slop'"):
        replace(TINY, kind="slop")


# Around it


def test_the_zoo_is_no_chapter():
    assert not [name for name in registry.chapters() if name.startswith("zoo")]
    assert "defenses" in registry.chapters()
