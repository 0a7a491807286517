"""Several networks of one recipe are one entry; another kind of member brings what it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch

import thesis_kit as tk
from tests.worlds.tiny_zoo import NAME, TINY
from thesis_kit.checks import UnknownName
from thesis_kit.files import DamagedFile
from thesis_kit.models import zoo
from thesis_kit.models.kinds import KINDS, Kind
from thesis_kit.models.zoo import MissingWeights, Score
from thesis_kit.show.zoo_page import cohort_text, zoo_page
from thesis_kit.zookeeping import member_scores
from thesis_kit.zookeeping.auditing import audit, problems
from thesis_kit.zookeeping.making import make
from thesis_kit.zookeeping.member_scores import measure

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
        assert (made.file, made.recipe["seed"]) == (f"cohorts/{NAME}.seed{seed}.safetensors", seed)
    about = zoo.entry(NAME, folder=cohort)
    assert zoo.names(folder=cohort) == [NAME]
    assert list(about.siblings) == ["1", "2"]
    assert replace(about, siblings={}) == first
    assert len({about.sha256, *(one.sha256 for one in about.siblings.values())}) == 3
    for seed in (0, 1, 2):
        found = measure(NAME, seed=seed, folder=cohort, only=["clean"])["clean"]
        assert found == zoo.entry(NAME, seed=seed, folder=cohort).scores["clean"]
    kept = zoo.load(NAME, seed=1, folder=cohort).state_dict()
    stored = safetensors.torch.load_file(cohort / "cohorts" / f"{NAME}.seed1.safetensors")
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
    (cohort / zoo.entry(NAME, folder=cohort).file).unlink()
    with pytest.raises(ValueError, match="comes first"):
        make(NAME, seed=1, folder=cohort)  # its weights belong into every folder


def test_another_network_does_not_need_weights_that_are_not_shipped(cohort, recipes):
    recipes[NAME] = replace(TINY, seeds=3, shipped=False)
    first = make(NAME, folder=cohort, force=True)
    (cohort / first.file).unlink()
    make(NAME, seed=1, folder=cohort)
    assert zoo.entry(NAME, folder=cohort) == replace(first, siblings=zoo.entry(NAME, folder=cohort).siblings)
    assert list(zoo.entry(NAME, folder=cohort).siblings) == ["1"]


def test_the_others_of_a_cohort_may_be_trained_in_a_precision_of_their_own(cohort, recipes):
    recipes[NAME] = replace(TINY, seeds=3, cohort_precision="bfloat16")
    assert problems(NAME, folder=cohort) == []  # the member itself is not what it says
    make(NAME, seed=2, folder=cohort)
    recipes[NAME] = replace(TINY, seeds=3)
    usual = make(NAME, seed=1, folder=cohort)
    about = zoo.entry(NAME, folder=cohort)
    assert [zoo.entry(NAME, seed=k, folder=cohort).recipe["precision"] for k in range(3)] == [
        "float32", "float32", "bfloat16"
    ]  # fmt: skip
    assert zoo.entry(NAME, seed=1, folder=cohort) == usual
    assert '"precision": null' not in (cohort / f"{NAME}.json").read_text()
    assert [text.endswith("bfloat16)") for text in cohort_text(about).split(", seed ")[1:]] == [True]
    said = []
    assert make(NAME, seed=2, folder=cohort, progress=said.append).recipe["precision"] == "float32"
    assert "updates of" in said[0]  # the recipe asks for another precision now
    with pytest.raises(ValueError, match="unknown precision of a cohort 'float31'"):
        replace(TINY, seeds=3, cohort_precision="float31")


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
