"""Files are whole or absent, and damage is reported by name."""

import errno
import os
import stat

import pytest

from thesis_kit.files import DamagedFile, WriteFailed, seal, unseal, write_atomic, writing


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
