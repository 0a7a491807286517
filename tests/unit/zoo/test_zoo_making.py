"""Making a member: no interruption costs the old one, and the same recipe makes the same file."""

from __future__ import annotations

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
from tests.worlds.tiny_zoo import NAME, SCENES, TINY, rewrite, same_files
from thesis_kit import training
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.files import only_writer
from thesis_kit.models import entries, zoo
from thesis_kit.models.zoo import MissingWeights, UnfitWeights
from thesis_kit.zookeeping import making
from thesis_kit.zookeeping.auditing import audit, problems
from thesis_kit.zookeeping.making import make
from thesis_kit.zookeeping.recipe import TrainingStage

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
from tests.worlds.tiny_zoo import NAME, TINY

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
    root = Path(__file__).resolve().parents[3]
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
    assert (about.file, about.shipped) == (f"cohorts/{NAME}.safetensors", False)
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
