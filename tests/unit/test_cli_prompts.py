"""``invert --clip``: pictures of prompts, the record beside them, pairs by name, and how it fails."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor
from torchvision.utils import make_grid
from typer.testing import CliRunner

from thesis_kit import cli
from thesis_kit.cli.prompts import named_pair
from thesis_kit.language import SCHEDULES, invert_prompts, shortened
from thesis_kit.models import build_clip, zoo

runner = CliRunner()
QUICK = ["--clip", "small_clip", "--steps", 1, "--copies", 1, "--size", 64]


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in ("invert", *words)], catch_exceptions=False)


def test_the_pictures_are_on_the_sheet_and_what_they_are_is_beside_it(tmp_path):
    sheet, said = tmp_path / "new" / "sheet.png", ["a red star", "two hearts"]
    done = call(*QUICK, "--prompt", said[0], "--prompt", said[1], "--each", 2, "--seed", 3, "--sheet", sheet)
    assert done.exit_code == 0
    pair, asked = build_clip("small_clip", seed=0).eval(), [text for text in said for _ in range(2)]
    schedule = shortened("small", [1, 1, 1], copies=1)
    found = invert_prompts(pair, asked, size=64, schedule=schedule, seed=3, progress=False)
    with Image.open(sheet) as image:
        shown = to_tensor(image)
    assert torch.allclose(shown, make_grid(found.images, nrow=8), atol=1 / 255)
    record = json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))
    assert [image["prompt"] for image in record["images"]] == asked
    near = pair.similarity(found.images, said)
    for i, image in enumerate(record["images"]):
        assert image["cosine"] == pytest.approx(near[i, i // 2].item(), abs=1e-5)
        assert image["nearest"] == said[int(near[i].argmax())]
        assert image["loss"] == pytest.approx(found.losses[-1, i].item(), rel=1e-5)
    assert record["settings"]["stages"] == [[share, 1] for share, _ in SCHEDULES["small"].stages]
    assert (record["settings"]["tv"], record["settings"]["size"]) == (0.005, 64)
    assert done.output.startswith("small_clip has random weights, as a control has: the zoo has trained ones")
    assert f"{sheet} and sheet.json" in done.output


def test_knobs_change_the_pictures(tmp_path):
    losses = set()
    for number, knob in enumerate(([], ["--tv", 0.5], ["--copies", 2], ["--steps", 2], ["--lr", 0.2], ["--seed", 1])):
        sheet = tmp_path / f"{number}.png"
        call(*QUICK, *knob, "--prompt", "a star", "--sheet", sheet)
        losses.add(json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))["images"][0]["cosine"])
    assert len(losses) == 6


def test_an_open_clip_name_is_taken_and_drawn_at_its_size(tmp_path):
    pytest.importorskip("open_clip", reason="the extra clip brings open_clip")
    done = call(
        "--clip", "RN50", "--steps", 1, "--copies", 1, "--size", 64, "--prompt", "a cat", "--sheet", tmp_path / "a.png"
    )
    assert done.output.startswith("RN50 has random weights, as a control has: --tag takes trained ones")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clip", "small_clip", "--prompt", "a rde star"], "unknown word 'rde': did you mean red"),
        (["--clip", "small_clip", "--prompt", ""], "a sentence without a word says nothing"),
        (["--clip", "small_clip", "--prompt", "a " * 40], "is longer than the context of 28: shorten"),
        (["--clip", "small_clip"], "--clip draws what it is told: give --prompt"),
        (["--prompt", "a star"], "name one with --clip"),
        (["--clip", "small_clip", "--prompt", "a star", "--classes", 1], "--classes is for classes"),
        (["--clip", "small_clip", "--prompt", "a star", "--color", 1], "--color is for classes"),
        (["--clip", "small_clip", "--prompt", "a star", "--quality", "best"], "unknown quality of an inversion 'best'"),
        (["--clip", "small_clip", "--prompt", "a star", "--lr", 0], "lr must be a positive, finite number, got 0"),
        (["--clip", "vit-scenes64", "--prompt", "a star"], "is no image–text pair but of the kind 'classifier'"),
        (["--tag", "openai", "--classes", 1, "--model", "vit-scenes64"], "--tag is for --clip"),
        ([], "there is nothing to draw: name --classes of a --model, or give --clip and --prompt"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(words, said, monkeypatch, capsys, tmp_path):
    refused(["--steps", "1", "--copies", "1", *map(str, words)], said, monkeypatch, capsys, tmp_path)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (["ViT-B-33"], "unknown image–text model 'ViT-B-33': did you mean ViT-B-32"),
        (["smal_clip"], "unknown image–text model 'smal_clip': did you mean small_clip"),
        (["ViT-B-32", "--tag", "nope"], "unknown tag 'nope' of ViT-B-32: it has openai"),
    ],
)
def test_a_pair_that_there_is_not_is_one_sentence(name, said, monkeypatch, capsys, tmp_path):
    pytest.importorskip("open_clip", reason="the extra clip brings open_clip")
    refused(["--prompt", "a star", "--clip", *name], said, monkeypatch, capsys, tmp_path)


def refused(words, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["thesis-kit", "invert", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_pair_of_the_zoo_is_loaded_and_has_no_tags(monkeypatch):
    pair = build_clip("small_clip", seed=1)
    about = type("About", (), {"kind": "image-text pair"})
    monkeypatch.setattr(zoo, "names", lambda: ["mine"])
    monkeypatch.setattr(zoo, "entry", lambda name: about)
    monkeypatch.setattr(zoo, "load", lambda name: pair)
    assert named_pair("mine", None) is pair
    with pytest.raises(ValueError, match="mine has weights of its own: leave out --tag"):
        named_pair("mine", "openai")
