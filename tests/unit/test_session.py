"""One call decides profile, device and seed; the tables behind it are frozen."""

from __future__ import annotations

import dataclasses
import random
import re

import numpy as np
import pytest
import torch

import thesis_kit as tk
from thesis_kit import progress, session
from thesis_kit.chapters.defenses.settings import DEFENSES
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part, Splits
from thesis_kit.session import PROFILES, tables


@pytest.fixture(autouse=True)
def _global_state():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0]), np.random.set_state(states[1]), random.setstate(states[2])
    progress.set_progress(None)


def test_setup_needs_nothing():
    here = tk.setup()
    assert (here.profile, here.seed) == ("small", 0)
    assert here.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_seed_is_planted_everywhere():
    drawn = []
    for _ in range(2):
        tk.setup(seed=5)
        drawn.append((torch.rand(1).item(), np.random.rand()))
    assert drawn[0] == drawn[1]
    here = tk.setup(seed=5)
    again = torch.rand(3, generator=here.generator())
    assert torch.equal(again, torch.rand(3, generator=here.generator()))


def test_a_gpu_is_used_where_there_is_one_and_only_asked_for_politely(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert tk.setup().device.type == "cuda"
    assert tk.setup(device="cpu").device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tk.setup().device.type == "cpu"
    with pytest.raises(ValueError, match=re.escape('no usable GPU here: leave out device, or pass device="cpu"')):
        tk.setup(device="cuda")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("smal", "unknown profile 'smal': did you mean small?"), ("huge", "choose one of full, record, small")],
)
def test_unknown_profiles_are_refused_with_near_names(name, sentence):
    with pytest.raises(UnknownName, match=re.escape(sentence)):
        tk.setup(name)


@pytest.mark.bad_input
def test_bad_seeds_are_one_sentence():
    for seed in (-1, 0.5, "0"):
        with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
            tk.setup(seed=seed)


def test_unknown_chapters_are_refused_with_near_names():
    with pytest.raises(UnknownName, match=r"unknown chapter 'defences': did you mean defenses or features\?"):
        tk.setup().chapter("defences")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_chapter_has_every_profile(profile):
    here = tk.setup(profile, device="cpu")
    for name, table in tables().items():
        assert here.chapter(name) is table[profile]


def test_profiles_cannot_be_changed():
    settings = tk.setup().chapter("defenses")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.eps = 1.0
    with pytest.raises(TypeError):
        settings.model_options["width"] = 1
    with pytest.raises(TypeError):
        DEFENSES["small"] = settings
    with pytest.raises(TypeError):
        tables()["defenses"] = {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        tk.setup().seed = 3


def test_record_and_full_keep_the_protocol():
    record, full = DEFENSES["record"], DEFENSES["full"]
    assert record.seeds == tuple(range(10))
    assert (record.strong_steps, record.strong_restarts, record.queries) == (100, 5, 5000)
    assert (full.data, full.eps) == ("cifar10", 8 / 255)
    assert DEFENSES["small"].queries == 1000
    assert {settings.data for name, settings in DEFENSES.items() if name != "full"} == {"digits"}


def test_a_session_hands_out_the_chapters_data_and_network():
    here = tk.setup(seed=2, device="cpu")
    splits, expected = here.splits("defenses"), tk.data.digits(2)
    assert torch.equal(splits.test.ids, expected.test.ids)
    assert torch.equal(here.splits("defenses", seed=3).test.ids, tk.data.digits(3).test.ids)
    model, settings = here.classifier("defenses"), here.chapter("defenses")
    same = tk.models.build(settings.model, seed=2, **settings.model_options)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    other = here.classifier("defenses", seed=3)
    assert not torch.equal(next(model.parameters()), next(other.parameters()))
    assert model(splits.test.x[:2]).shape == (2, 10)


def test_the_full_chapter_asks_for_its_own_data_and_network(monkeypatch):
    asked = {}

    def load(name, seed, **options):
        asked.update(name=name, seed=seed, **options)
        part = Part(torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64), torch.arange(2))
        return Splits(part, part, part)

    monkeypatch.setattr(session.data, "load", load)
    here = tk.setup("full", device="cpu", seed=4)
    part = here.splits("defenses").test
    assert asked == {"name": "cifar10", "seed": 4, "n_test": 1000}
    assert here.classifier("defenses").eval()(part.x).shape == (2, 10)


def test_the_session_decides_about_bars(capsys):
    for asked in (True, False):
        tk.setup(progress=asked)
        with progress.track("work", 2) as bar:
            bar.advance()
        assert bool(capsys.readouterr().err) == asked
