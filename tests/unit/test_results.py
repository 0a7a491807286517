"""Result files are whole, verified and readable, and say when the code behind them has changed."""

import ast
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from thesis_kit import files
from thesis_kit.checks import UnknownName
from thesis_kit.files import DamagedFile, WriteFailed
from thesis_kit.ledger import provenance
from thesis_kit.ledger.provenance import machine, modules_hash, modules_used
from thesis_kit.ledger.results import (
    NotRecorded,
    Result,
    available,
    load_result,
    pack,
    read_document,
    result_path,
    summarize,
    unpack,
    write_document,
)
from thesis_kit.ledger.statistics import WILSON


@pytest.fixture
def world(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "worlds"))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def document(world):
    arms = {"natural": {"N": 0.95, "R": 0.0}, "free-8": {"N": 0.9, "R": 0.7}}
    return world.document(arms, scalars={"natural": {"passes": [1.0, 2.0, 3.0, 4.0]}})


@pytest.fixture
def path(document, tmp_path):
    path = result_path("defenses.digits", tmp_path)
    write_document(path, document)
    return path


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 359, 360])
def test_packed_outcomes_come_back(n):
    bits = np.random.default_rng(n).random(n) < 0.5
    assert (unpack(pack(bits), n) == bits).all()
    assert pack(torch.from_numpy(bits)) == pack(bits) == pack(bits.astype(float)) == pack(bits.tolist())


def test_packing_refuses_what_is_no_outcome():
    for wrong in ([0.5, 1], [[True], [False]], [2]):
        with pytest.raises(ValueError, match="one 0 or 1 an image"):
            pack(wrong)
    with pytest.raises(ValueError, match="24 were expected"):
        unpack(pack([True] * 16), 24)


def test_a_document_comes_back_as_it_was(document, path):
    back = read_document(path)
    assert {key: value for key, value in back.items() if key != "sha256"} == document
    assert read_document(path) == back


def test_files_are_lines_that_people_can_compare(document, path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum(line.lstrip().startswith('{"arm"') for line in lines) == len(document["cells"])


def test_every_truncation_is_refused_by_name(path):
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedFile, match=r"defenses\.digits\.json is"):
            read_document(path)


def test_an_altered_number_is_refused_by_name(path):
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"seed": 3', '"seed": 4', 1), encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"defenses\.digits\.json was altered"):
        load_result("defenses.digits", path.parent)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "\x00\x01"])
def test_foreign_files_are_refused_by_name(path, text):
    path.write_text(text)
    with pytest.raises(DamagedFile, match=r"defenses\.digits\.json"):
        read_document(path)


def test_another_format_is_refused(document, path):
    write_document(path, {**document, "schema": 99})
    with pytest.raises(DamagedFile, match="has format 99"):
        read_document(path)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_the_old_file(document, path, monkeypatch, failure):
    before = path.read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(WriteFailed if isinstance(failure, OSError) else KeyboardInterrupt):
        write_document(path, {**document, "seconds": 2.0})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_nan_never_reaches_a_file(document, path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_document(path, {**document, "seconds": math.nan})
    assert path.read_bytes() == before


def test_results_are_found_by_name(path):
    assert available(path.parent) == ["defenses.digits"]
    assert load_result("defenses.digits", path.parent).name == "defenses.digits"
    with pytest.raises(UnknownName, match=r"did you mean defenses\.digits"):
        load_result("defences.digits", path.parent)


def test_what_was_measured_can_be_read(path):
    result = load_result("defenses.digits", path.parent)
    assert result.arms == ["natural", "free-8"]
    assert result.outcomes("R", "free-8")[0].shape == (200,)
    assert result.scalars("passes", "natural") == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    assert result.scalars("R", "natural") == dict.fromkeys(range(4), 0.0)
    mean = result.mean("passes", "natural")
    assert (mean.value, mean.seeds, mean.n) == (2.5, 4, 0)
    robust = result.mean("R", "free-8")
    assert robust.low < robust.value < robust.high
    assert (robust.n, robust.seeds) == (400, 4)  # two groups of 200 images, each tested twice


def test_no_survivor_at_all_still_has_an_interval(path):
    nothing = load_result("defenses.digits", path.parent).mean("R", "natural")
    assert (nothing.value, nothing.low, nothing.kind) == (0.0, 0.0, WILSON)
    assert 0.005 < nothing.high < 0.02


def test_a_share_lies_between_nothing_and_all(document):
    """Student's interval knows no bounds; three seeds at 0 and one at 0.2 would go below it."""
    for cell in document["cells"]:
        share = 0.2 if cell["seed"] == 3 else 0.0
        robust = np.arange(cell["n"]) < share * cell["n"]
        cell["outcomes"] = {"N": pack(~robust), "R": pack(robust)}
    result = Result(document)
    assert (result.mean("R", "natural").low, result.mean("N", "natural").high) == (0.0, 1.0)
    assert 0.05 < result.mean("R", "natural").high < 1
    assert 0 < result.mean("N", "natural").low < 0.95


def test_unknown_arms_and_measures_are_one_sentence(path):
    result = load_result("defenses.digits", path.parent)
    with pytest.raises(UnknownName, match="did you mean free-8"):
        result.mean("R", "free-9")
    with pytest.raises(NotRecorded, match="worst of natural was not recorded"):
        result.outcomes("worst", "natural")
    with pytest.raises(NotRecorded, match="curve"):
        result.curves("curve", "natural")


def test_the_summary_is_in_numbers_json_can_hold(document):
    rows = summarize(Result(document), "natural")
    assert [row["measure"] for row in rows] == ["N", "R", "passes"]
    json.dumps(rows, allow_nan=False)
    alone = {**document, "cells": document["cells"][:1]}
    assert summarize(Result(alone), "natural")[2]["low"] is None  # one seed: no interval


def test_provenance_is_a_sentence(document):
    said = Result(document).provenance()
    assert said.startswith("Recorded on 2026-01-01 on test")
    assert "has changed since" in said
    assert "\n" not in said


# --- the code behind a number


LIST = "from .pgd import pgd\nfrom .square import square\n__all__ = ['pgd', 'square']\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a few modules in place of the real one; the name of its experiment."""
    root = tmp_path / "thesis_kit"
    sources = {
        "__init__.py": "from thesis_kit import attacks",
        "chapter.py": "from thesis_kit.attacks import pgd\nfrom thesis_kit.ledger import a\nX = 1, pgd, a\n",
        "attacks/__init__.py": f'"""Doc."""\n{LIST}',
        "attacks/square.py": "S = 4\n",
        "attacks/pgd.py": '"""Doc."""\nfrom ..base import step\ndef pgd(x):\n    """Doc."""\n    return step(x)\n',
        "base.py": "import math\ndef step(x):\n    return x + 1\n",
        "ledger/__init__.py": "",
        "ledger/results.py": "SCHEMA = 1\n",
        "unused.py": "Y = 2\n",
    }
    for name, text in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    modules_hash.cache_clear()
    yield root
    modules_hash.cache_clear()


def hash_after(package, name, old, new):
    before = modules_hash("thesis_kit.chapter")
    path = package / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    modules_hash.cache_clear()
    return modules_hash("thesis_kit.chapter") != before


def test_the_modules_behind_a_number(package):
    names = ["attacks.pgd", "base", "chapter"]
    assert list(modules_used("thesis_kit.chapter")) == [f"thesis_kit.{name}" for name in names]


@pytest.mark.parametrize(
    ("chapter", "listing", "names"),
    [
        ("from thesis_kit import attacks\nX = attacks.pgd(1)\n", LIST, ["attacks.pgd", "base", "chapter"]),
        (
            "from thesis_kit import attacks as a\nX = a.pgd(1), a.square\n",
            LIST,
            ["attacks.pgd", "attacks.square", "base", "chapter"],
        ),
        (
            "from thesis_kit import attacks\nX = attacks.pgd(1), vars(attacks)\n",
            LIST,
            ["attacks", "attacks.pgd", "attacks.square", "base", "chapter"],
        ),
        (
            "from thesis_kit.attacks import pgd\nX = pgd(1)\n",
            LIST + "ALL = {'pgd': pgd, 'square': square}\n",
            ["attacks", "attacks.pgd", "attacks.square", "base", "chapter"],
        ),
        ("from thesis_kit.attacks import square\nX = square.S\n", LIST, ["attacks.square", "chapter"]),
    ],
)
def test_a_package_that_only_lists_names_stands_for_their_modules(package, chapter, listing, names):
    (package / "chapter.py").write_text(chapter)
    (package / "attacks/__init__.py").write_text(listing)
    assert list(modules_used("thesis_kit.chapter")) == [f"thesis_kit.{name}" for name in names]


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("base.py", "x + 1", "x + 2", True),
        ("chapter.py", "X = 1", "X = 3", True),
        ("base.py", "x + 1", "x  +  1  # a remark", False),
        ("base.py", "def step(x):", "def step(x: int) -> int:", False),
        ("base.py", "def step(x):", "def step(x=0):", True),
        ("attacks/pgd.py", "Doc.", "Better words.", False),
        ("ledger/results.py", "1", "2", False),
        ("unused.py", "2", "3", False),
        ("attacks/square.py", "4", "5", False),
    ],
)
def test_only_what_computes_counts(package, name, old, new, changes):
    assert hash_after(package, name, old, new) is changes


def test_the_hash_does_not_depend_on_fields_a_python_version_adds():
    tree = ast.parse("def f(x):\n    return u'a'\n")
    tree.body[0].type_params = []
    assert provenance._shape(tree) == provenance._shape(ast.parse("def f(x): return 'a'"))


def test_the_experiment_rests_on_the_package():
    used = modules_used("thesis_kit.chapters.defenses.arms")
    assert {"thesis_kit.attacks.pgd", "thesis_kit.evaluation.robust", "thesis_kit.randomness"} <= set(used)
    assert not [name for name in used if name.startswith(("thesis_kit.ledger", "thesis_kit.show", "thesis_kit.cli"))]


def test_the_machine_is_described_and_nobody_named():
    described = machine("cpu", 1)
    assert set(described) == {"processor", "cores", "threads", "device", "python", "torch"}
