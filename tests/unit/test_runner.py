"""Runs are resumable, whatever interrupts them, and come to the same cells in any number of processes."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from thesis_kit.files import DamagedFile
from thesis_kit.ledger import registry, runner
from thesis_kit.ledger.arm import Arm, Experiment, Settings
from thesis_kit.ledger.cells import arm_file, arm_files, keep_cell, read_cells
from thesis_kit.ledger.results import load_result
from thesis_kit.ledger.runner import CellFailed, OutdatedResult, cells_left, duration, run_experiment, start_over
from thesis_kit.names import UnknownName

WORLDS = Path(__file__).resolve().parents[1] / "worlds"
NAME = "defenses.digits"


@pytest.fixture
def tiny(monkeypatch):
    """The miniature experiment's module, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(WORLDS))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def here(monkeypatch):
    """Cells run in threads of this process: nothing has to start."""
    run = run_experiment

    def in_threads(experiment, **knobs):
        with ThreadPoolExecutor(2) as pool:
            return run(experiment, executor=pool, **knobs)

    return in_threads


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
    """What was measured, free of time and of what differs between processes: cells by arm and seed."""
    found = {}
    for arm, path in arm_files(NAME, folder).items():
        for seed, cell in read_cells(path, arm).items():
            scalars = {key: value for key, value in cell["scalars"].items() if key not in ("threads", "torch")}
            found[arm, seed] = {**cell, "scalars": scalars, "seconds": None, "machine": None, "sha256": None}
    return found


def test_any_executor_gives_the_same_cells(unbroken, tiny, here, tmp_path):
    here(tiny.experiment(), jobs=2, folder=tmp_path)
    assert measured(tmp_path) == unbroken[0]
    assert len(unbroken[0]) == 12


def test_two_jobs_give_the_same_cells(unbroken, tiny, tmp_path):
    run_experiment(tiny.experiment(), jobs=2, folder=tmp_path)
    assert measured(tmp_path) == unbroken[0]


def test_every_run_computes_in_one_thread_and_loads_only_what_it_needs(unbroken):
    cells = load_result(NAME, unbroken[2]).cells
    assert {cell["scalars"]["threads"] for arm in cells for cell in cells[arm].values()} == {1}
    assert {cell["scalars"]["torch"] for arm in cells for cell in cells[arm].values()} == {0}


def test_a_cell_says_what_it_was_measured_with_where_and_when(unbroken):
    cell = load_result(NAME, unbroken[2]).cells["natural"][2]
    assert (cell["arm"], cell["seed"], cell["version"], cell["settings"]) == ("natural", 2, 1, {})
    assert set(cell["machine"]) == {"processor", "cores", "threads", "device", "python", "torch"}
    assert cell["environment"]["thesis_kit"]
    assert cell["recorded"] == time.strftime("%Y-%m-%d")
    assert cell["commit"] is None or len(cell["commit"].rstrip("+")) == 40


def test_the_time_left_is_said_as_far_as_it_is_known(unbroken):
    _, said, _ = unbroken
    assert said[0] == "natural: 4 runs, for an unknown time"  # nothing alike was recorded before
    assert said[1].startswith("natural, seed 0: 0 s (1 of 12, about ")
    assert said[-1] == "pgd-7, seed 3: 0 s (12 of 12)"


@pytest.fixture
def recorded(unbroken, tmp_path):
    """A folder with a copy of the finished recording."""
    shutil.copytree(unbroken[2], tmp_path / "copy")
    return tmp_path / "copy"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.jsonl")}


def test_a_finished_run_does_nothing_and_knows_its_recorded_times(recorded, tiny, here):
    said, before = [], contents(recorded)
    here(tiny.experiment(), folder=recorded, progress=said.append)
    assert said == []
    assert contents(recorded) == before
    assert cells_left(tiny.experiment(), ["natural"], folder=recorded) == ([], 0.0)
    again, seconds = cells_left(tiny.experiment(seeds=6), ["natural"], folder=recorded)
    assert [(arm.name, seed) for arm, seed in again] == [("natural", 4), ("natural", 5)]
    assert seconds == 0.0  # recorded runs took no time at all


def test_a_new_arm_takes_as_long_as_those_beside_it(tiny, recorded):
    keep_cell(NAME, {**tiny.cell("natural", 0, {}, n=0), "seconds": 90.0}, recorded)
    more = Experiment("defenses", "digits", (*tiny.experiment().arms, tiny.arm("new")))
    _, seconds = cells_left(more, ["new"], folder=recorded)
    assert seconds == pytest.approx(4 * (90 / 4) / 3)
    assert cells_left(more, ["new"], folder=recorded / "nowhere")[1] is None


def test_an_unknown_arm_is_refused_with_near_names(tiny, tmp_path):
    with pytest.raises(UnknownName, match="did you mean free-8"):
        run_experiment(tiny.experiment(), only_arms=["free-9"], folder=tmp_path)


def changed(tiny, what):
    experiment = tiny.experiment()
    change = {
        "settings": {"settings": Settings({"learning_rate": 1})},
        "version": {"version": 2},
        "data": {"data": ("scenes.v1",)},
        "networks": {"networks": ("a network of timm",)},
    }[what]
    arms = [replace(arm, **change) if arm.name == "free-8" else arm for arm in experiment.arms]
    return Experiment("defenses", "digits", tuple(arms))


@pytest.mark.parametrize("what", ["settings", "version", "data", "networks"])
def test_cells_of_a_changed_arm_are_never_mixed_and_no_other_arm_is_touched(tiny, recorded, here, what):
    other, before = changed(tiny, what), contents(recorded)
    for ask in (cells_left, lambda e, arms, folder: here(e, only_arms=arms, folder=folder)):
        with pytest.raises(OutdatedResult, match=r"free-8 of defenses\.digits was recorded with .* add --restart"):
            ask(other, ["natural", "free-8"], folder=recorded)
    assert cells_left(other, ["natural", "pgd-7"], folder=recorded) == ([], 0.0)
    assert contents(recorded) == before
    here(other, only_arms=["free-8"], restart=True, folder=recorded)
    after = contents(recorded)
    assert {name for name in before if before[name] != after[name]} == {"free-8.jsonl"}
    assert cells_left(other, ["free-8"], folder=recorded) == ([], 0.0)


def test_adding_an_arm_leaves_every_other_cell_current(tiny, recorded, here):
    more = Experiment("defenses", "digits", (tiny.arm("natural"), *tiny.experiment().arms[1:], tiny.arm("pgd-7b")))
    tiny.RATES["pgd-7b"] = 0.5
    try:
        before = contents(recorded)
        todo, _ = cells_left(more, more.names, folder=recorded)
        assert [(arm.name, seed) for arm, seed in todo] == [("pgd-7b", seed) for seed in range(4)]
        result = here(more, folder=recorded)
    finally:
        del tiny.RATES["pgd-7b"]
    assert {name: text for name, text in contents(recorded).items() if name != "pgd-7b.jsonl"} == before
    assert {arm: (result.missing(arm), result.outdated(arm)) for arm in result.arms} == dict.fromkeys(
        more.names, ([], "")
    )


def test_restart_forgets_only_what_is_measured_again(tiny, recorded):
    start_over(tiny.experiment(), ["natural"], folder=recorded)
    result = load_result(NAME, recorded, tiny.experiment())
    assert result.arms == ["free-8", "pgd-7"]
    assert result.missing("natural") == [0, 1, 2, 3]


def test_a_failed_run_is_named_and_the_others_are_kept(tiny, here, tmp_path):
    with pytest.raises(CellFailed, match=r"free-8, seed 0 failed \(RuntimeError: the loss was NaN\)"):
        here(tiny.experiment(seeds=1, fails=["free-8", 0]), folder=tmp_path)
    assert list(measured(tmp_path)) == [("natural", 0)]


def test_a_dead_process_is_reported_not_waited_for(tiny, tmp_path):
    with pytest.raises(CellFailed, match="the process of natural, seed 0, or one beside it died"):
        run_experiment(tiny.experiment(seeds=1, dies=["natural", 0]), folder=tmp_path)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"outcomes": {"R": [True]}}, "outcome R has 1 entries for 2 images"),
        ({"outcomes": {}, "values": {"radius": [1.0]}}, "value radius has 1 entries for 2 images"),
        ({"outcomes": {"R": [True, 2]}}, "outcomes must be one 0 or 1 an image"),
        ({"outcomes": {}, "scalars": {"loss": float("nan")}}, "not JSON compliant"),
    ],
)
def test_a_cell_that_cannot_be_kept_is_refused_at_once(broken, sentence):
    record = {"group": "g", "n": 2, **broken}
    arm = Arm("a", "an arm", lambda seed, settings: record, lambda record: record, Settings({}), (0,))
    with pytest.raises(ValueError, match=sentence):
        runner.run_cell(arm, 0)


SCRIPT = """
import sys
sys.path.insert(0, {worlds!r})
from tiny_experiment import experiment
from thesis_kit.ledger.runner import run_experiment
if __name__ == "__main__":
    run_experiment(experiment(**{settings!r}), folder={folder!r}, progress=lambda s: print(s, flush=True))
"""


def start(tmp_path, folder="results", **settings):
    """The miniature run as a process (group) of its own, which prints a line after each run."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(worlds=str(WORLDS), settings=settings, folder=str(tmp_path / folder)))
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


def without_rest(cells):
    return {place: {**cell, "settings": {}} for place, cell in cells.items()}


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
        measured(tmp_path / "results")  # whole and verified, at whatever point the run died
    process = start(tmp_path, rest=0.05)
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert said.count("seed") < 12  # some runs were there already
    assert without_rest(measured(tmp_path / "results")) == unbroken[0]
    assert {path.suffix for path in (tmp_path / "results").rglob("*") if path.is_file()} == {".jsonl"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="SIGINT is ignored here, as under nohup"
)
def test_ctrl_c_stops_everything_and_keeps_what_is_finished(tmp_path):
    process = start(tmp_path, rest=0.3)
    assert any("seed 0" in line for line in process.stdout), process.communicate()[1]
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends: to the parent and all workers
    _, complaints = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in complaints
    assert complaints.count("Traceback") == 1  # the parent's own; the workers stay silent
    assert wait_until(lambda: not running_in(process.pid))
    assert ("natural", 0) in measured(tmp_path / "results")


def test_two_runs_at_once_lose_none_of_each_others_cells(unbroken, tmp_path):
    runs = [start(tmp_path, rest=0.02), start(tmp_path, rest=0.02)]
    for process in runs:
        _, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    assert without_rest(measured(tmp_path / "results")) == unbroken[0]


def test_a_damaged_file_stops_who_needs_it_and_nobody_else(tiny, recorded, here):
    path = arm_file(NAME, "free-8", recorded)
    damaged = path.read_bytes().replace(b'"n": 40', b'"n": 41', 1)
    path.write_bytes(damaged)
    with pytest.raises(DamagedFile, match=r"digits/free-8\.jsonl, line 1: this was altered"):
        here(tiny.experiment(), folder=recorded)
    assert path.read_bytes() == damaged
    assert cells_left(tiny.experiment(seeds=5), ["natural"], folder=recorded)[1] == 0.0
    result = load_result(NAME, recorded, tiny.experiment())
    assert len(result.outcomes("R", "natural")) == 4
    with pytest.raises(DamagedFile, match="line 1"):
        result.outcomes("R", "free-8")
    here(tiny.experiment(), only_arms=["free-8"], restart=True, folder=recorded)
    assert len(read_cells(path, "free-8")) == 4


def test_experiments_are_found_by_chapter_and_arena():
    found = registry.find("defenses", "digits")
    assert found.id == NAME
    assert {"natural", "free-8", "pgd-7"} <= set(found.names)
    assert set(registry.experiments("sonification")) == {"speech", "real"}
    assert registry.titles("defenses")["free-8"] == "Free, m = 8"
    with pytest.raises(UnknownName, match="did you mean defenses"):
        registry.find("defences", "digits")
    with pytest.raises(UnknownName, match="arena of chapter defenses"):
        registry.find("defenses", "speech")


@pytest.mark.parametrize("chapter", registry.chapters())
def test_an_arm_in_several_arenas_has_one_title(chapter):
    titles = registry.titles(chapter)
    for experiment in registry.experiments(chapter).values():
        assert {arm.name: arm.title for arm in experiment.arms}.items() <= titles.items()
        for arm in experiment.arms:
            assert arm.title
            assert arm.seeds
            assert arm.data or arm.settings["member"]  # what others trained needs none of our data


def test_two_arms_of_one_name_are_refused(tiny):
    with pytest.raises(ValueError, match=r"defenses\.digits has two arms called natural: rename one"):
        Experiment("defenses", "digits", (tiny.arm("natural"), tiny.arm("natural")))


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text
