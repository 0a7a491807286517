"""The tiny member alone is known, and is trained once."""

from __future__ import annotations

import pytest

from tests.worlds.tiny_zoo import NAME, TINY
from thesis_kit.zookeeping import making
from thesis_kit.zookeeping.making import make
from thesis_kit.zookeeping.recipes import RECIPES


@pytest.fixture(autouse=True)
def recipes(monkeypatch, tmp_path):
    """The recipes are one, and checkpoints lie where nobody else looks."""
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    monkeypatch.setitem(RECIPES, NAME, TINY)
    monkeypatch.setattr(making, "CHECKPOINTS", tmp_path / "checkpoints")
    return RECIPES


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder of weights with the tiny member in it, to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    RECIPES[NAME] = TINY
    try:
        make(NAME, folder=folder, checkpoint=folder / "checkpoints")
    finally:
        del RECIPES[NAME]
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it, to be damaged."""
    copy = tmp_path / "weights"
    copy.mkdir()
    for file in (f"{NAME}.safetensors", f"{NAME}.json"):
        (copy / file).write_bytes((trained / file).read_bytes())
    return copy
