"""Processes that are killed, interrupted, doubled, or lose their folder: nothing is lost, and nothing mixed up."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from functools import partial

import pytest

from tests.faults.writers import KILLS, WRITERS, Child, dying, emptied, left_in, outcome, run, seconds, started, steps

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
writers = pytest.mark.parametrize("name", WRITERS)


@writers
def test_killed_at_random_points_it_ends_as_if_unbroken(name, tmp_path):
    writer, seed = WRITERS[name], random.randrange(10**6)
    chance, killed, longest = random.Random(seed), 0, seconds(name) / KILLS
    while killed < KILLS:
        child = Child(partial(writer.work, tmp_path))
        if chance.random() < 0.7:
            started(tmp_path, child)
        time.sleep(chance.uniform(0, longest))
        child.kill(signal.SIGKILL)
        ended = child.end()
        assert ended.how in ("killed", "done"), f"seed {seed}: {ended}"
        killed += ended.how == "killed"
        if ended.how == "done":  # too late: once more, and sooner
            assert ended.said == outcome(name), f"seed {seed}"
            emptied(tmp_path)
            longest *= 0.7
    last = run(partial(writer.work, tmp_path))
    assert (last.how, last.said) == ("done", outcome(name)), f"seed {seed}: {last}"
    assert left_in(tmp_path) == list(writer.files), f"seed {seed}"


@pytest.mark.parametrize("name", ["pair", "value"])
def test_killed_at_any_of_its_last_steps_it_leaves_nothing_beside_its_files(name, tmp_path):
    """Whoever comes next has nothing to write, and takes away the locks."""
    writer, last = WRITERS[name], 2 * steps(name)
    for call in range(last - 12, last):
        folder = tmp_path / str(call)
        folder.mkdir()
        assert run(partial(dying, call, partial(writer.work, folder))).how == "killed", f"step {call}"
        assert run(partial(writer.work, folder)).said == outcome(name), f"step {call}"
        assert left_in(folder) == list(writer.files), f"step {call}"


@pytest.mark.parametrize(("name", "steps"), [("pair", 40), ("value", 16), ("sweep", 20), ("training", 16)])
def test_killed_at_each_step_on_disk_it_ends_as_if_unbroken(name, steps, tmp_path):
    """Before and after each of the first steps; every second one, or every one if many kills are asked for."""
    writer = WRITERS[name]
    for call in range(0, steps, 1 if KILLS > 5 else 3):
        folder = tmp_path / str(call)
        folder.mkdir()
        ended = run(partial(dying, call, partial(writer.work, folder)))
        assert ended.how == "killed", f"step {call}: {ended}"
        last = run(partial(writer.work, folder))
        assert (last.how, last.said) == ("done", outcome(name)), f"step {call}: {last}"
        assert left_in(folder) == list(writer.files), f"step {call}"


@writers
def test_interrupted_it_says_what_is_kept_and_goes_on_from_there(name, tmp_path):
    writer, seed = WRITERS[name], random.randrange(10**6)
    chance, stopped, longest = random.Random(seed), 0, seconds(name) / 3
    while stopped < max(2, KILLS // 2):
        before = {file: (tmp_path / file).read_bytes() for file in left_in(tmp_path)}
        child = Child(partial(writer.work, tmp_path))
        started(tmp_path, child)
        time.sleep(chance.uniform(0, longest))
        child.kill(signal.SIGINT)
        ended = child.end()
        assert ended.how in ("stopped", "done"), f"seed {seed}: {ended}"
        if ended.how == "done":
            emptied(tmp_path)
            longest *= 0.7
            continue
        stopped += 1
        after = {file: (tmp_path / file).read_bytes() for file in left_in(tmp_path)}
        assert not [file for file in after if file.endswith((".part", ".lock"))], f"seed {seed}: {ended}"
        if ended.said:
            assert str(tmp_path) in ended.said
            assert ended.said.endswith("the same call goes on from there")
            assert after
        else:  # it was not at work yet
            assert after == before or not writer.resumes, f"seed {seed}: nothing was said"
    last = run(partial(writer.work, tmp_path))
    assert (last.how, last.said) == ("done", outcome(name)), f"seed {seed}: {last}"
    assert left_in(tmp_path) == list(writer.files)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "tensors"])  # whose two files are no pair
def test_two_at_once_do_not_mix(name, tmp_path):
    """They take turns, or the second one is told about the first."""
    writer = WRITERS[name]
    children = [Child(partial(writer.work, tmp_path)) for _ in range(2)]
    ended = [child.end() for child in children]
    assert "done" in [one.how for one in ended], ended
    for one in ended:
        if one.how == "done":
            assert one.said == outcome(name)
        else:
            assert one.how == "failed"
            assert one.said.startswith("Busy: another run is writing "), one
            assert one.said.endswith("wait until it has finished")
    assert run(partial(writer.work, tmp_path)).said == outcome(name)
    assert left_in(tmp_path) == list(writer.files)


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.resumes])
def test_a_folder_that_is_removed_meanwhile_costs_nothing(name, tmp_path):
    folder, writer = tmp_path / "folder", WRITERS[name]
    for _ in range(20):
        child = Child(partial(writer.work, folder))
        started(folder, child)
        while folder.exists() and child.is_running():
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
        meanwhile = child.is_running()
        ended = child.end()
        if meanwhile:
            break
        shutil.rmtree(folder, ignore_errors=True)
    assert meanwhile
    if ended.how == "failed":  # removed between two steps of one write
        assert ended.said.startswith(f"WriteFailed: could not write {folder}")
    else:
        assert (ended.how, ended.said) == ("done", outcome(name))
        assert left_in(folder) == list(writer.files)
    assert run(partial(writer.work, folder)).said == outcome(name)


def test_the_shares_of_a_sweep_that_are_removed_are_kept(tmp_path):
    child = Child(partial(WRITERS["sweep"].work, tmp_path))
    started(tmp_path, child)
    for _ in range(3):
        time.sleep(seconds("sweep") / 8)
        shutil.rmtree(tmp_path / "run.jsonl.shares", ignore_errors=True)
    ended = child.end()
    assert (ended.how, ended.said) == ("done", outcome("sweep"))
    assert left_in(tmp_path) == ["run.jsonl"]
