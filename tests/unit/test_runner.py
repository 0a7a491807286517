"""Runs are resumable, whatever interrupts them, and come to the same cells in any number of processes."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thesis_kit import chapters
from thesis_kit.checks import UnknownName
from thesis_kit.files import DamagedFile, only_writer
from thesis_kit.ledger.results import load_result, read_document, result_path
from thesis_kit.ledger.runner import (
    CellFailed,
    OutdatedResult,
    _run_cell,
    cells_left,
    duration,
    run_experiment,
    start_over,
)

WORLDS = Path(__file__).resolve().parents[1] / "worlds"


@pytest.fixture
def tiny(monkeypatch):
    """The miniature experiment's module, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(WORLDS))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The cells of a run that nothing disturbed, in one process."""
    sys.path.insert(0, str(WORLDS))
    try:
        import tiny_experiment

        folder = tmp_path_factory.mktemp("unbroken")
        said = []
        run_experiment(tiny_experiment.experiment(), folder=folder, progress=said.append)
    finally:
        sys.path.remove(str(WORLDS))
    return measured(folder), said, folder


def measured(folder):
    """What was measured, free of time: cells by arm and seed."""
    cells = read_document(result_path("defenses.digits", folder))["cells"]
    return {(cell["arm"], cell["seed"]): {**cell, "seconds": None} for cell in cells}


def test_one_and_two_jobs_give_the_same_cells(unbroken, tiny, tmp_path):
    run_experiment(tiny.experiment(), jobs=2, folder=tmp_path)
    assert measured(tmp_path) == unbroken[0]
    assert len(unbroken[0]) == 12


def test_every_run_computes_in_one_thread(unbroken):
    assert {cell["scalars"]["threads"] for cell in unbroken[0].values()} == {1}


def test_the_expected_time_comes_before_each_arm_and_progress_after_each_run(unbroken):
    _, said, _ = unbroken
    assert said[0] == "natural: 4 runs, about 6 min"
    assert said[1].startswith("natural, seed 0: 0 s (1 of 12, about ")
    assert said[-1] == "pgd-7, seed 3: 0 s (12 of 12)"
    assert sum("runs, about" in sentence for sentence in said) == 3


@pytest.fixture
def recorded(unbroken, tmp_path):
    """A folder with a copy of the finished recording."""
    shutil.copy(result_path("defenses.digits", unbroken[2]), tmp_path)
    return tmp_path


def test_a_finished_run_does_nothing_and_knows_its_recorded_times(recorded, tiny):
    said, before = [], result_path("defenses.digits", recorded).read_bytes()
    run_experiment(tiny.experiment(), folder=recorded, progress=said.append)
    assert said == []
    assert result_path("defenses.digits", recorded).read_bytes() == before
    assert cells_left(tiny.experiment(), ["natural"], folder=recorded) == ([], 0.0)
    again, seconds = cells_left(tiny.experiment(seeds=6), ["natural"], folder=recorded)
    assert (again, seconds) == ([("natural", 4), ("natural", 5)], 0.0)  # recorded runs took no time at all


def test_before_anything_is_recorded_the_experiment_guesses(tiny, tmp_path):
    todo, seconds = cells_left(tiny.experiment(), ["free-8", "natural"], folder=tmp_path)
    assert [arm for arm, _ in todo] == ["free-8"] * 4 + ["natural"] * 4
    assert seconds == 8 * 90.0
    with pytest.raises(UnknownName, match="did you mean free-8"):
        run_experiment(tiny.experiment(), only_arms=["free-9"], folder=tmp_path)


@pytest.mark.parametrize("change", ["configuration", "code", "data"])
def test_other_code_data_or_configuration_is_never_mixed_in(tiny, recorded, monkeypatch, change):
    experiment = tiny.experiment(**({"learning_rate": 1} if change == "configuration" else {}))
    if change == "code":
        monkeypatch.setattr("thesis_kit.ledger.runner.modules_hash", lambda module: "1" * 64)
    if change == "data":
        object.__setattr__(experiment, "data_hashes", lambda: {"tiny.v2": "1" * 64})
    with pytest.raises(OutdatedResult, match=rf"defenses\.digits\.json was recorded with .*{change} .* add --restart"):
        run_experiment(experiment, folder=recorded)
    assert len(measured(recorded)) == 12
    start_over(experiment, ["free-8"], folder=recorded)
    assert measured(recorded) == {}


def test_restart_forgets_only_what_is_measured_again(tiny, recorded):
    start_over(tiny.experiment(), ["natural"], folder=recorded)
    result = load_result("defenses.digits", recorded)
    assert result.arms == ["free-8", "pgd-7"]
    assert result.missing("natural") == [0, 1, 2, 3]
    assert {row["arm"] for row in result.document["summary"]} == {"free-8", "pgd-7"}


def rests_on(tiny, **weights):
    """The experiment, its arms resting on shipped networks."""
    experiment = tiny.experiment()
    object.__setattr__(experiment, "networks", lambda arm: {arm: weights.get(arm.partition("-")[0], "old")})
    return experiment


def test_an_arm_whose_network_was_trained_again_is_measured_again_alone_and_only_when_asked(tiny, tmp_path):
    run_experiment(rests_on(tiny), only_arms=["natural", "free-8"], folder=tmp_path)
    before = measured(tmp_path)
    assert {cell["networks"][arm] for (arm, _), cell in before.items()} == {"old"}
    newer = rests_on(tiny, free="new")
    assert cells_left(newer, ["natural"], folder=tmp_path) == ([], 0.0)
    for ask in (cells_left, lambda e, arms, folder: run_experiment(e, only_arms=arms, folder=folder)):
        with pytest.raises(OutdatedResult, match=r"json has free-8 with other weights of .* add --restart"):
            ask(newer, ["natural", "free-8"], folder=tmp_path)
    assert measured(tmp_path) == before
    run_experiment(newer, only_arms=["free-8"], restart=True, folder=tmp_path)
    after = measured(tmp_path)
    assert {after["free-8", seed]["networks"]["free-8"] for seed in range(4)} == {"new"}
    assert all(after["natural", seed] == before["natural", seed] for seed in range(4))


def test_a_failed_run_is_named_and_the_others_are_kept(tiny, tmp_path):
    with pytest.raises(CellFailed, match=r"free-8, seed 0 failed \(RuntimeError: the loss was NaN\)"):
        run_experiment(tiny.experiment(seeds=1, fails=["free-8", 0]), folder=tmp_path)
    assert list(measured(tmp_path)) == [("natural", 0)]


def test_a_dead_process_is_reported_not_waited_for(tiny, tmp_path):
    with pytest.raises(CellFailed, match="the process of natural, seed 0, or one beside it died"):
        run_experiment(tiny.experiment(seeds=1, dies=["natural", 0]), folder=tmp_path)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"outcomes": {"R": [True]}}, "outcome R has 1 entries for 2 images"),
        ({"outcomes": {"R": [True, 2]}}, "outcomes must be one 0 or 1 an image"),
        ({"outcomes": {}, "scalars": {"loss": float("nan")}}, "not JSON compliant"),
    ],
)
def test_a_cell_that_cannot_be_kept_is_refused_at_once(broken, sentence):
    with pytest.raises(ValueError, match=sentence):
        _run_cell(lambda arm, seed, config: {"group": "g", "n": 2, **broken}, "natural", 0, {})


SCRIPT = """
import sys
sys.path.insert(0, {worlds!r})
from tiny_experiment import experiment
from thesis_kit.ledger.runner import run_experiment
if __name__ == "__main__":
    run_experiment(experiment(**{config!r}), folder={folder!r}, progress=lambda s: print(s, flush=True))
"""


def start(tmp_path, **config):
    """The miniature run as a process (group) of its own, which prints a line after each run."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(worlds=str(WORLDS), config=config, folder=str(tmp_path / "results")))
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def running_in(session):
    """Processes of a session that are still alive (Linux)."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                alive.append(int(entry.name))
    return alive


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_at_random_points_it_goes_on_and_ends_the_same(unbroken, tmp_path):
    rng = random.Random(0)
    for lines in (rng.randint(1, 3), rng.randint(4, 6)):
        process = start(tmp_path, rest=0.05)
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert wait_until(lambda pid=process.pid: not running_in(pid)), "workers outlived their parent"
        for path in (tmp_path / "results").glob("*.json"):
            read_document(path)  # whole and verified, at whatever point the run died
    process = start(tmp_path, rest=0.05)
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert said.count("seed") < 12  # some runs were there already
    assert measured(tmp_path / "results") == unbroken[0]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["defenses.digits.json"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_stops_everything_and_keeps_what_is_finished(tmp_path):
    process = start(tmp_path, rest=0.3)
    assert any("seed 0" in line for line in process.stdout), process.communicate()[1]
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends: to the parent and all workers
    _, complaints = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in complaints
    assert complaints.count("Traceback") == 1  # the parent's own; the workers stay silent
    assert wait_until(lambda: not running_in(process.pid))
    assert ("natural", 0) in measured(tmp_path / "results")


def test_two_runs_at_once_are_refused(tiny, tmp_path):
    with (
        only_writer(result_path("defenses.digits", tmp_path)),
        pytest.raises(ValueError, match=r"another run is writing defenses\.digits\.json"),
    ):
        run_experiment(tiny.experiment(), folder=tmp_path)


def test_a_damaged_file_is_refused_and_left_as_it_is(tiny, tmp_path):
    path = result_path("defenses.digits", tmp_path)
    path.write_text(json.dumps({"schema": 1, "sha256": "0"}))
    with pytest.raises(DamagedFile, match=r"defenses\.digits\.json"):
        run_experiment(tiny.experiment(), restart=True, folder=tmp_path)
    assert path.read_text() == json.dumps({"schema": 1, "sha256": "0"})


def test_experiments_are_found_by_chapter_and_arena():
    found = chapters.find("defenses", "digits")
    assert found.id == "defenses.digits"
    assert {"natural", "free-8", "pgd-7"} <= set(found.arms)
    with pytest.raises(UnknownName, match="did you mean defenses"):
        chapters.find("defences", "digits")
    with pytest.raises(UnknownName, match="arena of chapter defenses"):
        chapters.find("defenses", "speech")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text
