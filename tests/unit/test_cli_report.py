"""``attack report``: what it prints and writes, the twins it can have, and how it fails."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from thesis_kit import cli, evaluation, training
from thesis_kit.data import Stream, digits
from thesis_kit.evaluation import masking_report
from thesis_kit.models import zoo
from thesis_kit.training import natural_twin

runner = CliRunner()
MEMBER = "cnn-digits-natural"
ON = ["--data", "digits", "--eps", 0.15, "--images", 12]
LEAST = ["--steps", 10, "--queries", 5, "--restarts", 1]
KNOBS = {"steps": 10, "queries": 5, "restarts": 1, "images_shown": 0}


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def expected(twin=None, **knobs):
    return masking_report(zoo.load(MEMBER), digits(0).test[:12], eps=0.15, twin=twin, **{**KNOBS, **knobs})


def written(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_zoo_members_diagnosis_is_printed_and_written(tmp_path):
    path = tmp_path / "report.json"
    done = call("attack", "report", MEMBER, *ON, *LEAST, "--out", path)
    assert done.exit_code == 0
    report, record = expected(), written(path)
    settings = record.pop("settings")
    assert record == json.loads(json.dumps(report.record()))
    assert " ".join(report.conclusion.split()) in " ".join(done.output.split())
    for finding in report.findings:
        assert f"{finding.evidence}\n" in done.output
    assert "no attack " in done.output
    assert f"written to {path}" in done.output
    assert settings | {"weights": ""} == {
        "model": MEMBER, "weights": "", "data": "digits", "device": settings["device"], "twin": None, "steps": 10,
        "restarts": 1, "queries": 5, "seed": 0,
    }  # fmt: skip
    assert len(settings["weights"]) == 64
    assert record["findings"]["transfer wins"]["found"] is None


def test_norm_and_seed_are_passed_on(tmp_path):
    path = tmp_path / "report.json"
    call("attack", "report", MEMBER, *ON, *LEAST, "--norm", "l2", "--seed", 3, "--out", path)
    record = written(path)
    assert record.pop("settings")["seed"] == 3
    assert record == json.loads(json.dumps(expected(norm="l2", seed=3).record()))


def test_a_timm_model_is_diagnosed_too(tmp_path):
    path = tmp_path / "report.json"
    on = ["--data", "scenes.v1-a", "--eps", 0.03, "--images", 4, "--size", 32]
    done = call("attack", "report", "resnet10t", *on, *LEAST, "--out", path)
    assert done.exit_code == 0
    record = written(path)
    assert record["images"] == 4
    assert record["settings"]["size"] == 32
    assert "worst case" in done.output


def test_examples_are_made_on_a_named_twin(tmp_path):
    path = tmp_path / "report.json"
    call("attack", "report", MEMBER, *ON, *LEAST, "--twin", "cnn-digits-squeezed", "--out", path)
    record = written(path)
    assert record.pop("settings")["twin"] == "cnn-digits-squeezed"
    assert record == json.loads(json.dumps(expected(zoo.load("cnn-digits-squeezed")).record()))
    assert record["findings"]["transfer wins"]["found"] is False
    assert "transfer" in record["attacks"]


def test_a_twin_is_trained_from_the_data(tmp_path):
    path = tmp_path / "report.json"
    call("attack", "report", MEMBER, *ON, *LEAST, "--twin", "train", "--twin-updates", 5, "--out", path)
    record = written(path)
    twin = natural_twin(zoo.load(MEMBER), digits(0).train, updates=5, progress=False)
    assert record.pop("settings")["twin"] == "train"
    assert record == json.loads(json.dumps(expected(twin).record()))


def test_a_twin_for_scenes_learns_from_the_endless_stream_of_their_size(monkeypatch):
    seen, member = [], "resnet-scenes-a-natural"
    monkeypatch.setattr(training, "natural_twin", lambda model, images, **k: seen.append((images, k)) or model)
    call(
        "attack", "report", member, "--data", "scenes.v1-a", "--eps", 0.03, "--images", 2, "--size", 16, *LEAST,
        "--twin", "train", "--twin-updates", 7,
    )  # fmt: skip
    ((images, knobs),) = seen
    assert isinstance(images, Stream)
    assert images.minibatch(0, 3).x.shape == (3, 3, 16, 16)
    assert knobs["updates"] == 7


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cnn-digits-naturel", *ON], "did you mean cnn-digits-natural"),
        (["vit_small_patch14_dinov2", *ON], "has no classes of its own, for it gives features"),
        (["resnet18.nope", *ON], "unknown tag 'nope' of resnet18: it has a1_in1k, a2_in1k"),
        ([MEMBER, "--data", "digit", "--eps", 0.1], "unknown data set 'digit': did you mean digits?"),
        ([MEMBER, "--data", "scenes.v1-a", "--eps", 0.1], "the same classes, such as digits"),
        ([MEMBER, *ON, "--twin", "cnn-digits-squeesed"], "did you mean cnn-digits-squeezed"),
        ([MEMBER, *ON, "--twin", "resnet-scenes-a-natural"], "the same classes, such as scenes.v1-a"),
        ([MEMBER, *ON, "--norm", "linf2"], "unknown norm 'linf2': did you mean linf"),
        ([MEMBER, "--data", "digits", "--eps", -0.1], "eps must be a finite number of at least 0, got -0.1"),
        ([MEMBER, *ON, "--out", "no/such/folder/report.json"], "there is no folder no/such/folder to write"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_before_anything_is_measured(words, said, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "masking_report", pytest.fail)
    monkeypatch.setattr(training, "natural_twin", pytest.fail)
    twin = [] if "--twin" in words else ["--twin", "train"]
    monkeypatch.setattr(sys, "argv", ["thesis-kit", "attack", "report", *map(str, words), *twin])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--steps", 9], ["--restarts", 0], ["--queries", 0], ["--images", 0]])
def test_too_little_effort_is_refused(words):
    done = call("attack", "report", MEMBER, *ON, *words)
    assert done.exit_code == 2
    assert words[0] in done.output


def test_the_models_weights_tell_records_apart(tmp_path, monkeypatch):
    path, hashes = tmp_path / "report.json", []
    for factor in (1, 1, 2):
        model = zoo.load(MEMBER)
        with torch.no_grad():
            model.network[-1].weight.mul_(factor)
        monkeypatch.setattr(zoo, "load", lambda name, model=model: model)
        monkeypatch.setattr(evaluation, "masking_report", lambda *a, **k: REPORT)
        call("attack", "report", MEMBER, *ON, "--out", path)
        hashes.append(written(path)["settings"]["weights"])
        monkeypatch.undo()
    assert hashes[0] == hashes[1] != hashes[2]


class REPORT:
    """Stands for a diagnosis where only the settings beside it matter."""

    @staticmethod
    def record():
        return {}
