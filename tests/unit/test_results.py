"""Recordings are whole or refused by file and line, and say what they rest on."""

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thesis_kit.files import DamagedFile, WriteFailed, writing
from thesis_kit.ledger import provenance
from thesis_kit.ledger.arm import Look, Settings, pick, plain
from thesis_kit.ledger.cells import (
    arm_file,
    arm_files,
    forget_cells,
    keep_cell,
    pack,
    read_cells,
    read_rows,
    unpack,
    write_rows,
)
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.pinned import Pinned, pin, read_pinned
from thesis_kit.ledger.reproduced import EXACTLY, Reproduced, note_reproduced, read_reproduced
from thesis_kit.ledger.results import NotRecorded, Result, available, load_result
from thesis_kit.ledger.statistics import WILSON
from thesis_kit.names import UnknownName

NAME = "defenses.digits"
RATES = {"natural": {"N": 0.95, "R": 0.0}, "free-8": {"N": 0.9, "R": 0.7}}


@pytest.fixture
def world(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "worlds"))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def folder(world, tmp_path):
    world.record(tmp_path, RATES, scalars={"natural": {"passes": [1.0, 2.0, 3.0, 4.0]}})
    return tmp_path


@pytest.fixture
def result(world, folder):
    return load_result(NAME, folder, world.experiment())


@pytest.fixture
def path(folder):
    return arm_file(NAME, "natural", folder)


# --- outcomes


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


# --- files


def test_cells_come_back_as_they_were_a_line_a_seed(world, path):
    kept = world.cells(RATES, scalars={"natural": {"passes": [1.0, 2.0, 3.0, 4.0]}})["natural"]
    back = read_cells(path, "natural")
    assert {seed: {k: v for k, v in cell.items() if k != "sha256"} for seed, cell in back.items()} == kept
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_a_new_cell_is_one_new_line(world, path, folder):
    before = path.read_text(encoding="utf-8").splitlines()
    keep_cell(NAME, world.cell("natural", 7, {"R": [True] * 200}), folder)
    after = path.read_text(encoding="utf-8").splitlines()
    assert after[:4] == before
    assert json.loads(after[4])["seed"] == 7
    keep_cell(NAME, world.cell("natural", 7, {"R": [False] * 200}), folder)  # measured again: in its place
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.parametrize("arm", ["free-8 twice", "fgsm@strong", "ls+noise", "n=100", "a_b", "a/b", "ε", "A:b"])
def test_any_arm_has_a_file_and_is_found_by_it(world, tmp_path, arm):
    keep_cell(NAME, world.cell(arm, 0, {}), tmp_path)
    assert set(arm_files(NAME, tmp_path)) == {arm}
    assert arm_file(NAME, arm, tmp_path).parent == tmp_path / "defenses" / "digits"
    forget_cells(NAME, arm, tmp_path)
    assert arm_files(NAME, tmp_path) == {}


def test_every_truncation_is_refused_or_loses_whole_cells(path):
    whole = path.read_bytes()
    for cut in range(1, len(whole) - 1, 37):
        path.write_bytes(whole[:cut])
        last = whole[:cut].split(b"\n")[-1]
        if last in (b"", *whole.split(b"\n")):  # cut between two lines
            assert len(read_cells(path, "natural")) == whole[:cut].strip().count(b"\n") + 1
        else:
            with pytest.raises(DamagedFile, match=r"digits/natural\.jsonl, line [1-4]: "):
                read_cells(path, "natural")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"seed": 2', '"seed": 9', "line 3: this was altered, its SHA-256 does not fit"),
        ('"seed": 2', '"seed": 2, "seed": 2', "line 3: the key 'seed' stands twice"),
        ('"passes": 3.0', '"passes": NaN', "line 3: NaN is no number"),
        ('"passes": 3.0', '"passes": -Infinity', "line 3: -Infinity is no number"),
        ('"passes": 3.0', '"passes": 3.0.0', "line 3: this is no JSON"),
        ('"sha256"', '"sha"', "line 1: this is no recorded line, it has no SHA-256"),
    ],
)
def test_a_fault_is_named_by_file_and_line(path, old, new, said):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DamagedFile) as caught:
        read_cells(path, "natural")
    assert f"digits/natural.jsonl, {said}" in str(caught.value)


def test_bytes_that_are_no_text_are_named_by_file_and_line(path):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"\xff\xfe", *lines[1:]]))
    with pytest.raises(DamagedFile, match=r"digits/natural\.jsonl, line 2: this is no UTF-8"):
        read_cells(path, "natural")


def test_a_line_in_the_wrong_file_and_a_seed_twice_are_refused(world, path):
    rows = read_rows(path)
    write_rows(path, [*rows, {**rows[0], "arm": "free-8"}])
    with pytest.raises(DamagedFile, match=r"line 5: this is a cell of free-8, not of natural"):
        read_cells(path, "natural")
    write_rows(path, [*rows, rows[0]])
    with pytest.raises(DamagedFile, match=r"line 5: seed 0 stands twice"):
        read_cells(path, "natural")
    write_rows(path, [{"arm": "natural", "seed": 0}])
    with pytest.raises(DamagedFile, match=r"line 1: this is no recorded cell, it lacks group, n, outcomes"):
        read_cells(path, "natural")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_the_old_file(world, folder, path, monkeypatch, failure):
    before = path.read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(WriteFailed if isinstance(failure, OSError) else KeyboardInterrupt):
        keep_cell(NAME, world.cell("natural", 9, {}), folder)
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["free-8.jsonl", "natural.jsonl"]


def test_nan_never_reaches_a_file(world, folder, path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        keep_cell(NAME, {**world.cell("natural", 9, {}), "seconds": math.nan}, folder)
    assert path.read_bytes() == before


# --- what is read from them


def test_results_are_found_by_name(folder):
    assert available(folder) == [NAME]
    assert load_result(NAME, folder).name == NAME
    with pytest.raises(UnknownName, match=r"did you mean defenses\.digits"):
        load_result("defences.digits", folder)


def test_the_books_recordings_lie_with_their_chapters():
    assert {NAME, "defenses.scenes", "certificates.scenes", "inversion.scenes"} <= set(available())


def test_what_was_measured_can_be_read(result):
    assert result.arms == ["natural", "free-8"]
    assert result.outcomes("R", "free-8")[0].shape == (200,)
    assert result.scalars("passes", "natural") == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    assert result.scalars("R", "natural") == dict.fromkeys(range(4), 0.0)
    mean = result.mean("passes", "natural")
    assert (mean.value, mean.seeds, mean.n) == (2.5, 4, 0)
    robust = result.mean("R", "free-8")
    assert robust.low < robust.value < robust.high
    assert (robust.n, robust.seeds) == (400, 4)  # two groups of 200 images, each tested twice


def test_no_survivor_at_all_still_has_an_interval(result):
    nothing = result.mean("R", "natural")
    assert (nothing.value, nothing.low, nothing.kind) == (0.0, 0.0, WILSON)
    assert 0.005 < nothing.high < 0.02


def test_a_share_lies_between_nothing_and_all(world):
    """Student's interval knows no bounds; three seeds at 0 and one at 0.2 would go below it."""
    shares = np.array([0.0, 0.0, 0.0, 0.2])
    bits = [np.arange(200) < share * 200 for share in shares]
    cells = {seed: world.cell("a", seed, {"N": (~one).tolist(), "R": one.tolist()}) for seed, one in enumerate(bits)}
    result = Result("tiny", {"a": cells})
    assert (result.mean("R", "a").low, result.mean("N", "a").high) == (0.0, 1.0)
    assert 0.05 < result.mean("R", "a").high < 1
    assert 0 < result.mean("N", "a").low < 0.95


def test_unknown_arms_and_measures_are_one_sentence(result):
    with pytest.raises(UnknownName, match="did you mean free-8"):
        result.mean("R", "free-9")
    with pytest.raises(NotRecorded, match="worst of natural was not recorded"):
        result.outcomes("worst", "natural")
    with pytest.raises(NotRecorded, match="curve"):
        result.curves("curve", "natural")


def test_one_hash_speaks_for_all_that_is_recorded(world, folder, result):
    again = load_result(NAME, folder)
    assert again.sha256 == result.sha256
    keep_cell(NAME, world.cell("natural", 9, {}), folder)
    assert load_result(NAME, folder).sha256 != result.sha256


# --- where a number comes from


def test_provenance_says_once_when_and_where(result):
    said = result.provenance()
    assert said == (
        "Recorded on 2026-01-01 on test (1 cores, one thread a run) with torch 2, in 0.0 core-hours. "
        "To measure again: `thesis-kit claims run --arena digits`"
    )


def test_provenance_says_once_what_was_measured_again(world, folder):
    cells = load_result(NAME, folder).cells["natural"]
    sha256 = [cell["sha256"] for cell in cells.values()]
    found = [Reproduced("digits", "natural", s, sha256[s], EXACTLY, f"2026-02-0{s + 1}", "x", None) for s in (0, 1)]
    other = Reproduced("scenes", "natural", 0, sha256[0], EXACTLY, "2026-03-01", "x", None)
    note_reproduced("defenses", [found[0], other], folder)
    note_reproduced("defenses", [found[1]], folder)
    assert read_reproduced(NAME, folder) == tuple(found)
    said = load_result(NAME, folder).provenance()
    assert "; reproduced on 2026-02-01 to 2026-02-02 (2 of 8 runs, bit by bit). " in said
    keep_cell(NAME, world.cell("natural", 0, {}), folder)  # measured anew: nobody has reproduced that
    assert "; reproduced on 2026-02-02 (1 of 8 runs, bit by bit). " in load_result(NAME, folder).provenance()


def test_the_machine_is_described_without_its_owner():
    described = provenance.machine()
    assert set(described) == {"processor", "cores", "threads", "device", "python", "torch"}
    assert (described["device"], described["torch"]) == ("cpu", torch.__version__)
    assert {"numpy", "scipy", "thesis_kit"} <= set(provenance.environment())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one module, in place of the real one."""

    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    (tmp_path / "thesis_kit").mkdir()
    (tmp_path / "thesis_kit" / "a.py").write_text("X = 1\n")
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "one")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path, git("rev-parse", "HEAD").strip()
    provenance.commit.cache_clear()


def test_the_commit_is_named_and_whether_files_were_changed_since(checkout):
    root, head = checkout
    assert provenance.commit() == head
    (root / "notes.txt").write_text("not code")
    provenance.commit.cache_clear()
    assert provenance.commit() == head
    (root / "thesis_kit" / "a.py").write_text("X = 2\n")
    provenance.commit.cache_clear()
    assert provenance.commit() == f"{head}+"


def test_what_is_no_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    provenance.commit.cache_clear()
    assert provenance.commit() is None
    provenance.commit.cache_clear()


# --- an arm's own settings


def test_an_arm_reads_its_own_settings_and_no_others():
    table = Look("gray", "s")
    own = pick(table, "color", lr=0.1)
    assert (own.color, own.lr, dict(own)) == ("gray", 0.1, {"color": "gray", "lr": 0.1})
    with pytest.raises(AttributeError, match="marker is none of this arm's own settings: give it to the arm"):
        _ = own.marker
    with pytest.raises(AttributeError, match="settings are fixed"):
        own.lr = 1.0
    with pytest.raises(ValueError, match="color is picked and given"):
        pick(table, "color", color="blue")
    with pytest.raises(AttributeError):
        pick(table, "colour")


def test_settings_are_plain_for_files():
    assert plain(Settings({"a": (1, (2.0,)), "look": Look("gray", "s"), "b": {8: None}})) == {
        "a": [1, [2.0]], "look": {"color": "gray", "marker": "s", "fill": "full", "name": ""}, "b": {"8": None},
    }  # fmt: skip


def test_what_an_arm_was_recorded_with_is_compared_with_what_it_has(world, folder):
    def outdated(**change):
        arms = tuple(replace(arm, **change) for arm in world.experiment().arms)
        return load_result(NAME, folder, replace(world.experiment(), arms=arms)).outdated("natural")

    assert outdated() == ""
    assert outdated(settings=Settings({"lr": 0.1})) == "lr was None, is 0.1"
    assert outdated(version=2) == "version was 1, is 2"
    assert outdated(title="another", look=Look("gray", "s"), seeds=(0,), units=("image",)) == ""


# --- rules are fixed before they are measured


def test_a_rule_is_pinned_once_and_a_later_edit_is_noticed(tmp_path):
    claim = catalog().claims["free-robust"]
    pin(claim, tmp_path, "2026-01-01")
    pin(catalog().claims["free-strong"], tmp_path)
    edited = replace(claim, rule=catalog().claims["free-strong"].rule)
    pin(edited, tmp_path)
    kept = read_pinned("defenses", tmp_path)
    assert set(kept) == {"free-robust", "free-strong"}
    assert kept["free-robust"] == Pinned.of(claim, "2026-01-01")
    assert kept["free-robust"].asks_the_same(claim)
    assert not kept["free-robust"].asks_the_same(edited)
