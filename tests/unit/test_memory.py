"""Work that runs share is done once, told apart by all that decides it, and refused where it was altered."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch

from thesis_kit.files import DamagedFile
from thesis_kit.ledger import memory as memory_module
from thesis_kit.ledger.memory import Memory
from thesis_kit.ledger.provenance import machine


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path)


def test_work_is_done_once_and_comes_back_as_json_holds_it(memory):
    done = []

    def work():
        done.append(1)
        return {"pair": (1, 2), "order": {"b": 0.1, "a": None}}

    first, second = (memory.recall({"arm": "a", "seed": 0}, work) for _ in range(2))
    assert first == second == {"pair": [1, 2], "order": {"b": 0.1, "a": None}}
    assert list(second["order"]) == ["b", "a"]
    assert len(done) == 1
    memory.recall({"arm": "a", "seed": 1}, work)
    assert len(done) == 2


def test_settings_code_and_machine_each_have_files_of_their_own(memory, monkeypatch, tmp_path):
    def place(memory, settings, suffix=".json"):
        with memory.place(settings, suffix) as path:
            return path

    settings = {"arm": "a", "options": {"width": 4}}
    others = [
        place(memory, settings),
        place(memory, {**settings, "options": {"width": 5}}),
        place(memory, settings, ".ckpt"),
        place(Memory(tmp_path / "elsewhere"), settings),
        place(Memory(tmp_path, device="mps"), settings),
    ]
    assert place(Memory(tmp_path), copy.deepcopy(settings)) == others[0]
    for what, value in (("torch", "0.1"), ("processor", "another"), ("threads", 64)):
        here = machine() | {what: value}
        monkeypatch.setattr("thesis_kit.ledger.memory.machine", lambda device, threads, here=here: here)
        others.append(place(Memory(tmp_path), settings))
    monkeypatch.setattr(memory_module, "code", lambda: "another commit")
    others.append(place(Memory(tmp_path), settings))
    assert len(set(others)) == 9


def test_the_state_of_the_code_is_its_commit_or_when_it_was_changed_last(monkeypatch):
    def code(commit):
        monkeypatch.setattr(memory_module, "commit", lambda: commit)
        memory_module.code.cache_clear()
        return memory_module.code()

    assert code("abc") == "abc"
    assert code("abc+").startswith("abc+ 1")
    assert code(None).startswith("None 1")
    memory_module.code.cache_clear()


def test_tensors_are_kept_as_well_and_refused_where_they_were_altered(memory):
    made = {"weights": torch.arange(3.0), "seconds": 1.5}
    first, second = (memory.recall_tensors({"network": "a"}, work) for work in (lambda: made, dict))
    for kept in (first, second):
        assert torch.equal(kept["weights"], made["weights"])
        assert kept["seconds"] == 1.5
    (file,) = memory.folder.glob("*.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedFile):
        memory.recall_tensors({"network": "a"}, dict)


def test_work_that_failed_is_not_kept(memory):
    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        memory.recall({"arm": "a"}, fails)
    with pytest.raises(ValueError, match="JSON compliant"):
        memory.recall({"arm": "a"}, lambda: math.nan)
    assert memory.recall({"arm": "a"}, lambda: 3) == 3


@pytest.mark.parametrize("damage", [lambda data: data.replace(b"0.25", b"0.35"), lambda data: data[:-1]])
def test_an_altered_file_is_refused(memory, damage):
    memory.recall({"arm": "a"}, lambda: [0.25])
    (file,) = memory.folder.glob("*.json")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedFile, match=file.name):
        memory.recall({"arm": "a"}, lambda: [0.25])


def test_a_second_process_waits_and_takes_what_the_first_has_done(memory, tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(1); from thesis_kit.ledger.memory import Memory\n"
        "memory = Memory(sys.argv[1]); print('ready', flush=True)\n"
        "print(memory.recall({'arm': 'a'}, lambda: 'second'), flush=True)"
    )
    others = []

    def work():
        others.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True))
        assert others[0].stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            others[0].wait(timeout=0.5)
        return "first"

    assert memory.recall({"arm": "a"}, work) == "first"
    said, _ = others[0].communicate(timeout=60)
    assert (others[0].returncode, said) == (0, "first\n")


def test_kept_tensors_are_sealed(memory):
    made = {"weights": torch.arange(3.0), "name": "a", "n": 2}
    for _ in range(2):
        kept = memory.recall_tensors({"arm": "a"}, lambda: made)
        assert torch.equal(kept["weights"], made["weights"])
        assert (kept["name"], kept["n"]) == ("a", 2)
    (path,) = memory.folder.glob("*.pt")
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 50)):
        altered = bytearray(whole)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(DamagedFile, match=path.name):
            memory.recall_tensors({"arm": "a"}, lambda: made)


def test_what_is_kept_can_be_read_while_another_process_is_at_its_turn(memory):
    memory.recall({"arm": "a"}, lambda: 3)
    with memory.place({"arm": "a"}, ".json"):
        assert memory.recall({"arm": "a"}, lambda: 4) == 3
    assert [path.suffix for path in memory.folder.iterdir()] == [".json"]  # and no lock stays
