"""Where a run may keep what it has: in a file that is its own, and not in somebody else's, a folder or a device."""

from pathlib import Path

import pytest

from thesis_kit.files import DamagedFile, Journal, WriteFailed
from thesis_kit.files.checkpoints import Checkpoint
from thesis_kit.sweep import sweep


@pytest.mark.parametrize("text", ["hello", "\0" * 100, "{", "[]"])
def test_a_file_without_a_line_that_is_not_ours_is_left_alone(text, tmp_path):
    """A half line that a kill left is one of ours only if it begins as ours does."""
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    journal = Journal(path, {"settings": 1})
    if journal.header.startswith(text.encode()):
        with journal.held():
            journal.append("a", {"value": 1})
        return
    for begin in (journal.look, journal.begin, lambda: sweep({"a": 1}, lambda item: {"value": item}, path)):
        with pytest.raises(DamagedFile, match=r"notes\.jsonl, line 1: this is not the first line of a "):
            begin()
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["", "folder", "/dev/null"])
def test_what_a_run_could_not_go_on_from_is_no_place_for_it(name, tmp_path):
    (tmp_path / "folder").mkdir()
    path = tmp_path / name if name else Path()
    if not path.exists():
        pytest.skip("there are no devices")
    for keep in (
        lambda: Journal(path, {}).look(),
        lambda: sweep({"a": 1}, lambda item: {"value": item}, path),
        lambda: Checkpoint(path, "training run", {}).held().__enter__(),
    ):
        with pytest.raises(WriteFailed, match=r"is a (folder: name a file to keep the|device, from which no) "):
            keep()
