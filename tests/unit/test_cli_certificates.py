"""``certify`` and ``attack shadow``: what they print and keep, that they resume, and how they fail."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from thesis_kit import certification, cli, data
from thesis_kit.attacks.shadow import PUBLISHED
from thesis_kit.attacks.spoofing import spoof
from thesis_kit.certification import certify
from thesis_kit.models import zoo

runner = CliRunner()
MEMBER = "resnet-scenes-a-free8"
ON = ["--data", "scenes.v1-a", "--sigma", "0.12"]


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def records(path):
    return [record for record, _ in map(json.loads, path.read_text().splitlines()[1:])]


def test_certificates_of_a_zoo_member_are_kept_and_resumed(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    command = ("certify", MEMBER, *ON, "--images", 3, "--n", 200, "--out", path)
    said = call(*command).output
    assert "3 images" in said
    assert "n = 200" in said
    part = data.load("scenes.v1-a", size=32, n_train=1, n_validation=1, n_test=3).test
    expected = certify(zoo.load(MEMBER), part.x, sigma=0.12, n=200)
    assert [r["radius"] for r in records(path)] == expected.radii.tolist()
    assert [r["label"] for r in records(path)] == expected.labels.tolist()
    assert [r["true"] for r in records(path)] == part.y.tolist()
    monkeypatch.setattr(certification, "certify", pytest.fail)
    assert call(*command).output == said  # nothing is certified again


def test_a_shadow_attack_keeps_records_and_pictures(tmp_path):
    path, folder = tmp_path / "run.jsonl", tmp_path / "pictures"
    said = call(
        "attack", "shadow", MEMBER, *ON, "--images", 1, "--n", 100, "--steps", 3, "--draws", 4, "--n-select", 20,
        "--out", path, "--save", folder,
    ).output  # fmt: skip
    assert "1 images are certified with a wrong label" in said
    (record,) = records(path)
    part = data.load("scenes.v1-a", size=32, n_train=1, n_validation=1, n_test=1).test
    constants = replace(PUBLISHED["scripts"], steps=3, draws=4)
    expected = spoof(zoo.load(MEMBER), part.x, part.y, sigma=0.12, n=100, n_select=20, constants=constants)
    assert record["norms"] == pytest.approx(float(expected.norms), rel=1e-5)
    assert record["target"] == int(expected.targets)
    assert [file.name for file in folder.iterdir()] == ["00000.png"]


def test_a_timm_model_is_certified_too():
    said = call("certify", "resnet10t", *ON, "--images", 1, "--n", 20, "--n0", 10).output
    assert "1 images" in said


@pytest.fixture
def mine(tmp_path):
    """Weights of one's own: a zoo member's, altered a little."""
    altered = zoo.load(MEMBER)
    with torch.no_grad():
        next(altered.parameters()).mul_(1.01)
    torch.save(altered.network.state_dict(), tmp_path / "mine.pt")
    return altered, tmp_path / "mine.pt"


@pytest.mark.parametrize("named", [["--arch", MEMBER], [MEMBER]])
def test_own_weights_are_certified(mine, named, tmp_path):
    model, weights = mine
    path = tmp_path / "run.jsonl"
    knobs = ["--images", 2, "--n", 200, "--out", path]
    call("certify", *named, "--weights", weights, "--data", "scenes.v1-a", "--sigma", "3/25", *knobs)
    part = data.load("scenes.v1-a", size=32, n_train=1, n_validation=1, n_test=2).test
    expected = certify(model, part.x, sigma=0.12, n=200)
    assert [r["radius"] for r in records(path)] == expected.radii.tolist()
    with pytest.raises(ValueError, match="other settings or items"):  # as the member's own weights would be
        call("certify", MEMBER, *ON, *knobs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "mine.pt"], "the weights alone are no model: say with --arch what network they are for"),
        (["--arch", MEMBER], "--arch and --n-classes say what --weights FILE holds"),
        ([MEMBER, "--n-classes", 3], "--arch and --n-classes say what --weights FILE holds"),
        (["resnet18", "--arch", MEMBER, "--weights", "mine.pt"], f"the model is resnet18 or {MEMBER}"),
        (["--arch", "resnet18", "--weights", "mine.pt", "--pretrained"], "--weights and --pretrained are two answers"),
        (["--arch", "resnet18", "--weights", "mine.pt"], "there is no file mine.pt to take weights from"),
        (["--arch", "resnet19", "--weights", "mine.pt"], "unknown model 'resnet19': did you mean resnet1"),
    ],
)
def test_weights_that_are_not_fully_named_are_refused_in_a_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(said)):
        call("certify", *words, *ON)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["certify", "resnet-scenes-a-free9", *ON], "did you mean resnet-scenes-a-free8"),
        (["certify", MEMBER, "--data", "scenes.v1-z", "--sigma", "0.1"], "unknown data set"),
        (["certify", MEMBER, "--data", "scenes.v1-a", "--sigma", "0"], "sigma must be a positive number"),
        (["certify", MEMBER, *ON, "--n", "5"], "largest certifiable radius is 0"),
        (["attack", "shadow", MEMBER, *ON, "--constants", "art2"], "did you mean art"),
        (["certify", MEMBER, "--data", "scenes.v1-b", "--sigma", "0.1"], "the same classes, such as scenes.v1-a"),
        (["certify", MEMBER, "--data", "scenes.v1", "--sigma", "0.1"], "take data with the same classes"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["thesis-kit", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.bad_input
def test_a_file_made_with_other_weights_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    command = ("certify", MEMBER, *ON, "--images", 1, "--n", 20, "--n0", 10, "--out", path)
    call(*command)
    altered = zoo.load(MEMBER)
    with torch.no_grad():
        next(altered.parameters()).mul_(1.01)
    monkeypatch.setattr(zoo, "load", lambda name: altered)
    with pytest.raises(ValueError, match="other settings or items"):
        call(*command)
