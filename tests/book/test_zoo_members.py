"""The shipped networks are what entries and recipes say, fit the budget, and score what is recorded."""

from __future__ import annotations

import subprocess

import pytest

from thesis_kit.models import zoo
from thesis_kit.show.zoo_page import zoo_page
from thesis_kit.zookeeping.auditing import problems
from thesis_kit.zookeeping.member_scores import agrees, measure
from thesis_kit.zookeeping.recipes import RECIPES
from tools.build_notebooks import ROOT

pytestmark = pytest.mark.book
BUDGET = 25_000_000  # bytes of weights that the package may carry
REPOSITORY = 45_000_000  # bytes of weights in git
LEAST = 500  # images, or words heard
MEMBERS = [about for about in map(zoo.entry, zoo.names()) if about.package is None]
LEFT_OUT = [
    pytest.param(one, id=one.file)
    for about in MEMBERS
    for one in (about, *(zoo.entry(about.name, seed=int(seed)) for seed in about.siblings))
    if not one.shipped and zoo.is_here(one)
]
SHIPPED = [pytest.param(about, id=about.name) for about in MEMBERS if about.shipped]


def test_the_page_is_in_sync():
    page = (ROOT / "book" / "zoo.md").read_text(encoding="utf-8")
    assert page == zoo_page(), "run `thesis-kit zoo page --write`"


def test_the_weights_fit_the_budget():
    files = list(zoo.FOLDER.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= BUDGET
    assert {file.name for file in files} == {about.file for about in MEMBERS if about.shipped}
    assert all(about.bytes == (zoo.FOLDER / about.file).stat().st_size for about in MEMBERS if about.shipped)


def test_the_repository_fits_its_budget():
    kept = subprocess.run(
        ["git", "ls-files", "*.safetensors"], cwd=zoo.FOLDER, capture_output=True, text=True, check=True
    ).stdout.split()
    assert sum((zoo.FOLDER / file).stat().st_size for file in kept) <= REPOSITORY
    entered = {about.file for about in MEMBERS} | {one.file for about in MEMBERS for one in about.siblings.values()}
    assert set(kept) <= entered, "weights without an entry"


@pytest.mark.parametrize("about", LEFT_OUT)
def test_a_cohort_s_network_is_the_one_entered(about):
    assert zoo.stored_weights(about)  # its SHA-256 fits


@pytest.mark.parametrize("about", [pytest.param(about, id=about.name) for about in MEMBERS])
def test_a_member_is_what_its_recipe_makes(about):
    assert problems(about.name) == []
    assert about.name in RECIPES


@pytest.mark.parametrize("about", SHIPPED)
def test_a_member_scores_what_is_recorded(about):
    first, recorded = next(iter(about.scores.items()))
    assert first == {"classifier": "clean", "image-text pair": "captions", "speech recognizer": "words"}[about.kind]
    again = measure(about.name, only=[first])[first]
    assert again.n == recorded.n >= (300 if about.data == "digits" else LEAST)  # a fifth of all digits
    assert agrees(recorded, again), f"{first} {again.value} now, {recorded} recorded"
