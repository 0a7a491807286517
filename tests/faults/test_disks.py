"""Disks that are full, folders that cannot be written to, and bytes that change: a sentence, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.writers import KILLS, WRITERS, begun, left_in, outcome, run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
writers = pytest.mark.parametrize("name", WRITERS)
resuming = pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.resumes])


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path | None]:
    """A small disk of its own, where this process may mount one; else None."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    try:
        yield folder if made.returncode == 0 else None
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all there is."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def limited(work) -> str:
    """The work, in a process whose files may not grow beyond a few bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return work()


@contextlib.contextmanager
def full(folder: Path, work) -> Iterator:
    """The work, on a disk that is full: one that is mounted, or one that behaves so."""
    if not os.path.ismount(folder):
        yield partial(limited, work)
        return
    for part in folder.rglob(".*.part"):  # else the room that it gives back
        part.unlink()
    filler = fill(folder)
    try:
        yield work
    finally:
        filler.unlink()


def visible(folder: Path) -> list[str]:
    return [file for file in left_in(folder) if "/." not in f"/{file}" and file != "filler"]


@pytest.mark.parametrize("mounted", [True, False], ids=["a small disk", "small files"])
@writers
def test_a_full_disk_is_a_sentence_and_what_was_kept_stays(name, tmp_path, mounted):
    writer, folder = WRITERS[name], tmp_path / "folder"
    with disk(folder) if mounted else contextlib.nullcontext(tmp_path) as place:
        if place is None:
            pytest.skip("this process may not mount a disk")
        begun(name, place, 0.3)
        kept, hidden = {file: (place / file).read_bytes() for file in visible(place)}, left_in(place)
        with full(place, partial(writer.work, place)) as work:
            ended = run(work)
            assert ended.how == "failed", ended
            assert ended.said.startswith("WriteFailed: could not write "), ended
            assert str(place) in ended.said
            assert "No space left on device" in ended.said or "File too large" in ended.said
            assert set(left_in(place)) - {"filler", *visible(place)} <= set(hidden)  # nothing new but what was done
            for file in kept if writer.resumes else ():  # a line may have found room, and half a line goes
                left, whole = (place / file).read_bytes(), kept[file][: kept[file].rfind(b"\n") + 1]
                assert left == kept[file] or left.startswith(whole), file
        last = run(partial(writer.work, place))
        assert (last.how, last.said) == ("done", outcome(name))
        assert left_in(place) == list(writer.files)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written there inside the block."""
    if os.geteuid() == 0:
        if subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True).returncode:
            pytest.skip("root ignores permissions, and this process may not mount a disk")
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        return
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def own_folder(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "folder") as mounted:
        yield mounted or tmp_path / "folder"


@resuming
def test_a_finished_run_is_read_from_a_folder_that_nobody_may_write_to(name, tmp_path):
    writer = WRITERS[name]
    with own_folder(tmp_path) as folder:
        assert run(partial(writer.work, folder)).said == outcome(name)
        with read_only(folder):
            ended = run(partial(writer.work, folder))
            assert (ended.how, ended.said) == ("done", outcome(name))


def untouched(work) -> str:
    """The work, in a process that notices if it begins."""
    import torch

    def begun(*_, **__):
        raise AssertionError("the work began")

    torch.nn.Linear.forward = begun
    return work()


@writers
def test_a_folder_that_nobody_may_write_to_is_noticed_before_the_work(name, tmp_path):
    writer = WRITERS[name]
    with own_folder(tmp_path) as folder:
        begun(name, folder, 0.3)
        kept = {file: (folder / file).read_bytes() for file in left_in(folder)}
        with read_only(folder):
            ended = run(partial(untouched, partial(writer.work, folder)))
            if ended.how == "done":  # the kill came after the end: a finished run is read, and nothing begins
                assert ended.said == outcome(name)
            else:
                assert ended.said.startswith(f"WriteFailed: could not write {folder}"), ended
            assert {file: (folder / file).read_bytes() for file in left_in(folder)} == kept
        last = run(partial(writer.work, folder))
        assert (last.how, last.said) == ("done", outcome(name))


@writers
@pytest.mark.parametrize("finished", [False, True])
def test_no_flipped_bit_is_believed(name, tmp_path, finished):
    writer, seed = WRITERS[name], random.randrange(10**6)
    chance, folder = random.Random(seed), tmp_path / "folder"
    folder.mkdir()
    if finished:
        run(partial(writer.work, folder))
    else:
        begun(name, folder)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    files = [file for file in visible(whole) if not file.endswith("png")]
    for _ in range(3 * KILLS):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        file = chance.choice(files)
        altered = bytearray((folder / file).read_bytes())
        place = chance.randrange(len(altered))
        altered[place] ^= 1 << chance.randrange(8)
        (folder / file).write_bytes(altered)
        ended = run(partial(writer.work, folder))
        said = f"seed {seed}, byte {place} of {file}: {ended}"
        if ended.how == "done":
            assert ended.said == outcome(name), said
        elif name == "pair":
            assert ended.how == "failed", said  # the JSON is the test's own
        else:
            assert ended.how == "failed", said
            assert ended.said.startswith(("DamagedFile: ", "OtherRun: ")), said
            assert Path(file).name in ended.said, said
