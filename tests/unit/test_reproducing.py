"""Recorded runs are measured again and compared; nothing that was recorded is rewritten."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thesis_kit.files import DamagedFile
from thesis_kit.ledger import reproducing, runner
from thesis_kit.ledger.arm import Settings
from thesis_kit.ledger.cells import arm_file, packed
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.reproduced import EXACTLY, WITHIN, read_reproduced
from thesis_kit.ledger.reproducing import choose_cells, compare, reproduce
from thesis_kit.ledger.results import NotRecorded, Result, load_result
from thesis_kit.ledger.runner import CellFailed, OutdatedResult, run_experiment
from thesis_kit.ledger.statistics import prediction_interval, share_prediction
from thesis_kit.names import UnknownName

NAME = "defenses.digits"


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "worlds"))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """A finished recording; cells run in this process."""
    execute = runner.execute

    def at_once(todo, jobs, announce, executor=None):
        with ThreadPoolExecutor(1) as pool:
            yield from execute(todo, jobs, announce, pool)

    monkeypatch.setattr(runner, "execute", at_once), monkeypatch.setattr(reproducing, "execute", at_once)
    run_experiment(tiny.experiment(), folder=tmp_path)
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.jsonl")}


def chosen(experiment, folder, **how):
    return choose_cells(experiment, load_result(NAME, folder, experiment), **how)


@pytest.mark.parametrize(
    ("how", "cells"),
    [
        ({}, [("natural", 0), ("free-8", 1), ("pgd-7", 2)]),  # the seed after its neighbor's
        ({"seed": 3}, [("natural", 3), ("free-8", 3), ("pgd-7", 3)]),
        ({"arms": ["pgd-7"]}, [("pgd-7", 2)]),
        ({"arms": ["pgd-7"], "everything": True}, [("pgd-7", seed) for seed in range(4)]),
    ],
)
def test_runs_are_chosen(tiny, folder, how, cells):
    assert [(arm.name, seed) for arm, seed in chosen(tiny.experiment(), folder, **how)] == cells


def test_what_is_not_recorded_cannot_be_chosen(tiny, folder):
    with pytest.raises(UnknownName, match="did you mean free-8"):
        chosen(tiny.experiment(), folder, arms=["free-9"])
    with pytest.raises(NotRecorded, match=r"no such run is recorded in defenses\.digits"):
        chosen(tiny.experiment(), folder, seed=9)
    with pytest.raises(NotRecorded, match="natural, seed 5 is not recorded"):
        reproduce(tiny.experiment(), [(tiny.arm("natural"), 5)], folder=folder)


def test_runs_that_come_out_the_same_are_noted_beside_the_recording(tiny, folder):
    experiment, before, said = tiny.experiment(), contents(folder), []
    found = reproduce(experiment, chosen(experiment, folder), folder=folder, progress=said.append)
    assert [(one.arm, one.seed, one.exactly, one.agrees) for one in found] == [
        ("natural", 0, True, True), ("free-8", 1, True, True), ("pgd-7", 2, True, True),
    ]  # fmt: skip
    assert said == [
        "3 recorded runs to measure again",
        "natural, seed 0: 0 s, the same, bit by bit (1 of 3)",
        "free-8, seed 1: 0 s, the same, bit by bit (2 of 3)",
        "pgd-7, seed 2: 0 s, the same, bit by bit (3 of 3)",
    ]
    noted = read_reproduced(NAME, folder)
    assert [(one.arm, one.seed, one.agreed) for one in noted] == [
        ("natural", 0, EXACTLY), ("free-8", 1, EXACTLY), ("pgd-7", 2, EXACTLY),
    ]  # fmt: skip
    after = contents(folder)
    assert {name: text for name, text in after.items() if name != "reproduced.jsonl"} == before
    reproduce(experiment, chosen(experiment, folder, everything=True), folder=folder)
    assert len(read_reproduced(NAME, folder)) == 12


def test_without_a_note_nothing_is_written(tiny, folder):
    before = contents(folder)
    found = reproduce(tiny.experiment(), chosen(tiny.experiment(), folder), folder=folder, note=False)
    assert all(one.agrees for one in found)
    assert contents(folder) == before


def test_shared_work_is_made_anew(tiny, folder, monkeypatch, tmp_path):
    """What runs share would else be remembered rather than measured."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "runs"))
    seen = []

    def remember(todo, jobs, announce, executor=None):
        import os

        seen.append(os.environ[FOLDER_VARIABLE])
        yield from ()

    monkeypatch.setattr(reproducing, "execute", remember)
    reproduce(tiny.experiment(), chosen(tiny.experiment(), folder), folder=folder)
    assert seen != [str(tmp_path / "runs")]
    assert not Path(seen[0]).exists()


def altered(cell, **change):
    return {**cell, **change}


def test_a_number_inside_the_interval_of_its_seeds_agrees_and_one_outside_does_not(tiny, folder):
    result = load_result(NAME, folder, tiny.experiment())
    recorded = result.cells["natural"][0]
    shares = list(result.scalars("R", "natural").values())
    numbers = len(recorded["outcomes"]) + len(recorded["values"]) + sum(map(is_number, recorded["scalars"]))
    low, high = prediction_interval(shares, 1 - 0.05 / numbers)
    for share in np.arange(0, tiny.N + 1) / tiny.N:
        bits = np.arange(tiny.N) < share * tiny.N
        again = altered(recorded, outcomes={**recorded["outcomes"], "R": packed(_record(bits))["outcomes"]["R"]})
        one = compare(result, again)
        assert one.agrees == (low <= share <= high), share
        assert not one.exactly or (bits == result.outcomes("R", "natural")[0]).all()
        if not one.agrees:
            assert one.outside == (f"R is {share:.4g}, recorded seeds say {low:.4g} to {high:.4g}",)
            assert str(one).startswith("outside: R is ")
        elif not one.exactly:
            assert str(one) == WITHIN


def is_number(name):
    return not name.endswith("seconds")


def test_where_all_seeds_agree_on_a_share_another_may_differ_by_what_chance_allows(tiny):
    """Of 4 × 16 drawings all were read: 15 of 16 more are no surprise, 8 of 16 are."""
    cells = tiny.cells({"natural": {"R": 1.0}}, seeds=4, n=16)
    for read, agrees in ((16, True), (15, True), (8, False)):
        again = tiny.cell("natural", 0, {"R": [True] * read + [False] * (16 - read)}, n=16)
        assert compare(Result(NAME, cells), again).agrees == agrees, read


def test_a_cell_of_many_numbers_that_has_not_changed_stands_as_often_as_it_should():
    """Eleven numbers of five seeds each, drawn from one distribution: 95% of cells measured again agree, not 57%."""
    generator, stand = np.random.default_rng(0), 0
    names = [f"number {i}" for i in range(11)]

    def drawn(seed):
        scalars = dict(zip(names, generator.normal(size=11).tolist(), strict=True))
        return {"arm": "a", "seed": seed, "n": 1, "outcomes": {}, "values": {}, "scalars": scalars, "seconds": 0.0}

    for _ in range(400):
        result = Result(NAME, {"a": {seed: drawn(seed) for seed in range(5)}})
        stand += compare(result, drawn(0)).agrees
    assert 0.92 <= stand / 400 <= 0.985


def _record(bits):
    return {"group": "g", "n": len(bits), "outcomes": {"R": bits.tolist()}, "seconds": 0.0}


@pytest.mark.parametrize(
    ("change", "outside"),
    [
        ({"scalars": {"passes": 101.0}}, ("passes is 101, recorded seeds say 100 to 100",)),  # where all seeds agree
        ({"scalars": {"passes": 100.0, "train_seconds": 9.0}}, ()),
        ({"scalars": {"passes": 100.0, "loss": 1.0}}, ("loss was not recorded",)),
        ({"seconds": 99.0, "budget": {}, "machine": {}, "commit": "x"}, ()),
    ],
)
def test_numbers_are_compared_and_times_and_origin_are_not(tiny, folder, change, outside):
    result = load_result(NAME, folder, tiny.experiment())
    recorded = result.cells["natural"][0]
    scalars = {**recorded["scalars"], **change.pop("scalars", {})}
    assert compare(result, altered(recorded, scalars=scalars, **change)).outside == outside


def test_one_recorded_seed_excludes_nothing(tiny):
    cells = tiny.cells({"natural": {"R": 0.5}}, seeds=1)
    again = tiny.cell("natural", 0, {"R": [True] * 200})
    one = compare(Result(NAME, cells), again)
    assert (one.exactly, one.agrees) == (False, True)


def test_what_disagrees_is_said_and_not_noted(tiny, folder, monkeypatch):
    monkeypatch.setitem(tiny.RATES, "free-8", 0.0)
    found = reproduce(tiny.experiment(), chosen(tiny.experiment(), folder), folder=folder)
    assert [one.agrees for one in found] == [True, False, True]
    assert [one.arm for one in read_reproduced(NAME, folder)] == ["natural", "pgd-7"]


def test_other_settings_cannot_come_out_the_same(tiny, folder):
    other = tiny.experiment(rest=0.01)
    with pytest.raises(OutdatedResult, match=r"natural of defenses\.digits was recorded .* \(rest was None, is 0.01\)"):
        reproduce(other, chosen(other, folder), folder=folder)


def test_a_run_that_fails_is_named_and_what_agreed_before_stays_noted(tiny, folder):
    arms = [arm for arm, _ in chosen(tiny.experiment(), folder)]
    object.__setattr__(arms[1], "measure", lambda world: 1 / 0)
    with pytest.raises(CellFailed, match="free-8, seed 1 failed"):
        reproduce(tiny.experiment(), [(arm, place) for place, arm in enumerate(arms)], folder=folder)
    assert [one.arm for one in read_reproduced(NAME, folder)] == ["natural"]


def test_a_damaged_file_is_refused_and_left(tiny, folder):
    path = arm_file(NAME, "natural", folder)
    damaged = path.read_bytes().replace(b'"n": 40', b'"n": 41', 1)
    path.write_bytes(damaged)
    with pytest.raises(DamagedFile, match=r"natural\.jsonl, line 1"):
        chosen(tiny.experiment(), folder)
    assert path.read_bytes() == damaged


def test_the_prediction_interval_against_a_worked_example():
    """Devore's example of ten hot dogs' fat: mean 21.90, s 4.134; one more lies in 12.09 to 31.71 with 95%."""
    low, high = prediction_interval([25.2, 21.3, 22.8, 17.0, 29.8, 21.0, 25.5, 16.0, 20.9, 19.5])
    assert (low, high) == (pytest.approx(12.09, abs=0.01), pytest.approx(31.71, abs=0.01))


def test_the_prediction_of_a_share_against_exact_sums():
    """All of 9: by Beta(9.5, 0.5) one more does with probability 0.95. Of large shares: 1.96 √(0.25 · 2 / 1,000)."""
    assert share_prediction(9, 9, 1, level=0.9) == (1.0, 1.0)
    assert share_prediction(9, 9, 1, level=0.91) == (0.0, 1.0)
    assert share_prediction(0, 9, 2, level=0.80) == (0.0, 0.0)
    assert share_prediction(0, 9, 2, level=0.85) == (0.0, 0.5)
    low, high = share_prediction(500, 1000, 1000)
    assert (low, high) == (pytest.approx(0.456, abs=0.001), pytest.approx(0.544, abs=0.001))


def test_settings_may_be_sent_to_other_processes():
    import pickle
    from types import MappingProxyType

    own = Settings({"options": MappingProxyType({"width": 4}), "eps": (0.1,)})
    back = pickle.loads(pickle.dumps(own))
    assert (back.options["width"], back.eps) == (4, (0.1,))
