"""Files are whole or absent, and damage is reported by name."""

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from thesis_kit.files import (
    Busy,
    DamagedFile,
    Journal,
    OtherRun,
    WriteFailed,
    note,
    only_writer,
    parse_json,
    read_document,
    seal,
    settle,
    unseal,
    write_atomic,
    write_document,
    write_together,
    writing,
)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


def test_writes_and_replaces(tmp_path):
    target = tmp_path / "deep" / "folder" / "result.bin"
    write_atomic(target, b"one")
    write_atomic(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["result.bin"]


def test_a_written_file_is_readable_by_others(tmp_path):
    write_atomic(tmp_path / "a", b"x")
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, step):
    target = tmp_path / "result.json"
    write_atomic(target, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing.os, step, full)
    with pytest.raises(WriteFailed, match=r"result\.json \(No space left on device\)"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_real_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(WriteFailed, match="could not write"):
        write_atomic("/dev/full/result.json", b"new")


def test_an_interrupted_write_cleans_up_and_stays_an_interrupt(tmp_path, monkeypatch):
    target = tmp_path / "result.json"
    write_atomic(target, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="nothing was changed"):
        write_atomic(tmp_path / "file" / "result.json", b"new")


@pytest.mark.parametrize("payload", [b"", b"weights", os.urandom(5000)])
def test_seal_round_trip(payload):
    assert unseal(seal(payload), "x.pt") == payload


def test_truncated_altered_and_foreign_files_are_refused_by_name():
    sealed = seal(b"some weights of a network")
    for cut in range(len(sealed)):
        with pytest.raises(DamagedFile, match=r"free\.pt"):
            unseal(sealed[:cut], "free.pt")
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(DamagedFile, match=r"free\.pt"):
            unseal(bytes(altered), "free.pt")
    with pytest.raises(DamagedFile, match="not a thesis_kit file"):
        unseal(b"{}", "free.pt")


# Where the bytes go


def test_a_link_stays_and_what_it_points_at_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_bytes(b"old")
    (tmp_path / "link.json").symlink_to("real/a.json")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "real" / "b.json")
    write_atomic(tmp_path / "link.json", b"new")
    write_atomic(tmp_path / "dangling.json", b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert [path.name for path in sorted((tmp_path / "real").iterdir())] == ["a.json", "b.json"]
    assert {path.read_bytes() for path in (tmp_path / "real").iterdir()} == {b"new"}


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    (tmp_path / "a").chmod(0o600)
    write_atomic(tmp_path / "a", b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["run[1].jsonl", "*", "a?b", "x" * 250, "run.{1,2}", " a ", "ü" * 120])
def test_names_that_mean_something_to_a_shell_mean_themselves(tmp_path, name):
    others = ["run1.jsonl", ".run1.jsonl.12-ab.part", ".a.b.12-ab.part", ".xx.12-ab.part"]
    for other in others:
        (tmp_path / other).write_bytes(b"another's")
    write_atomic(tmp_path / name, b"one")
    with only_writer(tmp_path / name):
        write_atomic(tmp_path / name, b"two")
    assert (tmp_path / name).read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, name])


def test_half_of_a_file_that_a_kill_left_goes_with_the_next_writer(tmp_path):
    (tmp_path / ".a.json.1f-00aa.part").write_bytes(b"half")
    (tmp_path / ".a.json.bak.1f-00aa.part").write_bytes(b"another file's")
    (tmp_path / ".a.json.lock").write_bytes(b"")
    write_atomic(tmp_path / "a.json", b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.bak.1f-00aa.part", "a.json"]


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="there are no devices")
def test_a_device_is_written_to_and_not_replaced():
    write_atomic("/dev/null", b"gone")
    assert not os.path.isfile("/dev/null")


def test_a_folder_of_the_name_is_noticed_before_the_work(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(WriteFailed, match="there is a folder of this name"), only_writer(tmp_path / "a.json"):
        pytest.fail("the work began")


# One writer at a time


def test_a_file_has_one_writer_whatever_the_temporary_folder(tmp_path, monkeypatch):
    said = []

    def other(folder):
        monkeypatch.setenv("TMPDIR", str(folder))
        with pytest.raises(Busy, match=r"another run is writing a\.json") as caught, only_writer(tmp_path / "a.json"):
            pass
        said.append(caught.value)

    with only_writer(tmp_path / "a.json"):
        thread = threading.Thread(target=other, args=[tmp_path / "elsewhere"])
        thread.start(), thread.join()
        assert [path.name for path in tmp_path.iterdir()] == [".a.json.lock"]
    assert len(said) == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody can make a file")
def test_a_folder_in_which_nothing_can_be_made_is_not_called_busy():
    with pytest.raises(WriteFailed, match=r"could not write /proc/x\.json"), only_writer("/proc/x.json"):
        pytest.fail("the work began")


def test_a_link_and_its_target_have_one_writer(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with only_writer(tmp_path / "a"), pytest.raises(Busy), only_writer(tmp_path / "link"):
        pass


def test_writers_that_wait_take_turns(tmp_path):
    inside, most = [], []

    def write():
        for _ in range(20):
            with only_writer(tmp_path / "a", wait=True):
                inside.append(1), most.append(len(inside)), inside.pop()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 60
    assert [*tmp_path.iterdir()] == []


# Files that change together


def test_files_change_together_or_not_at_all(tmp_path, monkeypatch):
    sheet, about = tmp_path / "a.png", tmp_path / "a.json"
    write_together({sheet: b"one", about: b"one"})
    real, renames = os.replace, []

    def failing(source, target):
        renames.append(target)
        if str(target) in (str(sheet), str(about)) and len(renames) < 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(writing.os, "replace", failing)
    with pytest.raises(WriteFailed, match=r"a\.png .*nothing is new already, and the next run puts the rest in place"):
        write_together({sheet: b"two", about: b"two"})
    assert (sheet.read_bytes(), about.read_bytes()) == (b"one", b"one")
    monkeypatch.undo()
    settle(sheet)
    assert (sheet.read_bytes(), about.read_bytes()) == (b"two", b"two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_files_that_were_to_change_together_do_so_in_a_folder_that_was_moved(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    write_together({here / "a.png": b"one", here / "a.json": b"one"})
    real = os.replace

    def failing(source, target):
        if str(target).endswith("a.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(writing.os, "replace", failing)
    with pytest.raises(WriteFailed, match=r"a\.png is new already, and the next run puts the rest in place"):
        write_together({here / "a.png": b"two", here / "a.json": b"two"})
    monkeypatch.undo()
    here.rename(there)
    settle(there / "a.png")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"a.json": b"two", "a.png": b"two"}


def test_a_full_disk_leaves_both_of_two_files(tmp_path, monkeypatch):
    sheet, about = tmp_path / "a.png", tmp_path / "a.json"
    write_together({sheet: b"one", about: b"one"})
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 5:  # the plan, its folder, the sheet, … or what stands in their places
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(WriteFailed, match="No space left on device"):
        write_together({sheet: b"two", about: b"two"})
    assert (sheet.read_bytes(), about.read_bytes()) == (b"one", b"one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]


# Documents


def test_a_document_comes_back_and_says_what_it_is(tmp_path):
    content = {"name": "a", "rows": [{"x": 1.5}, {"x": None}], "none": []}
    write_document(tmp_path / "a.json", "scores", content)
    assert read_document(tmp_path / "a.json", "scores") == content
    assert len((tmp_path / "a.json").read_text().splitlines()) == 11
    with pytest.raises(DamagedFile, match=r"a\.json holds scores, not certificates"):
        read_document(tmp_path / "a.json", "certificates")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document(tmp_path / "a.json", "scores", {"x": float("nan")})
    assert read_document(tmp_path / "a.json", "scores") == content


def test_no_flipped_bit_of_a_document_goes_unnoticed(tmp_path):
    write_document(tmp_path / "a.json", "scores", {"name": "a", "rows": [1, 2.5]})
    whole = (tmp_path / "a.json").read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1
        (tmp_path / "a.json").write_bytes(altered)
        if altered.translate(None, b" \n\r\t") == whole.translate(None, b" \n\r\t"):  # white space means nothing
            assert read_document(tmp_path / "a.json", "scores") == {"name": "a", "rows": [1, 2.5]}
        else:
            with pytest.raises(DamagedFile, match=r"a\.json"):
                read_document(tmp_path / "a.json", "scores")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1,\n "b": {"x": 2,\n "x": 3}}', "r.json, line 3: the key 'x' stands twice"),
        (b'{"a": {"x": 1},\n "b": {"x": 2}, "a": 0}', "r.json, line 2: the key 'a' stands twice"),
        (b'{"a": "NaN",\n "b": NaN}', "r.json, line 2: NaN is no number"),
        (b'{"a": [1,\n\n -Infinity]}', "r.json, line 3: -Infinity is no number"),
        (b'{"a": 1,\n "b": }', "r.json, line 2: this is no JSON"),
        (b'{"a": 1,\n "b": "\xff"}', "r.json, line 2: this is no UTF-8"),
        (b"[" * 100_000, "r.json is nested too deeply"),
    ],
)
def test_json_that_was_not_meant_names_file_and_line(text, said):
    with pytest.raises(DamagedFile) as caught:
        parse_json(text, "r.json")
    assert str(caught.value).startswith(said)


def test_json_as_it_was_meant_is_read():
    assert parse_json('{"NaN": ["{", "\\\\\\"}"], "x": {"x": -1e3}}', "r") == {"NaN": ["{", '\\"}'], "x": {"x": -1e3}}


# Journals


def test_a_journal_whose_file_vanishes_is_written_again(tmp_path):
    with Journal(tmp_path / "deep" / "run.jsonl", {"n": 1}).held() as journal:
        journal.append("a", {"x": 1})
        shutil.rmtree(tmp_path / "deep")
        journal.append("b", {"x": 2})
    again = Journal(tmp_path / "deep" / "run.jsonl", {"n": 1})
    again.look()
    assert again.known == {"a": {"x": 1, "key": "a"}, "b": {"x": 2, "key": "b"}}


def test_a_journal_that_was_written_anew_in_the_same_place_is_read_anew(tmp_path):
    path = tmp_path / "run.jsonl"
    with Journal(path, {"n": 1}).held() as journal:
        journal.append("a", {"x": 1})
        reader = Journal(path, {"n": 1})
        reader.look()
        journal.known = {"b": {"x": "longer than before", "key": "b"}, **journal.known}
        other = tmp_path / "other.jsonl"
        journal.path = other
        journal.write()
    path.write_bytes(other.read_bytes())  # keeps the inode
    reader.look()
    assert set(reader.known) == {"a", "b"}


def test_a_journal_of_another_run_names_what_differs(tmp_path):
    header = {"settings": {"lr": 0.1, "model": "a" * 64}, "n": 3}
    with Journal(tmp_path / "run.jsonl", header, what="sweep").held():
        pass
    other = Journal(tmp_path / "run.jsonl", {"settings": {"lr": 0.2, "model": "b" * 64}, "n": 3}, what="sweep")
    said = r"settings\.lr was 0\.1, is 0\.2; settings\.model was 'aaaaaaaaaaa…', is 'bbbbbbbbbbb…'\): name another file"
    with pytest.raises(OtherRun, match=said):
        other.look()
    (tmp_path / "run.jsonl").write_text("notes of mine\n")
    with pytest.raises(DamagedFile, match=r"run\.jsonl, line 1: this is not the first line of a sweep"):
        other.look()
    assert (tmp_path / "run.jsonl").read_text() == "notes of mine\n"


def test_a_note_is_added_to_an_exception_on_every_python():
    class Plain(Exception):
        add_note = property()  # as if there were none

    for error in (KeyboardInterrupt(), Plain()):
        note(error, "one"), note(error, "two")
        assert error.__notes__ == ["one", "two"]
