"""A record stands for changed code only where runs measured again come out the same, bit by bit."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thesis_kit.checks import UnknownName
from thesis_kit.files import DamagedFile
from thesis_kit.ledger import runner
from thesis_kit.ledger.comparing import differences, inside_prediction_interval
from thesis_kit.ledger.memory import FOLDER_VARIABLE, Memory
from thesis_kit.ledger.provenance import modules_hash
from thesis_kit.ledger.results import (
    NotRecorded,
    Result,
    load_result,
    pack,
    read_document,
    result_path,
    stands_for,
    unpack,
    write_document,
)
from thesis_kit.ledger.runner import CellFailed, OutdatedResult, cells_left, run_experiment, start_over
from thesis_kit.ledger.verifying import choose_cells, verify_experiment

WORLDS = str(Path(__file__).resolve().parents[1] / "worlds")
NAME = "defenses.digits"
HASHED = ("thesis_kit.ledger.runner", "thesis_kit.ledger.results")
FIRST, SECOND, THIRD = (digit * 64 for digit in "123")


@pytest.fixture
def tiny(monkeypatch):
    """The miniature experiment's module, importable here and in worker processes."""
    monkeypatch.syspath_prepend(WORLDS)
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def code(monkeypatch):
    """A function that changes the hash of the measuring modules, as editing one of them would."""

    def change(modules):
        for module in HASHED:
            monkeypatch.setattr(f"{module}.modules_hash", lambda name: modules)

    return change


def in_this_process(experiment, todo, jobs, announce):
    for arm, seed in todo:
        announce(arm)
        yield runner._run_cell(experiment.run, arm, seed, experiment.config)


@pytest.fixture
def at_once(monkeypatch):
    """Cells run in this process rather than in workers."""
    monkeypatch.setattr("thesis_kit.ledger.runner.execute", in_this_process)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The file of four seeds of three arms, recorded by the first code."""
    folder = tmp_path_factory.mktemp("recording")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(WORLDS)
        patch.setattr("thesis_kit.ledger.runner.execute", in_this_process)
        for module in HASHED:
            patch.setattr(f"{module}.modules_hash", lambda name: FIRST)
        import tiny_experiment

        run_experiment(tiny_experiment.experiment(), folder=folder)
    return result_path(NAME, folder)


@pytest.fixture
def folder(recording, tiny, code, at_once, tmp_path):
    """A folder with a copy of the recording; the code has changed since."""
    shutil.copy(recording, tmp_path)
    code(SECOND)
    return tmp_path


def content(folder):
    return result_path(NAME, folder).read_bytes()


def changed(experiment, change):
    """The experiment with a change made to every cell it measures."""

    @functools.wraps(experiment.run)
    def run(arm, seed, config):
        cell = experiment.run(arm, seed, config)
        change(cell)
        return cell

    return replace(experiment, run=run)


# --- agreement


def test_runs_that_come_out_the_same_make_the_record_current(tiny, folder):
    assert not load_result(NAME, folder).is_current()
    said = []
    verification = verify_experiment(tiny.experiment(), folder=folder, progress=said.append)
    assert verification.agrees
    assert said[0] == "3 of 12 recorded runs to measure again, about 0 s"
    assert said[-1] == "pgd-7, seed 2: 0 s, the same (3 of 3)"
    assert verification.report() == [
        "3 runs came out the same, bit by bit: defenses.digits counts as measured by the present code"
    ]
    result = load_result(NAME, folder)
    assert result.is_current()
    entry = result.document["verified"]
    assert entry["cells"] == [["natural", 0], ["free-8", 1], ["pgd-7", 2]]
    assert (entry["code"]["modules"], entry["recorded"]) == (SECOND, 12)
    assert set(entry["machine"]) == {"processor", "cores", "threads", "device", "python", "torch"}


def test_runs_are_measured_from_nothing_even_where_they_share_work(tiny, folder, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "shared"))
    made = []

    def share(cell):
        Memory("tiny_experiment").recall({"what": "source"}, lambda: made.append("source"))

    share({})
    verify_experiment(changed(tiny.experiment(), share), folder=folder)
    share({})
    assert made == ["source", "source"]  # once for the recording, once for all runs of the verification


def test_what_was_measured_stays_untouched(tiny, folder):
    before = read_document(result_path(NAME, folder))
    verify_experiment(tiny.experiment(), folder=folder)
    after = read_document(result_path(NAME, folder))
    assert {key for key in after if after[key] != before.get(key)} == {"verified", "sha256"}


def test_a_process_of_its_own_comes_to_the_same(recording, tiny, tmp_path):
    shutil.copy(recording, tmp_path)
    verification = verify_experiment(tiny.experiment(), cells=[("natural", 0)], folder=tmp_path)
    assert verification.agrees
    assert verification.result.document["verified"]["code"]["modules"] == modules_hash("tiny_experiment")


def test_the_sentence_says_what_was_verified(tiny, folder, code):
    result = load_result(NAME, folder)
    assert result.code_status() == "the code that measures has changed since"
    verify_experiment(tiny.experiment(), folder=folder)
    result = load_result(NAME, folder)
    date = result.document["verified"]["date"]
    said = f"has changed since; 3 of 12 runs measured again on {date} gave the same outcomes bit by bit"
    assert result.code_status() == f"the code that measures {said}"
    assert f"{said}. To measure again:" in result.provenance()
    code(THIRD)
    assert load_result(NAME, folder).code_status() == "the code that measures has changed since"
    code(FIRST)
    assert load_result(NAME, folder).code_status() == "the code that measures is unchanged since"


def test_every_arm_needs_a_run_and_verifications_add_up(tiny, folder):
    partly = verify_experiment(tiny.experiment(), cells=[("natural", 3), ("free-8", 0)], folder=folder)
    assert partly.agrees
    assert partly.report() == [
        "2 runs came out the same, bit by bit: defenses.digits counts as current once a run of pgd-7 did so too"
    ]
    assert not load_result(NAME, folder).is_current()
    with pytest.raises(OutdatedResult, match="other code"):
        run_experiment(tiny.experiment(seeds=5), folder=folder)
    whole = verify_experiment(tiny.experiment(), cells=[("pgd-7", 1), ("natural", 3)], folder=folder)
    assert whole.result.document["verified"]["cells"] == [["natural", 3], ["free-8", 0], ["pgd-7", 1]]
    assert whole.result.is_current()


def test_a_later_change_of_code_starts_the_verification_over(tiny, folder, code):
    verify_experiment(tiny.experiment(), folder=folder)
    code(THIRD)
    verify_experiment(tiny.experiment(), cells=[("natural", 3)], folder=folder)
    verified = load_result(NAME, folder).document["verified"]
    assert (verified["cells"], verified["code"]["modules"]) == ([["natural", 3]], THIRD)


@pytest.mark.parametrize(
    ("choice", "cells"),
    [
        ({}, [("natural", 0), ("free-8", 1), ("pgd-7", 0)]),  # two seeds, in turn
        ({"arms": ["pgd-7"]}, [("pgd-7", 0)]),
        ({"seed": 1}, [("natural", 1), ("free-8", 1), ("pgd-7", 1)]),
        ({"arms": ["free-8"], "seed": 0}, [("free-8", 0)]),
        ({"arms": ["free-8"], "everything": True}, [("free-8", 0), ("free-8", 1)]),
    ],
)
def test_runs_are_chosen(tiny, at_once, tmp_path, choice, cells):
    experiment = tiny.experiment(seeds=2)
    result = run_experiment(experiment, folder=tmp_path)
    assert choose_cells(experiment, result, **choice) == cells
    assert len(choose_cells(experiment, result, everything=True)) == 6


def test_what_is_not_recorded_cannot_be_chosen(tiny, folder):
    result = load_result(NAME, folder)
    with pytest.raises(UnknownName, match=r"unknown recorded arm of defenses\.digits 'free-9': did you mean free-8"):
        choose_cells(tiny.experiment(), result, arms=["free-9"])
    with pytest.raises(NotRecorded, match=r"no such run is recorded in defenses\.digits"):
        choose_cells(tiny.experiment(), result, seed=7)
    before = content(folder)
    with pytest.raises(NotRecorded, match=r"natural, seed 7 is not in defenses\.digits\.json"):
        verify_experiment(tiny.experiment(), cells=[("natural", 0), ("natural", 7)], folder=folder)
    with pytest.raises(ValueError, match=r"nothing to verify defenses\.digits\.json by"):
        verify_experiment(tiny.experiment(), cells=[], folder=folder)
    assert content(folder) == before


# --- differences


def flip(*images):
    def change(cell):
        for image in images:
            cell["outcomes"]["R"][image] = not cell["outcomes"]["R"][image]

    return change


def put(part, name, value):
    return lambda cell: cell[part].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip(17, 30), "outcomes R differs in 2 of 40 images, first in image 17: recorded "),
        (put("scalars", "passes", 101), "scalars passes differs: recorded 100, now 101"),
        (put("scalars", "passes", 100 + 2**-40), "scalars passes differs: recorded 100, now 100.00000000000091"),
        (put("curves", "R", [[0, 0.1], [1, 0.25]]), "curves R differs at 1.1: recorded 0.3, now 0.25"),
        (put("curves", "R", [[0, 0.1]]), "curves R differs: recorded 2 entries, now 1 entries"),
        (put("budget", "train", {"forward": 100, "backward": 99}), "budget train differs at backward: recorded 100"),
        (put("budget", "train", {"forward": 100}), "budget train differs: recorded entries forward, backward, now"),
        (put("scalars", "loss", 0.5), "scalars loss was not recorded and is measured now"),
        (lambda cell: cell["outcomes"].pop("worst"), "outcomes worst was recorded and is missing now"),
        (lambda cell: cell.update(chosen={"lr": 0.1}), "chosen lr was not recorded and is measured now"),
        (lambda cell: cell.update(group="tiny.v1/fold7"), "group differs: recorded tiny.v1/fold0, now tiny.v1/fold7"),
        (lambda cell: cell.update(trials=[{"lr": 1}]), "trials was not recorded and is measured now"),
    ],
)
def test_a_difference_is_named_and_nothing_is_written(tiny, folder, change, said):
    before = content(folder)
    experiment = changed(tiny.experiment(), change)
    verification = verify_experiment(experiment, cells=[("natural", 0), ("free-8", 2)], folder=folder)
    assert not verification.agrees
    assert content(folder) == before
    first, *_, last = verification.report()
    assert first.startswith(f"natural, seed 0: {said}")
    assert last.startswith("2 of 2 runs came out otherwise and nothing was written: find the change that did it")
    assert not verification.result.is_current()


def test_one_run_that_differs_keeps_all_from_being_noted(tiny, folder):
    experiment = changed(tiny.experiment(), lambda cell: None)
    good = experiment.run

    @functools.wraps(good)
    def run(arm, seed, config):
        cell = good(arm, seed, config)
        if arm == "pgd-7":
            flip(0)(cell)
        return cell

    before, said = content(folder), []
    verification = verify_experiment(replace(experiment, run=run), folder=folder, progress=said.append)
    assert [(one.arm, one.measure) for one in verification.differences] == [("pgd-7", "outcomes R")]
    assert verification.report()[-1].startswith("1 of 3 runs came out otherwise")
    assert [sentence.split(", ")[2] for sentence in said[1:]] == [
        "the same (1 of 3",
        "the same (2 of 3",
        "differs in outcomes R (3 of 3)",
    ]
    assert content(folder) == before


def test_times_and_origin_may_differ(tiny, folder):
    def slower(cell):
        cell["seconds"], cell["scalars"]["train_seconds"] = 9.0, 8.0
        cell["scalars"]["threads"] = 1

    assert verify_experiment(changed(tiny.experiment(), slower), folder=folder).agrees
    recorded = {"arm": "a", "seed": 0, "n": 1, "outcomes": {}, "machine": {"x": 1}}
    recorded["trials"] = [{"lr": 1, "seconds": 2.0}]
    again = {**recorded, "trials": ({"lr": 1.0, "seconds": 3.0},), "modules": "0"}
    assert differences(recorded, again) == []
    assert [one.how for one in differences(recorded, {**again, "trials": [{"lr": 2, "seconds": 2.0}]})] == [
        "differs at 0.lr: recorded 1, now 2"
    ]


def test_counts_of_images_are_right():
    rng = np.random.default_rng(0)
    old, new = rng.random((2, 77)) < 0.5
    cell = {"arm": "a", "seed": 3, "n": 77, "outcomes": {"R": pack(old)}}
    (found,) = differences(cell, {**cell, "outcomes": {"R": pack(new)}})
    first = int(np.argmax(old != new))
    where = f"{(old != new).sum()} of 77 images, first in image {first}"
    assert found.how == f"differs in {where}: recorded {old[first]:d}, now {new[first]:d}"
    assert found.value == pytest.approx(new.mean())
    fewer = differences(cell, {**cell, "n": 76, "outcomes": {"R": pack(old[:76])}})
    assert [str(one) for one in fewer] == [
        "a, seed 3: n differs: recorded 77, now 76",
        "a, seed 3: outcomes R was recorded for 77 images, now there are 76",
    ]


# --- another machine


def recorded_elsewhere(folder, **machine):
    document = read_document(result_path(NAME, folder))
    document["machine"] = {**document["machine"], **machine}
    write_document(result_path(NAME, folder), document)


def test_a_difference_is_placed_among_the_recorded_seeds(tiny, folder):
    recorded_elsewhere(folder, processor="an older one", torch="1.0")
    experiment = changed(tiny.experiment(), flip(0))
    verification = verify_experiment(experiment, cells=[("natural", 0)], folder=folder)
    difference, verdict = verification.report()
    bits = unpack(load_result(NAME, folder).cells["natural"][0]["outcomes"]["R"], 40)
    mean = bits.mean() + (1 - 2 * bits[0]) / 40
    assert f"; {mean:.4g} lies inside the 95% prediction interval of the recorded seeds, " in difference
    assert "nothing was written: recorded on an older one with torch 1.0, measured again on " in verdict
    far = changed(tiny.experiment(), lambda cell: cell["outcomes"].update(R=[True] * 40))
    assert "1 lies outside the 95%" in verify_experiment(far, cells=[("natural", 0)], folder=folder).report()[0]
    passes = verify_experiment(
        changed(tiny.experiment(), put("scalars", "passes", 101)), cells=[("natural", 0)], folder=folder
    )
    assert "recorded 100, now 101; 101 lies outside the" in passes.report()[0]


def test_where_the_machine_is_alike_nothing_is_excused(tiny, folder):
    recorded_elsewhere(folder, cores=64, python="3.0")
    verification = verify_experiment(changed(tiny.experiment(), flip(0)), cells=[("natural", 0)], folder=folder)
    assert "find the change that did it" in verification.report()[-1]


def test_on_another_machine_the_same_outcomes_count_as_well(tiny, folder):
    recorded_elsewhere(folder, processor="an older one")
    assert verify_experiment(tiny.experiment(), folder=folder).result.is_current()


def test_a_single_seed_excludes_nothing(tiny, at_once, tmp_path):
    result = run_experiment(tiny.experiment(seeds=1), folder=tmp_path)
    assert inside_prediction_interval(result, "R", "natural", 0.0)
    recorded_elsewhere(tmp_path, torch="1.0")
    said = verify_experiment(changed(tiny.experiment(seeds=1), flip(0)), folder=tmp_path).report()[0]
    assert said.endswith("one recorded seed gives no prediction interval")


def test_the_prediction_interval_against_a_worked_example(tiny):
    # Mean 3, standard deviation 1.5811, five seeds: 3 ± 2.7764 · 1.5811 · √(1 + 1/5) = 3 ± 4.8088.
    scalars = {"natural": {"passes": [1.0, 2.0, 3.0, 4.0, 5.0], "same": [0.1] * 5}}
    result = Result(tiny.document({"natural": {"R": 0.5}}, seeds=5, scalars=scalars))
    inside = functools.partial(inside_prediction_interval, result, "passes", "natural")
    assert [inside(3 + 4.808), inside(3 - 4.808), inside(3 + 4.81), inside(3 - 4.81)] == [True, True, False, False]
    assert inside(3 + 8, level=0.999)
    assert inside_prediction_interval(result, "same", "natural", 0.1)
    assert not inside_prediction_interval(result, "same", "natural", 0.1001)
    with pytest.raises(NotRecorded, match="worst of natural was not recorded"):
        inside_prediction_interval(result, "worst", "natural", 0.5)


# --- what cannot be verified


def test_a_missing_result_is_one_sentence(tiny, tmp_path):
    with pytest.raises(NotRecorded, match=r"nothing is recorded in defenses\.digits\.json .* `thesis-kit claims run"):
        verify_experiment(tiny.experiment(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_altered_file_is_refused_and_left(tiny, folder):
    path = result_path(NAME, folder)
    document = json.loads(path.read_bytes())
    document["cells"][0]["scalars"]["passes"] = 99
    path.write_text(json.dumps(document))
    before = content(folder)
    with pytest.raises(DamagedFile, match=r"defenses\.digits\.json was altered"):
        verify_experiment(tiny.experiment(), folder=folder)
    assert content(folder) == before


@pytest.mark.parametrize("change", ["configuration", "data"])
def test_other_settings_cannot_come_out_the_same(tiny, folder, change):
    experiment = tiny.experiment(**({"learning_rate": 1} if change == "configuration" else {}))
    if change == "data":
        object.__setattr__(experiment, "data_hashes", lambda: {"tiny.v2": "1" * 64})
    with pytest.raises(OutdatedResult, match=rf"recorded with another {change}|recorded with other {change}"):
        verify_experiment(experiment, folder=folder)


def test_a_network_trained_again_cannot_come_out_the_same(tiny, tmp_path):
    experiment, weights = tiny.experiment(), {"natural": "old", "free-8": "old", "pgd-7": "old"}
    object.__setattr__(experiment, "networks", lambda arm: {"a network": weights[arm]})
    run_experiment(experiment, folder=tmp_path)
    assert verify_experiment(experiment, folder=tmp_path).agrees
    weights["free-8"] = "new"
    with pytest.raises(OutdatedResult, match="has free-8 with other weights of their networks than now"):
        verify_experiment(experiment, folder=tmp_path)
    assert verify_experiment(experiment, cells=[("natural", 0)], folder=tmp_path).agrees


@pytest.mark.parametrize("stop", [KeyboardInterrupt, CellFailed])
def test_an_interruption_leaves_the_file(tiny, folder, monkeypatch, stop):
    whole = runner.execute

    def broken(experiment, todo, jobs, announce):
        yield next(whole(experiment, todo, jobs, announce))
        raise stop

    monkeypatch.setattr("thesis_kit.ledger.runner.execute", broken)
    before = content(folder)
    with pytest.raises(stop):
        verify_experiment(tiny.experiment(), folder=folder)
    assert content(folder) == before
    assert not load_result(NAME, folder).is_current()


def test_a_recording_under_way_is_not_disturbed(tiny, folder):
    with (
        runner.only_writer(result_path(NAME, folder)),
        pytest.raises(ValueError, match=r"another run is writing defenses\.digits\.json"),
    ):
        verify_experiment(tiny.experiment(), folder=folder)


# --- new cells beside verified ones


def test_new_cells_join_and_name_their_code(tiny, folder, code):
    with pytest.raises(OutdatedResult, match=r"let `thesis-kit claims verify` find out .* or add --restart"):
        run_experiment(tiny.experiment(seeds=5), folder=folder)
    verify_experiment(tiny.experiment(), folder=folder)
    result = run_experiment(tiny.experiment(seeds=5), folder=folder)
    assert {(cell["seed"], cell.get("modules")) for cell in result.document["cells"]} == {
        *((seed, None) for seed in range(4)),
        (4, SECOND),
    }
    assert result.document["code"]["modules"] == FIRST
    assert result.is_current()
    assert "3 of 12 runs measured again" in result.code_status()
    code(FIRST)  # the seeds added later were never measured by the first code
    assert not load_result(NAME, folder).is_current()
    code(THIRD)
    with pytest.raises(OutdatedResult, match="other code"):
        cells_left(tiny.experiment(seeds=6), ["natural"], folder=folder)
    verify_experiment(tiny.experiment(seeds=6), folder=folder)
    added = run_experiment(tiny.experiment(seeds=6), only_arms=["natural"], folder=folder)
    assert added.cells["natural"][5]["modules"] == THIRD
    assert added.cells["natural"][4]["modules"] == SECOND


def test_a_new_arm_needs_no_verification_and_a_dropped_one_none_either(tiny, folder, monkeypatch):
    monkeypatch.delitem(tiny.ARMS, "pgd-7")
    monkeypatch.setitem(tiny.ARMS, "free-16", 0.75)
    verification = verify_experiment(tiny.experiment(), folder=folder)
    assert [arm for arm, _ in verification.cells] == ["natural", "free-8"]
    assert verification.result.is_current()
    result = run_experiment(tiny.experiment(), folder=folder)
    assert result.missing("free-16") == []


def test_measured_again_in_full_a_record_is_the_new_codes_own(tiny, folder):
    verify_experiment(tiny.experiment(), folder=folder)
    start_over(tiny.experiment(), ["natural"], folder=folder)
    result = run_experiment(tiny.experiment(), folder=folder)
    assert {cell.get("modules") for cell in result.cells["natural"].values()} == {SECOND}
    assert {cell.get("modules") for cell in result.cells["free-8"].values()} == {None}
    start_over(tiny.experiment(), ["natural", "free-8", "pgd-7"], folder=folder)
    result = run_experiment(tiny.experiment(), folder=folder)
    assert result.document["code"]["modules"] == SECOND
    assert "verified" not in result.document
    assert result.code_status() == "the code that measures is unchanged since"


def test_a_document_stands_for_the_code_of_its_cells():
    def document(*cells, verified=None):
        rows = [{"arm": arm, "seed": 0, **({"modules": modules} if modules else {})} for arm, modules in cells]
        entry = {"verified": {"code": {"modules": SECOND}, "cells": [[arm, 0] for arm in verified]}} if verified else {}
        return {"code": {"modules": FIRST}, "cells": rows, "planned": {"a": [0], "b": [0]}, **entry}

    assert stands_for(document(("a", None), ("b", None)), FIRST)
    assert not stands_for(document(("a", None), ("b", SECOND)), FIRST)
    assert not stands_for(document(("a", None), ("b", SECOND)), SECOND)
    assert stands_for(document(("a", SECOND), ("b", SECOND)), SECOND)
    assert stands_for(document(("a", None), ("b", SECOND), verified=["a"]), SECOND)
    assert not stands_for(document(("a", None), ("b", None), verified=["a"]), SECOND)
    assert not stands_for(document(("a", None), verified=["a"]), THIRD)
    assert stands_for(document(("a", SECOND), ("gone", None)), SECOND)
