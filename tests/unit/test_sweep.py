"""Sweeps: what is kept when a process is killed, what several processes make together, what is refused."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import time

import pytest

from thesis_kit.files import DamagedFile
from thesis_kit.sweep import sweep as sweep_anything

ITEMS = {f"item {i}": i for i in range(7)}
MANY = {f"item {i}": i for i in range(120)}


def square(i):
    return {"square": i * i}


sweep = functools.partial(sweep_anything, identity="squares")  # whatever a test makes of them


def records(path):
    return [record for record, _ in map(json.loads, path.read_text().splitlines()[1:])]


def test_records_come_in_the_order_of_the_items_and_are_kept(tmp_path):
    path = tmp_path / "run.jsonl"
    found = sweep(ITEMS, square, path)
    assert found == [{"square": i * i, "key": f"item {i}"} for i in range(7)] == records(path)
    assert [*tmp_path.iterdir()] == [path]
    assert sweep(ITEMS, pytest.fail, path) == found  # nothing is done again


def test_a_failure_keeps_what_was_done_and_a_second_call_goes_on(tmp_path):
    path, asked = tmp_path / "run.jsonl", []

    def failing(i):
        asked.append(i)
        if asked == [0, 1, 2, 3]:
            raise RuntimeError("no more")
        return square(i)

    with pytest.raises(RuntimeError, match="no more"):
        sweep(ITEMS, failing, path)
    assert not path.exists()
    sweep(ITEMS, failing, path)
    assert asked == [0, 1, 2, 3, 3, 4, 5, 6]
    sweep(ITEMS, square, tmp_path / "unbroken.jsonl")
    assert path.read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()


def test_shares_make_the_same_file_as_one_process(tmp_path):
    alone, shared = tmp_path / "alone.jsonl", tmp_path / "shared.jsonl"
    sweep(ITEMS, square, alone)
    answers = [sweep(ITEMS, square, shared, rank=rank, world_size=3) for rank in (2, 0, 1)]
    assert answers[:2] == [None, None]
    assert answers[2] == records(alone)
    assert shared.read_bytes() == alone.read_bytes()


def test_a_run_begun_by_some_processes_can_be_ended_by_others(tmp_path):
    path, asked = tmp_path / "run.jsonl", []
    sweep(ITEMS, square, path, rank=0, world_size=2)  # items 0, 2, 4, 6
    sweep(ITEMS, lambda i: asked.append(i) or square(i), path)
    assert asked == [1, 3, 5]
    assert [record["square"] for record in records(path)] == [i * i for i in range(7)]


def test_the_environment_says_which_share(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = []
    assert sweep(ITEMS, lambda i: asked.append(i) or square(i), tmp_path / "run.jsonl") is None
    assert asked == [1, 3, 5]


def test_half_a_line_is_no_record(tmp_path):
    path = tmp_path / "run.jsonl"
    sweep(ITEMS, square, path, rank=0, world_size=2)
    (share,) = (tmp_path / "run.jsonl.shares").glob("0-of-2")
    share.write_bytes(share.read_bytes()[:-5])
    asked = []
    assert sweep(ITEMS, lambda i: asked.append(i) or square(i), path, rank=0, world_size=2) is None
    assert asked == [6]


def test_a_line_taken_out_of_the_merged_file_is_done_again(tmp_path):
    path, asked = tmp_path / "run.jsonl", []
    whole = sweep(ITEMS, square, path)
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert sweep(ITEMS, lambda i: asked.append(i) or square(i), path) == whole
    assert asked == [2]
    assert path.read_bytes() == before


def test_a_run_ended_by_others_meanwhile_ends_in_peace(tmp_path):
    """While the first of two processes is at its second item, one process alone does and merges everything."""
    path, asked = tmp_path / "run.jsonl", []

    def overtaken(i):
        asked.append(i)
        if i == 2:
            sweep(ITEMS, square, path, rank=0, world_size=1)
        return square(i)

    assert sweep(ITEMS, overtaken, path, rank=0, world_size=2) == records(path)
    assert asked == [0, 2]  # the others were there already
    assert not (tmp_path / "run.jsonl.shares").exists()
    assert len(records(path)) == len(ITEMS)


def test_shares_left_by_a_kill_in_the_middle_of_merging_do_not_come_back(tmp_path):
    path, shares = tmp_path / "run.jsonl", tmp_path / "run.jsonl.shares"
    sweep(ITEMS, square, path, rank=0, world_size=2)
    kept = (shares / "0-of-2").read_bytes()
    sweep(ITEMS, square, path, rank=1, world_size=2)
    shares.mkdir()
    (shares / "0-of-2").write_bytes(kept)  # as if it had not been removed
    sweep(ITEMS, pytest.fail, path)
    assert not shares.exists()


def test_a_temporary_file_is_no_share(tmp_path):
    path = tmp_path / "run.jsonl"
    sweep(ITEMS, square, path, rank=0, world_size=2)
    (tmp_path / "run.jsonl.shares" / ".1-of-2.99-aa.part").write_bytes(b"half of a hea")
    assert len(sweep(ITEMS, square, path, rank=1, world_size=2)) == len(ITEMS)


def test_records_are_kept_as_json_has_them(tmp_path):
    path = tmp_path / "run.jsonl"
    counts = sweep({"a": 0}, lambda _: {"counts": {2: 1, 10: 3}, "pair": (1, 2)}, path)
    assert counts == [{"counts": {"2": 1, "10": 3}, "pair": [1, 2], "key": "a"}]
    assert sweep({"a": 0}, pytest.fail, path) == counts


@pytest.mark.bad_input
def test_what_cannot_be_meant_is_refused_in_words(tmp_path):
    path = tmp_path / "run.jsonl"
    with pytest.raises(ValueError, match="two items have the key 'a'"):
        sweep([("a", 1), ("a", 2)], square, path)
    with pytest.raises(ValueError, match="keys of items must be strings"):
        sweep([(1, 1)], square, path)
    with pytest.raises(ValueError, match=r"rank must lie in 0 … 1"):
        sweep(ITEMS, square, path, rank=2, world_size=2)
    sweep(ITEMS, square, path, rank=0, world_size=2, settings={"n": 1})
    with pytest.raises(ValueError, match=r"other settings or items \(settings\.n was 1, is 2\)"):
        sweep(ITEMS, square, path, settings={"n": 2})
    with pytest.raises(ValueError, match='"key" of its own'):
        sweep(ITEMS, lambda i: {"key": i}, tmp_path / "other.jsonl")
    sweep(ITEMS, square, path, settings={"n": 1})
    with pytest.raises(ValueError, match="other settings or items"):
        sweep({**ITEMS, "one more": 7}, square, path, settings={"n": 1})
    path.write_text(path.read_text().replace('"square":9', '"square":8'))
    with pytest.raises(DamagedFile, match=r"run\.jsonl, line 5, is not what was written"):
        sweep(ITEMS, square, path, settings={"n": 1})


def start(path, log, rank, world_size):
    """A process of its own that does its share slowly and notes what it did; forked, for imports take seconds."""

    def slowly(i):
        time.sleep(0.02)
        with open(log, "a") as file:
            file.write(f"{i}\n")
        return square(i)

    if child := os.fork():
        return child
    code = 1
    try:
        sweep(MANY, slowly, path, rank=rank, world_size=world_size, progress=False)
        code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("world_size", [1, 2])
def test_twenty_kills_leave_the_same_file_as_an_unbroken_run(tmp_path, world_size):
    path, log, moments = tmp_path / "run.jsonl", tmp_path / "log", random.Random(world_size)
    kills = 0
    while kills < 20:
        running = [start(path, log, rank, world_size) for rank in range(world_size)]
        time.sleep(moments.uniform(0, 0.1))
        for child in running:
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    last = [start(path, log, rank, world_size) for rank in range(world_size)]
    assert [os.waitpid(child, 0)[1] for child in last] == [0] * world_size
    sweep(MANY, square, tmp_path / "unbroken.jsonl")
    assert path.read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()
    done = log.read_text().split()
    assert set(done) == {str(i) for i in range(len(MANY))}
    assert len(done) - len(MANY) <= kills  # a kill can cost the item at hand, and no more
