"""The chapters' miniatures, recorded once for all test processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def miniature(tmp_path_factory, worker_id):
    """A function: the name of a recording → its miniature's result."""
    from tests.worlds import miniatures  # heavy, and for the chapters' tests alone

    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "miniatures"
    found = {}

    def result(name):
        if name not in found:
            folder = shared / name
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                found[name] = miniatures.recorded(name, folder)
        return found[name]

    result.folder = lambda name: shared / name
    return result


@pytest.fixture
def around(miniature):
    """A function: the name of a recording → a context with what its arms need around them, shared work included."""

    from tests.worlds import miniatures

    def context(name, folder: Path | None = None):
        miniature(name)
        return miniatures.surroundings(name, folder or miniature.folder(name))

    return context


@pytest.fixture(scope="session")
def jasper():
    """A small recognizer after Jasper with random weights."""
    import torch

    from thesis_kit.models.speech import Jasper

    torch.manual_seed(0)
    return Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()


@pytest.fixture(scope="session")
def whisper():
    """A small Whisper with random weights."""
    import torch

    from tests.worlds.tiny_whisper import SIZE
    from thesis_kit.models.speech import Whisper

    torch.manual_seed(0)
    return Whisper(SIZE).eval()
